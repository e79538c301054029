//! What a broker's configuration takes and refuses, and what follows from it.

use super::*;
use crate::ha::keeps_copies;

fn complete(text: &str) -> Result<BrokerConfig, ConfigError> {
    BrokerConfig::complete(BrokerConfig::parse(text, "broker.conf".as_ref())?)
}

fn error(text: &str) -> String {
    complete(text).unwrap_err().to_string()
}

#[test]
fn a_stock_file_is_accepted() {
    let text = "brokerClusterName = DefaultCluster\nbrokerName = broker-a\nbrokerId = 0\ndeleteWhen = 04\nfileReservedTime = 48\n\
                brokerRole = ASYNC_MASTER\nflushDiskType = ASYNC_FLUSH\n";
    let loaded = BrokerConfig::parse(text, "broker.conf".as_ref()).unwrap();
    assert!(loaded.unknown.is_empty());
    assert!(loaded.inert.is_empty());
    let config = BrokerConfig::complete(loaded).unwrap();
    assert_eq!(config.retention().reserved_time, Duration::from_secs(48 * 3600));
    assert_eq!((config.listen_port, config.fast_port(), config.ha_listen_port), (10911, Some(10909), 10912));
    assert!(config.broker_ip1.is_some() && config.store_path_commit_log.is_some());
}

/// Those of one directory run side by side.
#[test]
fn the_files_of_groups_are_accepted_and_share_nothing() {
    let conf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf");
    for (dir, count) in [("2m-2s-async", 4), ("2m-2s-sync", 4), ("2m-noslave", 2)] {
        let mut taken = std::collections::BTreeSet::new();
        let mut members = std::collections::BTreeSet::new();
        for file in std::fs::read_dir(conf.join(dir)).unwrap() {
            let path = file.unwrap().path();
            let loaded = BrokerConfig::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
            assert!(loaded.unknown.is_empty() && loaded.inert.is_empty(), "{path:?}");
            let config = BrokerConfig::complete(loaded).unwrap();
            for port in [config.listen_port, config.fast_port().unwrap(), config.ha_listen_port] {
                assert!(taken.insert(port.to_string()), "{path:?}: {port}");
            }
            assert!(taken.insert(config.store_path_root_dir.display().to_string()), "{path:?}");
            members.insert((config.broker_name.clone(), config.broker_id));
            assert_eq!(keeps_copies(&config), dir == "2m-2s-sync" && config.broker_role == BrokerRole::SyncMaster);
        }
        assert_eq!(members.len(), count, "{dir}: {members:?}");
    }
}

#[test]
fn the_write_pool_is_as_its_keys_say() {
    assert_eq!(complete("transientStorePoolSize=7").unwrap().write_pool(), None);
    let pool = |more: &str| complete(&format!("transientStorePoolEnable=true\n{more}")).unwrap().write_pool().unwrap();
    let default = pool("");
    let length_and_times = (default.buffer_len, default.commit_interval, default.commit_least_pages);
    assert_eq!(length_and_times, (16 << 20, Duration::from_millis(1), 0));
    assert!(default.buffers == 5 && !default.fails_fast);
    let set = pool(
        "transientStorePoolSize=7\ncommitIntervalCommitLog=200\ncommitCommitLogLeastPages=4\ncommitCommitLogThoroughInterval=300\n\
         fastFailIfNoBufferInStorePool=true\nmappedFileSizeCommitLog=8192\n",
    );
    let expected = WritePoolConfig {
        buffers: 7,
        buffer_len: 8192,
        commit_interval: Duration::from_millis(200),
        commit_least_pages: 4,
        commit_thorough_interval: Duration::from_millis(300),
        fails_fast: true,
    };
    assert_eq!(set, expected);
    let odd = error("transientStorePoolEnable=true\nmappedFileSizeCommitLog=5000");
    assert!(odd.contains("mappedFileSizeCommitLog is `5000`, but must be a multiple of 4096"), "{odd}");
}

#[test]
fn a_slave_has_a_number_and_no_write_pool() {
    for unset in ["", "\nbrokerId=0"] {
        let error = error(&format!("brokerRole=SLAVE{unset}"));
        assert!(error.contains("brokerId is `0`, but must be above 0 with brokerRole=SLAVE"), "{error}");
    }
    let slave = complete("brokerRole=SLAVE\nbrokerId=3\ntransientStorePoolEnable=true").unwrap();
    assert_eq!((slave.broker_id, slave.write_pool(), slave.pinned_master()), (3, None, None));
    assert_eq!(complete("brokerId=3").unwrap().broker_id, 0);
    let pinned = complete("haMasterAddress=10.0.0.1:10912\n").unwrap();
    assert_eq!(pinned.pinned_master(), Some("10.0.0.1:10912"));
    assert_eq!(complete("haMasterAddress=\n").unwrap().pinned_master(), None);
    let odd = error("haMasterAddress=10.0.0.1");
    assert!(odd.starts_with("broker.conf:1: haMasterAddress is `10.0.0.1`") && odd.contains("host:port"), "{odd}");
}

