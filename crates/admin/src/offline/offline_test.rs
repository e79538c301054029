//! What the commands print, and how they end.

use ferromq_protocol::QueueId;
use ferromq_protocol::message::{NewMessage, SysFlag};
use ferromq_store::{Store, StoreConfig};
use serde::Deserialize;

use super::*;

const HOST: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_911);

fn config(root: &Path) -> StoreConfig {
    StoreConfig {
        segment_len: 65_536,
        queue_file_entries: 100,
        index_slots: 100,
        index_entries: 500,
        ..StoreConfig::at(root)
    }
}

/// A store with three messages of T in queue 0, and a broker.conf that says how it was made.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(&dir.path().join("store"))).unwrap();
    for n in 0..3 {
        let properties = format!("KEYS\u{1}key-{n}\u{2}TAGS\u{1}TagA\u{2}");
        let message = NewMessage {
            topic: "T",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: 1_700_000_000_000,
            born_host: HOST,
            store_host: HOST,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"hello\n",
            properties: &properties,
        };
        store.append(&message).unwrap();
    }
    store.close().unwrap();
    let conf = "maxHashSlotNum=7\nmaxHashSlotNum = 100\nmaxIndexNum=500\nmessageDelayLevel=1s 2s\n";
    std::fs::write(dir.path().join("broker.conf"), conf).unwrap();
    std::fs::create_dir(dir.path().join("store/config")).unwrap();
    write(&dir, "topics.json", r#"{"dataVersion":{},"topicConfigTable":{"T":{"topicName":"T"}}}"#);
    dir
}

fn write(dir: &tempfile::TempDir, file: &str, text: &str) {
    std::fs::write(dir.path().join("store/config").join(file), text).unwrap();
}

/// What a command line prints, and its exit code or why it has none.
fn run(command: &OfflineCommand, dir: &tempfile::TempDir, words: &[&str]) -> (String, Result<u8, String>) {
    let conf = dir.path().join("broker.conf").display().to_string();
    let words: Vec<String> = [&["-c", conf.as_str()][..], words].concat().iter().map(|word| word.to_string()).collect();
    let given = GivenOptions::parse(&command.all_options(), &words).unwrap();
    let mut printed = Vec::new();
    let done = (command.run)(&given, &dir.path().join("store"), &mut Out { to: &mut printed });
    (String::from_utf8(printed).unwrap(), done.map_err(|failure| failure.to_string()))
}

fn check(dir: &tempfile::TempDir, words: &[&str]) -> (String, Result<u8, String>) {
    run(&store_check::COMMAND, dir, words)
}

fn damage(dir: &tempfile::TempDir) {
    let path = dir.path().join("store/consumequeue/T/0/00000000000000000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[27] ^= 8;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_good_store_ends_with_0_and_a_bad_one_with_1() {
    let dir = store();
    let (printed, code) = check(&dir, &[]);
    assert_eq!(code, Ok(0), "{printed}");
    assert!(
        printed.starts_with("log: 3 messages from 0 to ") && printed.ends_with("\nnothing is wrong\n"),
        "{printed}"
    );
    damage(&dir);
    let (printed, code) = check(&dir, &[]);
    assert_eq!(code, Ok(1), "{printed}");
    let first = printed.lines().next().unwrap();
    assert!(first.contains("consumequeue/T/0/00000000000000000000:20: entry 1 leads to "), "{printed}");
    assert!(printed.ends_with("\n1 faults, 0 notes\n"), "{printed}");
}

#[test]
fn programs_get_one_object() {
    #[derive(Deserialize)]
    struct Whole {
        #[serde(default)]
        findings: Vec<FindingOut>,
        #[serde(default)]
        summary: SummaryOut,
        error: Option<String>,
    }
    #[derive(Deserialize)]
    struct FindingOut {
        fault: bool,
        part: String,
        file: String,
        offset: Option<u64>,
        what: String,
    }
    #[derive(Default, Deserialize)]
    struct SummaryOut {
        messages: u64,
        faults: u64,
        clean: bool,
    }
    let whole = |printed: &str| ferromq_protocol::json::from_slice::<Whole>(printed.as_bytes()).unwrap();
    let dir = store();
    let (printed, code) = check(&dir, &["--json"]);
    let good = whole(&printed);
    assert_eq!((code, good.findings.len(), good.summary.messages), (Ok(0), 0, 3), "{printed}");
    damage(&dir);
    write(&dir, "delayOffset.json", "{");
    let (printed, code) = check(&dir, &["--json"]);
    let bad = whole(&printed);
    assert_eq!((code, bad.findings.len(), bad.summary.faults, bad.summary.clean), (Ok(1), 2, 2, true), "{printed}");
    let [config, queue] = &bad.findings[..] else { panic!("{printed}") };
    assert!(config.fault && config.part == "config" && config.file.ends_with("delayOffset.json"), "{printed}");
    assert!(config.offset.is_none() && config.what.contains("there is no good backup"), "{printed}");
    assert!(queue.fault && queue.part == "queues" && queue.offset == Some(20), "{printed}");
    std::fs::remove_dir_all(dir.path().join("store/commitlog")).unwrap();
    let (printed, code) = check(&dir, &["--json"]);
    assert!(code.is_err() && whole(&printed).error.unwrap().contains("is no store"), "{printed}");
}

/// The lengths that the files have.
fn say_lengths(dir: &tempfile::TempDir) {
    let conf = dir.path().join("broker.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(conf, text + "mappedFileSizeCommitLog=65536\nmappedFileSizeConsumeQueue=2000\n").unwrap();
}

#[test]
fn what_is_repaired_is_told_and_what_is_left() {
    let dir = store();
    damage(&dir);
    // With the lengths of Java's default nothing is made in there.
    let (printed, code) = check(&dir, &["--repair"]);
    let why = code.unwrap_err();
    assert!(
        why.contains("--repair: the store does not open: ") && why.contains("Set mappedFileSizeCommitLog"),
        "{why}"
    );
    assert!(!dir.path().join("store/damaged").exists(), "{printed}");
    say_lengths(&dir);
    let (printed, code) = check(&dir, &["--repair"]);
    assert_eq!(code, Ok(0), "{printed}");
    let kept_as = dir.path().join("store/damaged/consumequeue+T+0");
    let moved =
        format!("moved away: {} is {}\n", dir.path().join("store/consumequeue/T/0").display(), kept_as.display());
    for expected in ["\n1 faults, 0 notes\n", &moved, "made again: the queues, out of the log\n"] {
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
    assert!(kept_as.is_dir() && printed.ends_with("\nnothing is wrong\n"), "{printed}");
    assert_eq!(check(&dir, &[]).1, Ok(0));
    let (printed, code) = check(&dir, &["--repair"]);
    assert!(code == Ok(0) && !printed.contains("now:"), "{printed}");
    // Only what can be made again.
    write(&dir, "delayOffset.json", "{");
    let (printed, code) = check(&dir, &["--repair"]);
    assert!(code == Ok(1) && printed.contains("nothing of this can be made again"), "{printed}");
    assert!(printed.contains("\nconfig: put the file back from a copy"), "{printed}");
}

#[test]
fn programs_get_one_object_of_a_repair_too() {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Whole {
        findings: Vec<serde::de::IgnoredAny>,
        repair: Option<RepairOut>,
        left: Option<Vec<serde::de::IgnoredAny>>,
        left_summary: Option<serde::de::IgnoredAny>,
        remedies: Option<std::collections::BTreeMap<String, String>>,
        error: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RepairOut {
        moved: Vec<MoveOut>,
        made_again: Vec<String>,
    }
    #[derive(Deserialize)]
    struct MoveOut {
        file: String,
        to: String,
    }
    let whole = |printed: &str| ferromq_protocol::json::from_slice::<Whole>(printed.as_bytes()).unwrap();
    let dir = store();
    say_lengths(&dir);
    damage(&dir);
    let topics = dir.path().join("store/config/topics.json");
    std::fs::rename(&topics, dir.path().join("topics.json")).unwrap();
    let (printed, code) = check(&dir, &["--repair", "--json"]);
    let refused = whole(&printed);
    assert!(code.is_err() && refused.error.unwrap().contains("nobody knows which topics"), "{printed}");
    std::fs::rename(dir.path().join("topics.json"), &topics).unwrap();
    write(&dir, "delayOffset.json", "{");
    let (printed, code) = check(&dir, &["--repair", "--json"]);
    let done = whole(&printed);
    assert_eq!((code, done.findings.len(), done.left.unwrap().len()), (Ok(1), 2, 1), "{printed}");
    let (repair, remedies) = (done.repair.unwrap(), done.remedies.unwrap());
    assert_eq!((repair.moved.len(), repair.made_again.len()), (1, 1), "{printed}");
    assert!(repair.moved[0].file.ends_with("T/0") && repair.moved[0].to.ends_with("damaged/consumequeue+T+0"));
    assert!(done.left_summary.is_some() && done.error.is_none() && remedies.contains_key("config"), "{printed}");
}

#[test]
fn tables_are_held_against_the_queues_and_left_as_they_are() {
    let dir = store();
    write(&dir, "consumerOffset.json", r#"{"offsetTable":{"T@G":{0:3,1:0},"T@Ahead":{0:4},"Gone@G":{2:7}}}"#);
    write(&dir, "delayOffset.json", r#"{"offsetTable":{2:1}}"#);
    let (printed, code) = check(&dir, &[]);
    assert_eq!(code, Ok(1));
    for expected in [
        "consumerOffset.json: group Ahead is at 4 of T queue 0, which ends at 3",
        "consumerOffset.json: group G is at 7 of Gone queue 2, which ends at 0",
        "delayOffset.json: delay level 2 is at 1 of SCHEDULE_TOPIC_XXXX queue 1, which ends at 0",
        "3 faults, 0 notes",
    ] {
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
    for file in ["consumerOffset.json", "delayOffset.json"] {
        std::fs::remove_file(dir.path().join("store/config").join(file)).unwrap();
    }
    // A good backup is what a start uses.
    std::fs::rename(dir.path().join("store/config/topics.json"), dir.path().join("store/config/topics.json.bak"))
        .unwrap();
    let (printed, code) = check(&dir, &[]);
    assert!(code == Ok(0) && printed.contains("topics.json: is missing; a start uses its backup"), "{printed}");
    write(&dir, "topics.json", "{\"topicConfigTable\":{\n\"T\"");
    let (printed, code) = check(&dir, &[]);
    assert!(code == Ok(1) && printed.contains("topics.json: cannot be read: "), "{printed}");
    write(&dir, "topics.json", r#"{"topicConfigTable":{"Other":{"topicName":"Other"}}}"#);
    let (printed, code) = check(&dir, &[]);
    assert!(
        code == Ok(0) && printed.contains("note: ") && printed.contains("does not have the topic T, which has queues"),
        "{printed}"
    );
    assert_eq!(std::fs::read_dir(dir.path().join("store/config")).unwrap().count(), 2, "nothing was set aside");
}

#[test]
fn what_cannot_be_checked_says_why() {
    let dir = store();
    let running = Store::open(config(&dir.path().join("store"))).unwrap();
    for command in [&store_check::COMMAND, &store_dump::COMMAND] {
        let why = run(command, &dir, &[]).1.unwrap_err();
        assert!(why.contains("is in use: a broker runs on it"), "{why}");
    }
    running.close().unwrap();
    for (words, expected) in [
        (&["--at", "x"][..], "--at is `x`, which is no number"),
        (&["--queue", "T"], "--queue is `T`, and should be TOPIC:ID"),
        (&["--key", "T"], "--key is `T`, and should be TOPIC#KEY"),
    ] {
        assert_eq!(run(&store_dump::COMMAND, &dir, words).1, Err(expected.to_owned()));
    }
    std::fs::write(dir.path().join("broker.conf"), "maxIndexNum=many").unwrap();
    assert!(check(&dir, &[]).1.unwrap_err().contains("maxIndexNum is `many`, which is no number"));
    std::fs::remove_file(dir.path().join("broker.conf")).unwrap();
    assert!(check(&dir, &[]).1.unwrap_err().contains("cannot read "));
    let usage = "usage";
    assert_eq!(store_check::COMMAND.execute(&[], usage), FAILED);
    assert_eq!(store_check::COMMAND.execute(&["--strange".to_owned()], usage), FAILED);
    assert_eq!(store_check::COMMAND.execute(&["/nowhere".to_owned()], usage), FAILED);
    let root = dir.path().join("store").display().to_string();
    assert_eq!(store_check::COMMAND.execute(&[root, "--repair".to_owned()], usage), FAILED, "without -c");
}

#[test]
fn the_log_may_be_elsewhere() {
    let dir = store();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::rename(dir.path().join("store/commitlog"), &elsewhere).unwrap();
    assert!(check(&dir, &[]).1.is_err());
    let list = format!("/nowhere,{}", elsewhere.display());
    assert_eq!(check(&dir, &["--log-dir", &list]).1, Ok(0));
    let conf = dir.path().join("broker.conf");
    let text = format!("{}storePathCommitLog={list}\n", std::fs::read_to_string(&conf).unwrap());
    std::fs::write(&conf, &text).unwrap();
    assert_eq!(check(&dir, &[]).1, Ok(0));
    let both = format!(
        "multiPathSplitter=;\nstorePathCommitLog=/nowhere;{0}\nreadOnlyCommitLogStorePaths={0}\n",
        elsewhere.display()
    );
    std::fs::write(&conf, format!("{text}{both}")).unwrap();
    assert_eq!(check(&dir, &[]).1, Ok(0));
}

#[test]
fn pieces_are_shown_for_people() {
    let dir = store();
    let dump = |words: &[&str]| run(&store_dump::COMMAND, &dir, words);
    let (printed, code) = dump(&["--at", "0"]);
    assert_eq!(code, Ok(0));
    for expected in [
        "record at 0 (",
        "topic                 T",
        "queue                 0 offset 0",
        "6 bytes, CRC 0x",
        "hello\\n",
        "property KEYS         key-0",
    ] {
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
    assert_eq!(dump(&["--at", "1"]), ("no record stands at 1\n".to_owned(), Ok(1)));
    let (printed, code) = dump(&["--queue", "T:0", "--from", "1", "--count", "2"]);
    assert!(code == Ok(0) && printed.lines().count() == 3, "{printed}");
    assert!(printed.contains("  1: at ") && printed.contains("tags code 2598919"), "{printed}");
    assert!(dump(&["--queue", "T:0"]).0.contains("  3: nothing"));
    assert_eq!(dump(&["--queue", "T:9"]), ("T has no queue 9\n".to_owned(), Ok(1)));
    let (printed, code) = dump(&["--key", "T#key-1"]);
    assert!(code == Ok(0) && printed.contains("  entry 2: at "), "{printed}");
    assert_eq!(dump(&["--key", "T#key-9"]).1, Ok(1));
    let (printed, code) = dump(&[]);
    assert!(code == Ok(0) && printed.contains("places: log "), "{printed}");
}