#[test]
fn impossible_values_name_file_line_and_remedy() {
    assert!(error("flushDiskType=sync").contains("ASYNC_FLUSH or SYNC_FLUSH"));
    assert!(error("namesrvAddr=a:9876;b").contains("`b` is not host:port"));
    assert!(error("listenPort=2").contains("above 2"));
    assert!(error("listenPort=70000").contains("0 to 65535"));
    assert!(error("bindAddress=here").contains("an IP address"));
    assert!(error("brokerName=").contains("not empty"));
    for hours in ["deleteWhen=24", "deleteWhen=04:00", "deleteWhen="] {
        assert!(error(hours).starts_with("broker.conf:1: deleteWhen is `") && error(hours).contains("0 to 23"));
    }
    for line in
        ["fileReservedTime=-1", "diskMaxUsedSpaceRatio=101", "fileReservedBytes=1G", "cleanFileForciblyEnable=yes"]
    {
        assert!(error(&format!("\n{line}")).starts_with("broker.conf:2: "), "{}", error(line));
    }
    assert!(error("aclEnable=true").contains("has no access control yet"));
}

/// Every key that this broker takes without effect was asked: does it promise that messages reach somebody, stay, or are protected?
#[test]
fn a_key_that_promises_what_is_not_there_stops_the_start() {
    for line in [
        "aclEnable=true",
        "authenticationEnabled=true",
        "authorizationEnabled=true",
        "useTLS=True",
        "enableDLegerCommitLog=true",
        "enableControllerMode=true",
        "duplicationEnable=true",
        "enableSlaveActingMaster=true",
        "enableLmq=true",
        "enableMultiDispatch=true",
        "storeType=defaultRocksDB",
        "configManagerVersion=V2",
        "messageStorePlugIn=org.apache.rocketmq.tieredstore.TieredMessageStore",
        "fetchNamesrvAddrByAddressServer=true\nnamesrvAddr=",
    ] {
        let key = line.split('=').next().unwrap();
        let error = error(line);
        assert!(error.starts_with(&format!("broker.conf:1: {key} is `")) && error.contains("must be"), "{error}");
    }
    for line in [
        "useTLS=false",
        "storeType=default",
        "messageStorePlugIn=",
        "inSyncReplicas=2",
        "brokerRole=SYNC_MASTER",
        "fetchNamesrvAddrByAddressServer=true\nnamesrvAddr=a:9876",
    ] {
        assert!(complete(line).is_ok(), "{line}");
    }
}

#[test]
fn the_log_may_have_several_directories() {
    let dirs = |text: &str| {
        let config = complete(text).unwrap();
        let shown = |dirs: Vec<PathBuf>| dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join("|");
        (shown(config.commit_log_dirs()), shown(config.read_only_log_dirs()))
    };
    let pair = |writable: &str, read_only: &str| (writable.to_owned(), read_only.to_owned());
    assert_eq!(dirs("storePathRootDir=/s"), pair("/s/commitlog", ""));
    assert_eq!(dirs("storePathCommitLog=/b/log , /a/log,"), pair("/b/log|/a/log", ""));
    assert_eq!(dirs("storePathCommitLog=,/a,,/b"), pair("/a|/b", ""));
    assert_eq!(dirs("storePathCommitLog=/a,/b\nreadOnlyCommitLogStorePaths=/a, /old"), pair("/a|/b", "/a|/old"));
    assert_eq!(dirs("storePathCommitLog=/a:/b,c\nmultiPathSplitter=:"), pair("/a|/b,c", ""));
    let listed = complete("storePathCommitLog=/a,/b\nreadOnlyCommitLogStorePaths=/a").unwrap().listing();
    assert_eq!((&*listed["storePathCommitLog"], &*listed["readOnlyCommitLogStorePaths"]), ("/a,/b", "/a"));
    for (text, reason) in [
        ("storePathCommitLog=/a,/b,/a/", "/a is there twice"),
        ("storePathCommitLog=/a/b/,/a", "/a/b/ lies inside /a"),
        ("storePathCommitLog=/a\nreadOnlyCommitLogStorePaths=/a/old", "/a/old lies inside /a"),
        ("storePathCommitLog=/a,/b\nreadOnlyCommitLogStorePaths=/b,/a", "are in readOnlyCommitLogStorePaths too"),
        ("storePathCommitLog=,", "there is no directory"),
    ] {
        let error = error(text);
        assert!(error.starts_with("broker.conf:1: storePathCommitLog is `") && error.contains(reason), "{error}");
    }
    assert!(error("multiPathSplitter=").contains("such as a comma"));
}

#[test]
fn disk_ratios_are_bounded_as_in_java() {
    let ratios = |text: &str| {
        let rules = complete(text).unwrap().retention();
        (rules.used_ratio_max, rules.forced_ratio, rules.full_ratio)
    };
    assert_eq!(ratios(""), (0.75, 0.85, 0.90));
    let all = |percent: u32| {
        ["diskMaxUsedSpaceRatio", "diskSpaceCleanForciblyRatio", "diskSpaceWarningLevelRatio"]
            .map(|key| format!("{key}={percent}\n"))
            .concat()
    };
    assert_eq!(ratios(&all(0)), (0.10, 0.30, 0.35));
    assert_eq!(ratios(&all(100)), (0.95, 0.85, 0.90));
    assert_eq!(ratios(&all(50)), (0.50, 0.50, 0.50));
    let stock = RetentionRules::default();
    assert_eq!(complete("").unwrap().retention(), stock);
    let bytes = complete("fileReservedBytes=5000000000").unwrap().retention().reserved_bytes;
    assert_eq!(bytes, Some(5_000_000_000));
}

#[test]
fn nameserver_lists_may_have_blanks_and_empty_parts() {
    assert_eq!(complete("namesrvAddr=a:9876; b:9877;").unwrap().nameservers(), ["a:9876", "b:9877"]);
    assert_eq!(complete("namesrvAddr=[::1]:9876;::1:9877").unwrap().nameservers(), ["[::1]:9876", "::1:9877"]);
    assert!(error("namesrvAddr=[::1]").contains("`[::1]` is not host:port"));
}
