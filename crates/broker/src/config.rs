//! Every key of `broker.conf`: what it means here, or that it has no effect here.
//!
//! One declaration per key gives the parser, GET_BROKER_CONFIG and the docs table. Inert keys carry the default that a stock 5.3.3 broker
//! lists; those that are `None` are unset there. Java: `BrokerConfig`, `MessageStoreConfig`.

use std::path::PathBuf;
use std::time::Duration;

use ferromq_config::{ConfigError, Configuration, LoadedConfig, config, config_enum, home_dir};
use ferromq_remoting::address::{host_and_port, parse_ip, with_port, without_brackets};
use ferromq_store::{Hours, RetentionRules, WritePoolConfig, check_log_dirs};

use crate::this_host;

config_enum! {
    /// What part the broker plays in its group.
    pub enum BrokerRole {
        AsyncMaster = "ASYNC_MASTER",
        SyncMaster = "SYNC_MASTER",
        Slave = "SLAVE",
    }
}

config_enum! {
    /// When an acknowledged message is on disk.
    pub enum FlushDiskType {
        AsyncFlush = "ASYNC_FLUSH",
        SyncFlush = "SYNC_FLUSH",
    }
}

config! {
    /// Settings of a broker. Java: `BrokerConfig`, `BrokerIdentity`, `MessageStoreConfig`, `NettyServerConfig`.
    pub struct BrokerConfig {
        // identity
        /// Cluster this broker belongs to; also names the cluster's pattern, reply and revive topics.
        "brokerClusterName" => broker_cluster_name: String = "DefaultCluster".into(),
        /// Name that master and slaves of one group share; the host name if unset.
        "brokerName" => broker_name: String = this_host::name(),
        /// Above 0 on a slave, and another one for each of a group. 0 is the master; masters have it whatever is set here, as in Java.
        "brokerId" in 0..=i64::MAX => broker_id: i64 = 0,
        /// Address that clients are told; the first address of this host if unset.
        "brokerIP1" => broker_ip1: Option<String> = None,
        /// Address for replication; the first address of this host if unset.
        "brokerIP2" => broker_ip2: Option<String> = None,
        /// Address to listen on; `0.0.0.0` and `::` mean all, of IPv4 and IPv6.
        "bindAddress" => bind_address: String = "0.0.0.0".into(),
        /// Main port. The fast port is two below. 0 lets the system choose one, without a fast port.
        "listenPort" => listen_port: u16 = 10911,
        /// Replication port, where slaves connect; `listenPort` + 1 if 0, and chosen by the system if that is 0 too.
        "haListenPort" => ha_listen_port: u16 = 0,
        /// Nameservers, `host:port;host:port`. The flag -n wins over the file, the file over the environment variable NAMESRV_ADDR.
        "namesrvAddr" => namesrv_addr: Option<String> = std::env::var("NAMESRV_ADDR").ok().filter(|list| !list.is_empty()),
        /// Only shown; nothing is read from it.
        "rocketmqHome" => rocketmq_home: Option<PathBuf> = std::env::var_os("ROCKETMQ_HOME").map(PathBuf::from),
        /// SYNC_MASTER acknowledges what inSyncReplicas brokers hold; SLAVE has a copy of its master's log.
        "brokerRole" => broker_role: BrokerRole = BrokerRole::AsyncMaster,
        /// 4 lets consumers read, 2 lets producers write; combined with the permissions of every topic that is registered.
        "brokerPermission" in 0..=15 => broker_permission: i32 = 6,
        /// Keys that updateBrokerConfig refuses.
        "configBlackList" => config_black_list: String = "configBlackList;brokerConfigPath".into(),
        // topics and groups
        /// Unknown topics come into being when a client sends to them.
        "autoCreateTopicEnable" => auto_create_topic_enable: bool = true,
        /// Most queues that an auto-created topic can have.
        "defaultTopicQueueNums" in 1..=65536 => default_topic_queue_nums: i32 = 8,
        /// The topic named like the cluster can be read and written.
        "clusterTopicEnable" => cluster_topic_enable: bool = true,
        /// The topic named like the broker can be read and written.
        "brokerTopicEnable" => broker_topic_enable: bool = true,
        /// Message traces have a topic here.
        "traceTopicEnable" => trace_topic_enable: bool = false,
        /// What that topic is called.
        "msgTraceTopicName" => msg_trace_topic_name: String = "RMQ_SYS_TRACE_TOPIC".into(),
        /// Queues of the topic that pop acknowledgements will use.
        "reviveQueueNum" in 1..=1024 => revive_queue_num: i32 = 8,
        /// Messages for a given time are served, and have a topic here.
        "timerWheelEnable" => timer_wheel_enable: bool = true,
        /// Unknown groups come into being when a client uses them.
        "autoCreateSubscriptionGroup" => auto_create_subscription_group: bool = true,
        /// So do groups named CID_RMQ_SYS_…, whatever the key above says.
        "enableCreateSysGroup" => enable_create_sys_group: bool = true,
        /// updateTopic refuses names of system topics.
        "validateSystemTopicWhenUpdateTopic" => validate_system_topic_when_update_topic: bool = true,
        /// updateTopic accepts the message type MIXED.
        "enableMixedMessageType" => enable_mixed_message_type: bool = false,
        /// Deleting a topic deletes its pop retry topics too.
        "clearRetryTopicWhenDeleteTopic" => clear_retry_topic_when_delete_topic: bool = true,
        // sending
        /// Longest message body, in bytes.
        "maxMessageSize" in 1..=1_073_741_824 => max_message_size: usize = 4 * 1024 * 1024,
        /// Stored with every message and sent with every reply to a send.
        "regionId" => region_id: String = "DefaultRegion".into(),
        /// Tells producers whether to write message traces.
        "traceOn" => trace_on: bool = true,
        /// Sends are refused until then, in ms since 1970.
        "startAcceptSendRequestTimeStamp" => start_accept_send_request_time_stamp: i64 = 0,
        /// Most sends that may wait for a flush at one time; beyond it producers get SYSTEM_BUSY.
        "sendThreadPoolQueueCapacity" in 1..=10_000_000 => send_thread_pool_queue_capacity: usize = 10_000,
        /// An append that takes longer than this, in ms, means that the disk cannot follow; producers then get SYSTEM_BUSY.
        "osPageCacheBusyTimeOutMills" in 1..=3_600_000 => os_page_cache_busy_time_out_mills: u64 = 1000,
        /// Transaction messages are refused.
        "rejectTransactionMessage" => reject_transaction_message: bool = false,
        /// How long a transaction may be open before its producer is asked, in ms.
        "transactionTimeOut" in 0..=86_400_000 => transaction_time_out: u64 = 6000,
        /// How often open transactions are looked at, in ms.
        "transactionCheckInterval" in 10..=86_400_000 => transaction_check_interval: u64 = 30_000,
        /// Questions after which a transaction is given up.
        "transactionCheckMax" in 0..=1_000_000 => transaction_check_max: u32 = 15,
        /// How far ahead a message for a given time may be, in seconds.
        "timerMaxDelaySec" in 1..=315_360_000 => timer_max_delay_sec: u32 = 259_200,
        /// Messages for a given time can be taken back.
        "recallMessageEnable" => recall_message_enable: bool = false,
        /// Replies that pass through the broker are stored as well.
        "storeReplyMessageEnable" => store_reply_message_enable: bool = true,
        // pulling
        /// Pulls that find nothing wait as long as the client asks for.
        "longPollingEnable" => long_polling_enable: bool = true,
        /// How long they wait otherwise, in ms.
        "shortPollingTimeMills" in 0..=3_600_000 => short_polling_time_mills: u64 = 1000,
        /// Most pulls that may wait at one time; beyond it they are answered at once.
        "pullThreadPoolQueueCapacity" in 1..=10_000_000 => pull_thread_pool_queue_capacity: usize = 100_000,
        /// Lite pull consumers (code 361) are served.
        "litePullMessageEnable" => lite_pull_message_enable: bool = true,
        /// Pull consumers are refused.
        "rejectPullConsumerEnable" => reject_pull_consumer_enable: bool = false,
        /// On a master: consumers that fell behind are pointed to a slave. On a slave: pulls are served.
        "slaveReadEnable" => slave_read_enable: bool = false,
        /// Most messages a pull may ask for.
        "pullBatchMaxMessageCount" in 1..=1_000_000 => pull_batch_max_message_count: usize = 160,
        /// Most bytes of one pull out of memory.
        "maxTransferBytesOnMessageInMemory" in 1..=134_217_728 => max_transfer_bytes_on_message_in_memory: usize = 262_144,
        /// Most messages of one pull out of memory.
        "maxTransferCountOnMessageInMemory" in 1..=1_000_000 => max_transfer_count_on_message_in_memory: usize = 32,
        /// Most bytes of one pull from disk.
        "maxTransferBytesOnMessageInDisk" in 1..=134_217_728 => max_transfer_bytes_on_message_in_disk: usize = 65_536,
        /// Most messages of one pull from disk.
        "maxTransferCountOnMessageInDisk" in 1..=1_000_000 => max_transfer_count_on_message_in_disk: usize = 8,
        /// Part of the memory, in percent, that the newest messages are taken to be in.
        "accessMessageInMemoryMaxRatio" in 1..=100 => access_message_in_memory_max_ratio: u32 = 40,
        /// Consumers can filter by SQL92 conditions on properties.
        "enablePropertyFilter" => enable_property_filter: bool = false,
        /// Bytes of consume queue entries looked at in one filtered pull; 20 per message.
        "maxFilterMessageSize" in 20..=1_073_741_824 => max_filter_message_size: usize = 16_000,
        // offsets, queries and clients
        /// How often changed consumer offsets are saved, in ms.
        "flushConsumerOffsetInterval" in 100..=3_600_000 => flush_consumer_offset_interval: u64 = 5000,
        /// Commits per step of the offset table's version.
        "consumerOffsetUpdateVersionStep" in 1..=1_000_000_000 => consumer_offset_update_version_step: i64 = 500,
        /// Resets are kept here and given to the group's next pull.
        "useServerSideResetOffset" => use_server_side_reset_offset: bool = true,
        /// Most messages of a query by unique key.
        "defaultQueryMaxNum" in 1..=1_000_000 => default_query_max_num: i32 = 32,
        /// Most messages of a query by key.
        "maxMsgsNumBatch" in 1..=1_000_000 => max_msgs_num_batch: i32 = 64,
        /// Members of a group are told at once when it changes.
        "notifyConsumerIdsChangedEnable" => notify_consumer_ids_changed_enable: bool = true,
        /// A client without a heartbeat for this long, in ms, is forgotten.
        "channelExpiredTimeout" in 1000..=86_400_000 => channel_expired_timeout: u64 = 120_000,
        /// Heartbeats of producers are recorded.
        "enableRegisterProducer" => enable_register_producer: bool = true,
        // copies
        /// A slave's master, `host:port` of its replication port; what nameservers say if unset.
        "haMasterAddress" => ha_master_address: Option<String> = None,
        /// How often master and slave speak at least, in ms.
        "haSendHeartbeatInterval" in 100..=3_600_000 => ha_send_heartbeat_interval: u64 = 5000,
        /// A replication connection on which nothing has come for this long is closed, in ms.
        "haHousekeepingInterval" in 200..=86_400_000 => ha_housekeeping_interval: u64 = 20_000,
        /// Most bytes of the log in one packet to a slave that is close behind; 256 KiB to one that is more than 1 MiB behind.
        "haTransferBatchSize" in 1..=4_194_292 => ha_transfer_batch_size: u64 = 32_768,
        /// What goes to a slave is limited by maxHaTransferByteInSecond.
        "haFlowControlEnable" => ha_flow_control_enable: bool = false,
        /// Most bytes that go to one slave in a second, with haFlowControlEnable.
        "maxHaTransferByteInSecond" in 4096..=1_000_000_000_000_u64 => max_ha_transfer_byte_in_second: u64 = 104_857_600,
        /// An empty slave is given the last segment only.
        "syncFromLastFile" => sync_from_last_file: bool = false,
        /// Brokers that hold a message before SYNC_MASTER acknowledges it, itself included. 1 waits for nobody.
        "inSyncReplicas" in 1..=64 => in_sync_replicas: usize = 1,
        /// SYNC_MASTER takes no message while fewer brokers are in sync, itself included.
        "minInSyncReplicas" in 1..=64 => min_in_sync_replicas: usize = 1,
        /// SYNC_MASTER waits for every slave that is in sync.
        "allAckInSyncStateSet" => all_ack_in_sync_state_set: bool = false,
        /// Bytes that a slave in sync may lack.
        "haMaxGapNotInSync" in 0..=1_000_000_000_000_u64 => ha_max_gap_not_in_sync: u64 = 268_435_456,
        /// A slave that had not all of the log at any time for this long is not in sync, in ms.
        "haMaxTimeSlaveNotCatchup" in 100..=86_400_000 => ha_max_time_slave_not_catchup: u64 = 15_000,
        /// SYNC_MASTER answers FLUSH_SLAVE_TIMEOUT when copies are missing for this long, in ms.
        "slaveTimeout" in 1..=3_600_000 => slave_timeout: u64 = 3000,
        /// A slave cuts off what its master does not have, once that is kept in `diverged/`; otherwise it stands still and says so. FerroMQ's own.
        "haTruncateDiverged" => ha_truncate_diverged: bool = false,
        /// A slave whose master has moved on from all that it has begins anew, empty; otherwise it stands still and says so. FerroMQ's own.
        "haRestartWhenGone" => ha_restart_when_gone: bool = false,
        // nameservers
        /// How often the broker registers, in ms; taken as at least 10 s and at most 60 s.
        "registerNameServerPeriod" => register_name_server_period: u64 = 30_000,
        /// Registrations are sent compressed.
        "compressedRegister" => compressed_register: bool = false,
        /// Register in parts of `splitRegistrationSize` topics; otherwise only what does not fit into one frame, even compressed, is split.
        "enableSplitRegistration" => enable_split_registration: bool = false,
        /// Topics per part.
        "splitRegistrationSize" in 2..=1_000_000 => split_registration_size: usize = 800,
        /// How long a nameserver may take to answer, in ms.
        "registerBrokerTimeoutMills" in 100..=3_600_000 => register_broker_timeout_mills: u64 = 24_000,
        // store
        /// Where everything lives that must survive.
        "storePathRootDir" => store_path_root_dir: PathBuf = home_dir().join("store"),
        /// The commit log's directories, with commas between; `commitlog` in the root if unset.
        "storePathCommitLog" => store_path_commit_log: Option<String> = None,
        /// Directories whose part of the log is read, and that get no new files.
        "readOnlyCommitLogStorePaths" => read_only_commit_log_store_paths: Option<String> = None,
        /// What stands between directories, if not a comma. Java: the system property `rocketmq.broker.multiPathSplitter`.
        "multiPathSplitter" => multi_path_splitter: String = ",".to_owned(),
        /// Bytes per file of the commit log. Cannot change once messages are stored.
        "mappedFileSizeCommitLog" in 1024..=2_147_483_647 => mapped_file_size_commit_log: u64 = 1 << 30,
        /// Bytes per file of a consume queue, rounded up to whole entries of 20.
        "mappedFileSizeConsumeQueue" in 20..=2_147_483_647 => mapped_file_size_consume_queue: u64 = 6_000_000,
        /// SYNC_FLUSH answers a send when the message is on disk, ASYNC_FLUSH before.
        "flushDiskType" => flush_disk_type: FlushDiskType = FlushDiskType::AsyncFlush,
        /// How long a send waits for that, in ms, before it is answered with FLUSH_DISK_TIMEOUT.
        "syncFlushTimeout" in 1..=3_600_000 => sync_flush_timeout: u64 = 5000,
        /// How often the commit log is flushed in ASYNC_FLUSH mode, in ms.
        "flushIntervalCommitLog" in 1..=3_600_000 => flush_interval_commit_log: u64 = 500,
        /// Pages of 4 KiB that must be new before it is.
        "flushCommitLogLeastPages" in 0..=1_000_000 => flush_commit_log_least_pages: u64 = 4,
        /// It is flushed whatever is new after this long, in ms.
        "flushCommitLogThoroughInterval" in 1..=86_400_000 => flush_commit_log_thorough_interval: u64 = 10_000,
        /// New messages are in a pool of locked memory first, and lost with the process until they are in the log's file a moment later.
        "transientStorePoolEnable" => transient_store_pool_enable: bool = false,
        /// Buffers of the pool, of 16 MiB each, or of a file of the commit log if that is shorter; 3 at least.
        "transientStorePoolSize" in 1..=4096 => transient_store_pool_size: usize = 5,
        /// How often what is in the pool is written to the log's file, in ms. Java: 200, and at once when enough is there.
        "commitIntervalCommitLog" in 1..=3_600_000 => commit_interval_commit_log: u64 = 1,
        /// Pages of 4 KiB that must be new before it is. Java: 4.
        "commitCommitLogLeastPages" in 0..=1_000_000 => commit_commit_log_least_pages: u64 = 0,
        /// It is written whatever is new after this long, in ms.
        "commitCommitLogThoroughInterval" in 0..=3_600_000 => commit_commit_log_thorough_interval: u64 = 200,
        /// A message for which the pool has no room is refused at once, and does not wait up to 5 s for it.
        "fastFailIfNoBufferInStorePool" => fast_fail_if_no_buffer_in_store_pool: bool = false,
        /// Messages can be found by key.
        "messageIndexEnable" => message_index_enable: bool = true,
        /// Hash slots per index file.
        "maxHashSlotNum" in 1..=100_000_000 => max_hash_slot_num: u32 = 5_000_000,
        /// Entries per index file.
        "maxIndexNum" in 2..=400_000_000 => max_index_num: u32 = 20_000_000,
        /// How often consume queues are flushed, in ms.
        "flushIntervalConsumeQueue" in 1..=3_600_000 => flush_interval_consume_queue: u64 = 1000,
        /// Pages of 4 KiB that must be new in a queue before it is.
        "flushConsumeQueueLeastPages" in 0..=1_000_000 => flush_consume_queue_least_pages: u64 = 2,
        /// They are flushed whatever is new after this long, in ms.
        "flushConsumeQueueThoroughInterval" in 1..=86_400_000 => flush_consume_queue_thorough_interval: u64 = 60_000,
        /// The delay levels, from 1, in s, m, h or d.
        "messageDelayLevel" => message_delay_level: String = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".into(),
        /// How long messages are kept, in hours.
        "fileReservedTime" in 0..=1_000_000 => file_reserved_time: u64 = 72,
        /// The hours of the day in which older ones are deleted, `04` or `03;04`; by the clock of this machine.
        "deleteWhen" => delete_when: String = "04".into(),
        /// Disk use in percent above which they are deleted at any hour; taken as at least 10 and at most 95.
        "diskMaxUsedSpaceRatio" in 0..=100 => disk_max_used_space_ratio: u32 = 75,
        /// Above `diskSpaceCleanForciblyRatio` the oldest messages are deleted whatever their age.
        "cleanFileForciblyEnable" => clean_file_forcibly_enable: bool = true,
        /// Disk use in percent; taken as at least 30 and at most 85.
        "diskSpaceCleanForciblyRatio" in 0..=100 => disk_space_clean_forcibly_ratio: u32 = 85,
        /// Disk use in percent above which sends are refused; taken as at least 35 and at most 90.
        "diskSpaceWarningLevelRatio" in 0..=100 => disk_space_warning_level_ratio: u32 = 90,
        /// How often it is looked for what is to be deleted, and how full the disk is, in ms.
        "cleanResourceInterval" in 10..=3_600_000 => clean_resource_interval: u64 = 10_000,
        /// Most files of the commit log that are deleted each time.
        "deleteFileBatchMax" in 1..=1_000_000 => delete_file_batch_max: usize = 10,
        /// How long it is waited between two of them, in ms.
        "deleteCommitLogFilesInterval" in 0..=60_000 => delete_commit_log_files_interval: u64 = 100,
        /// FerroMQ's own: bytes of commit log files above which the oldest are deleted, whatever their age; 0 sets no limit. One more file is made
        /// ahead.
        "fileReservedBytes" in 0..=i64::MAX as u64 => file_reserved_bytes: u64 = 0,
        /// FerroMQ's own: bytes of old commit log files that are read in a second and looked through for damage; 0 reads none.
        "scrubBytesPerSecond" in 0..=i64::MAX as u64 => scrub_bytes_per_second: u64 = 0,
        // network
        /// A connection without traffic for this long is closed.
        "serverChannelMaxIdleTimeSeconds" in 1..=86_400 => server_channel_max_idle_time_seconds: u64 = 120,
        /// Send buffer of a socket in bytes; 0 leaves it to the system.
        "serverSocketSndBufSize" in 0..=1_073_741_824 => server_socket_snd_buf_size: u32 = 0,
        /// Receive buffer of a socket in bytes; 0 leaves it to the system.
        "serverSocketRcvBufSize" in 0..=1_073_741_824 => server_socket_rcv_buf_size: u32 = 0,
        /// How long a connection to a nameserver may take, in ms.
        "connectTimeoutMillis" in 1..=3_600_000 => connect_timeout_millis: u64 = 3000,
        /// FerroMQ's own: connections of one address, on both ports together; beyond it new ones are closed. Behind one address there may be many
        /// hosts.
        "connectionsPerAddressMax" in 1..=65_536 => connections_per_address_max: usize = 10_000,
        /// FerroMQ's own: bytes of frames that have begun to arrive, over all connections; a quarter of it, and so one frame at least, for those of
        /// one address. Beyond it the address that has most loses the connection whose frame has been arriving for longest.
        "unfinishedFrameBytesMax" in 67_108_864..=2_147_483_647 => unfinished_frame_bytes_max: usize = 536_870_912,
        /// FerroMQ's own: bytes of answers in memory that peers do not read, over all connections; a quarter of it for those of one address. Beyond it
        /// the address that has most loses the connection that has left answers unread for longest.
        "unreadAnswerBytesMax" in 134_217_728..=2_147_483_647 => unread_answer_bytes_max: usize = 536_870_912,
        /// FerroMQ's own: threads that serve connections; 0 takes one per core.
        "workerThreads" in 0..=1024 => worker_threads: usize = 0,
    }
    inert {
        "abortFile" => None,
        "accessMessageInMemoryHotRatio" => 26,
        "accountStatsEnable" => true,
        "accountStatsPrintZeroValues" => true,
        "ackMessageThreadPoolNums" => 16,
        "ackThreadPoolQueueCapacity" => 100000,
        "aclEnable" => false,
        "aclFile" => None,
        "adminBrokerThreadPoolNums" => 16,
        "adminBrokerThreadPoolQueueCapacity" => 10000,
        "allowRecallWhenBrokerNotWriteable" => true,
        "appendAckAsync" => false,
        "appendCkAsync" => false,
        "asyncLearner" => false,
        "asyncSendEnable" => true,
        "authConfigPath" => None,
        "authenticationEnabled" => None,
        "authenticationMetadataProvider" => None,
        "authenticationProvider" => None,
        "authorizationEnabled" => None,
        "authorizationMetadataProvider" => None,
        "authorizationProvider" => None,
        "autoDeleteUnusedStats" => true,
        "autoMessageVersionOnTopicLen" => true,
        "batchDispatchRequestThreadPoolNums" => 16,
        "bitMapLengthConsumeQueueExt" => 112,
        "bottomMostCompressionTypeForConsumeQueueStore" => "zstd",
        "broadcastOffsetExpireMaxSecond" => 300,
        "broadcastOffsetExpireSecond" => 120,
        "brokerConfigPath" => None,
        "brokerContainerConfigPath" => None,
        "brokerElectionPriority" => 2147483647,
        "brokerFastFailureEnable" => true,
        "brokerHeartbeatInterval" => 1000,
        "brokerNotActiveTimeoutMillis" => 10000,
        "cgColdReadThreshold" => 3145728,
        "channelNotActiveInterval" => 60000,
        "checkCRCOnRecover" => true,
        "checkSyncStateSetPeriod" => 5000,
        "cleanOfflineBrokerInterval" => 30000,
        "cleanRocksDBDirtyCQIntervalMin" => 60,
        "cleanSwapedMapInterval" => 300000,
        "clientAsyncSemaphoreValue" => 65535,
        "clientCallbackExecutorThreads" => 2,
        "clientChannelMaxIdleTimeSeconds" => 120,
        "clientCloseSocketIfTimeout" => true,
        "clientManageThreadPoolNums" => 32,
        "clientManagerThreadPoolQueueCapacity" => 1000000,
        "clientOnewaySemaphoreValue" => 65535,
        "clientPooledByteBufAllocatorEnable" => false,
        "clientSocketRcvBufSize" => 0,
        "clientSocketSndBufSize" => 0,
        "clientWorkerThreads" => 4,
        "coldCtrStrategyEnable" => false,
        "coldDataFlowControlEnable" => false,
        "coldDataScanEnable" => false,
        "commercialBaseCount" => 1,
        "commercialBigCount" => None,
        "commercialEnable" => None,
        "commercialSizePerMsg" => 4096,
        "commercialTimerCount" => None,
        "commercialTransCount" => None,
        "commitLogForceSwapMapInterval" => 43200000,
        "commitLogSwapMapInterval" => 3600000,
        "commitLogSwapMapReserveFileNum" => 100,
        "compactionCqMappedFileSize" => 10485760,
        "compactionMappedFileSize" => 104857600,
        "compactionScheduleInternal" => 900000,
        "compactionThreadNum" => 6,
        "compatibleWithOldNameSrv" => true,
        "configManagerVersion" => "v1",
        "consumerFallbehindThreshold" => 17179869184,
        "consumerManageThreadPoolNums" => 32,
        "consumerManagerThreadPoolQueueCapacity" => 1000000,
        "controllerAddr" => "",
        "controllerHeartBeatTimeoutMills" => 10000,
        "correctLogicMinOffsetForceInterval" => 300000,
        "correctLogicMinOffsetSleepInterval" => 1,
        "dLegerGroup" => None,
        "dLegerPeers" => None,
        "dLegerSelfId" => None,
        "dataReadAheadEnable" => true,
        "debugLockEnable" => false,
        "defaultMessageRequestMode" => "PULL",
        "defaultPopShareQueueNum" => -1,
        "defaultReadAheadSize" => None,
        "delayOffsetUpdateVersionStep" => 200,
        "deleteConsumeQueueFilesInterval" => 100,
        "destroyMapedFileIntervalForcibly" => 120000,
        "disableCallbackExecutor" => false,
        "disableConsumeIfConsumerReadSlowly" => false,
        "disableNettyWorkerGroup" => false,
        "disappearTimeAfterStart" => -1,
        "diskFallRecorded" => true,
        "dispatchCqCacheNum" => 4096,
        "dispatchCqThreads" => 10,
        "dispatchFromSenderThread" => false,
        "duplicationEnable" => false,
        "enableAsyncReput" => true,
        "enableAutoInSyncReplicas" => false,
        "enableBatchPush" => false,
        "enableBroadcastOffsetStore" => true,
        "enableBuildConsumeQueueConcurrently" => false,
        "enableCalcFilterBitMap" => false,
        "enableCleanExpiredOffset" => false,
        "enableCompaction" => true,
        "enableConnectionMetrics" => None,
        "enableConsumeQueueExt" => false,
        "enableControllerMode" => false,
        "enableDLegerCommitLog" => false,
        "enableDetailStat" => true,
        "enableFastChannelEventProcess" => false,
        "enableIncubatingFeatures" => None,
        "enableLagAndDlqMetrics" => None,
        "enableLmq" => false,
        "enableLmqStats" => false,
        "enableMessageStoreMetrics" => None,
        "enableMultiDispatch" => false,
        "enableNetWorkFlowControl" => false,
        "enableNotifyAfterPopOrderLockRelease" => true,
        "enableNotifyBeforePopCalculateLag" => true,
        "enablePopBatchAck" => false,
        "enablePopBufferMerge" => false,
        "enablePopLog" => false,
        "enablePopMessageThreshold" => false,
        "enablePopMetrics" => None,
        "enableReconnectForGoAway" => true,
        "enableRemoteEscape" => false,
        "enableRemotingMetrics" => None,
        "enableRequestMetrics" => None,
        "enableRetryTopicV2" => false,
        "enableRocksDBLog" => false,
        "enableScheduleAsyncDeliver" => false,
        "enableScheduleMessageStats" => true,
        "enableShutdownGracefully" => false,
        "enableSingleTopicRegister" => false,
        "enableSkipLongAwaitingAck" => false,
        "enableSlaveActingMaster" => false,
        "enableSplitMetadata" => None,
        "enableStatsMetrics" => None,
        "enableTransactionMetrics" => None,
        "enabledAppendPropCRC" => false,
        "endTransactionPoolQueueCapacity" => 100000,
        "endTransactionThreadPoolNums" => 12,
        "estimateAccumulation" => true,
        "expectConsumerNumUseFilter" => 32,
        "fetchControllerAddrByDnsLookup" => false,
        "fetchNameSrvAddrByDnsLookup" => false,
        "fetchNamesrvAddrByAddressServer" => false,
        "fetchNamesrvAddrInterval" => 10000,
        "filterDataCleanTimeSpan" => 86400000,
        "filterServerNums" => None,
        "filterSupportRetry" => false,
        "flushCommitLogTimed" => true,
        "flushConsumerOffsetHistoryInterval" => 60000,
        "flushDelayOffsetInterval" => 10000,
        "flushLeastPagesWhenWarmMapedFile" => 4096,
        "forceRegister" => true,
        "forceVerifyPropCRC" => false,
        "forwardTimeout" => 3000,
        "globalColdReadThreshold" => 104857600,
        "haSlaveFallbehindMax" => None,
        "heartbeatThreadPoolNums" => 2,
        "heartbeatThreadPoolQueueCapacity" => 50000,
        "highSpeedMode" => false,
        "initAuthenticationUser" => None,
        "initPopOffsetByCheckMsgInMem" => true,
        "innerClientAuthenticationCredentials" => None,
        "isBrokerContainer" => false,
        "isInBrokerContainer" => false,
        "isScanAvailableNameSrv" => true,
        "isolateLogEnable" => false,
        "litePullMessageThreadPoolNums" => 20,
        "litePullThreadPoolQueueCapacity" => 100000,
        "loadBalancePollNameServerInterval" => 30000,
        "loadBalanceProcessorThreadPoolNums" => 32,
        "loadBalanceThreadPoolQueueCapacity" => 100000,
        "lockInStrictMode" => false,
        "logicQueueForceSwapMapInterval" => 43200000,
        "logicQueueSwapMapInterval" => 3600000,
        "logicQueueSwapMapReserveFileNum" => 20,
        "logicalDiskSpaceCleanForciblyThreshold" => 0.8,
        "mappedFileSizeConsumeQueueExt" => 50331648,
        "mappedFileSizeTimerLog" => 104857600,
        "mappedFileSwapEnable" => true,
        "mapperFileSizeBatchConsumeQueue" => 13800000,
        "maxAsyncPutMessageRequests" => 5000,
        "maxBatchDeleteFilesNum" => 50,
        "maxChecksumRange" => 1073741824,
        "maxConsumeQueueScan" => 20000,
        "maxDelayTime" => None,
        "maxErrorRateOfBloomFilter" => 20,
        "maxLmqConsumeQueueNum" => 20000,
        "maxOffsetMapSize" => 104857600,
        "maxPopPollingSize" => 100000,
        "maxReconnectIntervalTimeSeconds" => 60,
        "maxRecoveryCommitlogFiles" => 30,
        "maxSlaveResendLength" => 268435456,
        "maxStatsIdleTimeInMinutes" => -1,
        "maxTopicLength" => 127,
        "memTableFlushIntervalMs" => 3600000,
        "messageIndexSafe" => false,
        "messageStorePlugIn" => "",
        "metricGrpcExporterIntervalInMills" => 60000,
        "metricGrpcExporterTimeOutInMills" => 3000,
        "metricLoggingExporterIntervalInMills" => 10000,
        "metricsExporterType" => "DISABLE",
        "metricsGrpcExporterHeader" => "",
        "metricsGrpcExporterTarget" => "",
        "metricsInDelta" => false,
        "metricsLabel" => "",
        "metricsOtelCardinalityLimit" => 50000,
        "metricsPromExporterHost" => "",
        "metricsPromExporterPort" => 5557,
        "migrateAuthFromV1Enabled" => None,
        "offsetCheckInSlave" => false,
        "popCkMaxBufferSize" => 200000,
        "popCkOffsetMaxQueueSize" => 20000,
        "popCkStayBufferTime" => 10000,
        "popCkStayBufferTimeOut" => 3000,
        "popConsumerFSServiceInit" => true,
        "popConsumerKVServiceEnable" => false,
        "popConsumerKVServiceInit" => false,
        "popConsumerKVServiceLog" => false,
        "popFromRetryProbability" => 20,
        "popInflightMessageThreshold" => 10000,
        "popLongPollingForceNotifyInterval" => 800,
        "popPollingMapExpireTimeSeconds" => None,
        "popPollingMapSize" => 100000,
        "popPollingSize" => 1024,
        "popResponseReturnActualRetryTopic" => false,
        "popReviveMaxAttemptTimes" => 16,
        "popReviveMaxReturnSizePerRead" => 16384,
        "preferredLeaderId" => None,
        "printChannelGroups" => false,
        "printChannelGroupsMinNum" => 5,
        "processReplyMessageThreadPoolNums" => 20,
        "pullMessageThreadPoolNums" => 20,
        "putConsumeQueueDataByFileChannel" => true,
        "putMessageFutureThreadPoolNums" => 2,
        "putMessageTimeout" => 8000,
        "putMsgIndexHighWater" => None,
        "putMsgIndexHightWater" => 600000,
        "putThreadPoolQueueCapacity" => 10000,
        "queryMessageThreadPoolNums" => 10,
        "queryThreadPoolQueueCapacity" => 20000,
        "readUnCommitted" => false,
        "realTimeNotifyConsumerChange" => true,
        "realTimePersistRocksDBConfig" => true,
        "recheckReputOffsetFromCq" => false,
        "recoverConcurrently" => false,
        "recoverThreadPoolNums" => 32,
        "redeleteHangedFileInterval" => 120000,
        "replicasPerDiskPartition" => 1,
        "replyThreadPoolQueueCapacity" => 10000,
        "retrieveMessageFromPopRetryTopicV1" => true,
        "reviveAckWaitMs" => 180000,
        "reviveInterval" => 1000,
        "reviveMaxSlow" => 3,
        "reviveScanTime" => 10000,
        "rmqAddressServerDomain" => None,
        "rmqAddressServerSubGroup" => None,
        "rocksdbCQDoubleWriteEnable" => false,
        "rocksdbCompressionType" => "lz4",
        "rocksdbFlushWalFrequency" => 1024,
        "rocksdbWalFileRollingThreshold" => 1073741824,
        "sampleCountThreshold" => 5000,
        "sampleSteps" => 32,
        "scanAvailableNameSrv" => None,
        "scheduleAsyncDeliverMaxPendingLimit" => 2000,
        "scheduleAsyncDeliverMaxResendNum2Blocked" => 3,
        "searchBcqByCacheEnable" => true,
        "sendHeartbeatTimeoutMillis" => 1000,
        "sendMessageThreadPoolNums" => 2,
        "serverAsyncSemaphoreValue" => 64,
        "serverCallbackExecutorThreads" => 0,
        "serverLoadBalancerEnable" => true,
        "serverNettyWorkerGroupEnable" => true,
        "serverOnewaySemaphoreValue" => 256,
        "serverPooledByteBufAllocatorEnable" => true,
        "serverSelectorThreads" => 3,
        "serverSocketBacklog" => 1024,
        "serverWorkerThreads" => 8,
        "shutdownWaitTimeSeconds" => 30,
        "skipPreOnline" => false,
        "skipWhenCKRePutReachMaxTimes" => false,
        "socksProxyConfig" => "{}",
        "spinLockCollisionRetreatOptimalDegree" => 1000,
        "splitMetadataSize" => None,
        "sqlFilterEnable" => None,
        "statRocksDBCQIntervalSec" => 10,
        "storeCheckpoint" => None,
        "storePathBrokerIdentity" => None,
        "storePathConsumeQueue" => None,
        "storePathDLedgerCommitLog" => None,
        "storePathEpochFile" => None,
        "storePathIndex" => None,
        "storeType" => "default",
        "subscriptionExpiredTimeout" => 600000,
        "syncBrokerMemberGroupPeriod" => 1000,
        "syncBrokerMetadataPeriod" => 5000,
        "syncControllerMetadataPeriod" => 10000,
        "syncMasterFlushOffsetWhenStartup" => false,
        "timerCheckMetricsWhen" => "05",
        "timerColdDataCheckIntervalMs" => 60000,
        "timerCongestNumEachSlot" => 2147483647,
        "timerEnableCheckMetrics" => true,
        "timerEnableDisruptor" => false,
        "timerEnableRetryUntilSuccess" => false,
        "timerFlushIntervalMs" => 1000,
        "timerGetMessageThreadNum" => 3,
        "timerInterceptDelayLevel" => false,
        "timerMetricSmallThreshold" => 1000000,
        "timerPrecisionMs" => 1000,
        "timerProgressLogIntervalMs" => 10000,
        "timerPutMessageThreadNum" => 3,
        "timerRollWindowSlot" => 172800,
        "timerSkipUnknownError" => false,
        "timerStopDequeue" => false,
        "timerStopEnqueue" => false,
        "timerWarmEnable" => false,
        "topicQueueLockNum" => 32,
        "totalReplicas" => 1,
        "transactionMetricFlushInterval" => 3000,
        "transactionOpBatchInterval" => 3000,
        "transactionOpMsgMaxSize" => 4096,
        "transferMsgByHeap" => true,
        "travelCqFileNumWhenGetMessage" => 1,
        "updateNameServerAddrPeriod" => 120000,
        "useABSLock" => false,
        "useEpollNativeSelector" => false,
        "usePIDColdCtrStrategy" => true,
        "useReentrantLockWhenPutMessage" => true,
        "useStaticSubscription" => false,
        "useTLS" => false,
        "waitTimeMillsInAckQueue" => 3000,
        "waitTimeMillsInAdminBrokerQueue" => 5000,
        "waitTimeMillsInHeartbeatQueue" => 31000,
        "waitTimeMillsInLitePullQueue" => 5000,
        "waitTimeMillsInPullQueue" => 5000,
        "waitTimeMillsInSendQueue" => 200,
        "waitTimeMillsInTransactionQueue" => 3000,
        "wakeCommitWhenPutMessage" => true,
        "wakeFlushWhenPutMessage" => false,
        "warmMapedFileEnable" => false,
        "writeBufferHighWaterMark" => 0,
        "writeBufferLowWaterMark" => 0,
    }
}
/// Switches whose silent loss would be worse than no start: who may do or read what, where messages are kept safe, and which consumers
/// get them.
const UNSUPPORTED_SWITCHES: [(&str, &str); 10] = [
    ("aclEnable", "access control"),
    ("authenticationEnabled", "access control"),
    ("authorizationEnabled", "access control"),
    ("useTLS", "TLS: everything would go in clear text"),
    ("enableDLegerCommitLog", "replication by DLedger"),
    ("enableControllerMode", "controller mode"),
    ("duplicationEnable", "copies of its messages"),
    ("enableSlaveActingMaster", "slaves that could take its place"),
    ("enableLmq", "light queues: messages with INNER_MULTI_DISPATCH would not reach them"),
    ("enableMultiDispatch", "light queues: messages with INNER_MULTI_DISPATCH would not reach them"),
];

/// The same of keys that are no switches: the value that is refused (empty: any), and what would be right.
const UNSUPPORTED_VALUES: [(&str, &str, &str); 3] = [
    (
        "storeType",
        "defaultRocksDB",
        "default: topics, groups and offsets kept in RocksDB would not be seen; Java's `mqadmin rocksDBConfigToJson` exports them",
    ),
    (
        "configManagerVersion",
        "v2",
        "v1: topics, groups and offsets kept in RocksDB would not be seen; Java's `mqadmin rocksDBConfigToJson` exports them",
    ),
    ("messageStorePlugIn", "", "empty: what a plug-in keeps elsewhere, such as in tiered storage, would not be seen"),
];

/// Bytes of a buffer of the write pool. Java's are as long as a file of the log, 5 GiB in all, which few machines can lock for it.
const POOL_BUFFER_LEN: usize = 16 << 20;

/// How far below the main port the fast ("VIP") port is.
const FAST_PORT_DISTANCE: u16 = 2;

impl BrokerConfig {
    /// Checks the configuration as a whole, and fills in what follows from other keys or from the host.
    pub fn complete(mut loaded: LoadedConfig<BrokerConfig>) -> Result<BrokerConfig, ConfigError> {
        loaded.config.check().map_err(|(key, allowed)| loaded.refuse(key, allowed))?;
        let config = &mut loaded.config;
        // Masters are number 0, whatever the file says, as in Java.
        if config.broker_role != BrokerRole::Slave {
            config.broker_id = 0;
        }
        if config.broker_ip1.is_none() || config.broker_ip2.is_none() {
            let local = this_host::address().to_string();
            config.broker_ip1.get_or_insert_with(|| local.clone());
            config.broker_ip2.get_or_insert(local);
        }
        if config.ha_listen_port == 0 && config.listen_port > 0 {
            config.ha_listen_port = config.listen_port.saturating_add(1);
        }
        if config.store_path_commit_log.is_none() {
            config.store_path_commit_log = Some(config.store_path_root_dir.join("commitlog").display().to_string());
        }
        Ok(loaded.config)
    }

    /// What single values cannot say: which of them this broker cannot be started with, and what would be allowed. Holds at
    /// start and for changes at run time, which would otherwise only stop the next start.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let refuse = |key, allowed: &str| Err((key, allowed.to_owned()));
        match self.broker_role {
            BrokerRole::AsyncMaster | BrokerRole::SyncMaster => {}
            BrokerRole::Slave if self.broker_id <= 0 => {
                return refuse(
                    "brokerId",
                    "above 0 with brokerRole=SLAVE, and another one for each slave of a brokerName",
                );
            }
            BrokerRole::Slave => {}
        }
        let listing = self.listing();
        for (key, what) in UNSUPPORTED_SWITCHES {
            if listing.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                return Err((key, format!("false: this FerroMQ broker has no {what} yet")));
            }
        }
        for (key, refused, allowed) in UNSUPPORTED_VALUES {
            let value = listing.get(key).map_or("", |value| value.trim());
            if !value.is_empty() && (refused.is_empty() || value.eq_ignore_ascii_case(refused)) {
                return refuse(key, allowed);
            }
        }
        let by_address_server =
            listing.get("fetchNamesrvAddrByAddressServer").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if by_address_server && self.nameservers().is_empty() {
            let allowed = "false, with the nameservers in namesrvAddr: this FerroMQ broker asks no address server, and no client would find it";
            return refuse("fetchNamesrvAddrByAddressServer", allowed);
        }
        if self.transient_store_pool_enable && !self.mapped_file_size_commit_log.is_multiple_of(4096) {
            let allowed = "a multiple of 4096 with transientStorePoolEnable=true, which writes whole pages";
            return refuse("mappedFileSizeCommitLog", allowed);
        }
        if self.multi_path_splitter.is_empty() {
            return refuse("multiPathSplitter", "what stands between directories, such as a comma");
        }
        if self.store_path_commit_log.is_some() {
            check_log_dirs(&self.commit_log_dirs(), &self.read_only_log_dirs())
                .map_err(|reason| ("storePathCommitLog", format!("directories apart from each other; {reason}")))?;
        }
        if self.broker_name.is_empty() || self.broker_cluster_name.is_empty() {
            let key = if self.broker_name.is_empty() { "brokerName" } else { "brokerClusterName" };
            return refuse(key, "a name that is not empty");
        }
        if parse_ip(&self.bind_address).is_none() {
            return refuse("bindAddress", "an IP address such as 0.0.0.0 (all, of IPv6 too) or ::1");
        }
        if (1..=FAST_PORT_DISTANCE).contains(&self.listen_port) {
            return refuse("listenPort", "above 2, because the fast port is two below it");
        }
        if self.pinned_master().is_some_and(|address| !is_host_and_port(address)) {
            return refuse("haMasterAddress", "host:port of the master's haListenPort, or empty");
        }
        if let Some(list) = &self.namesrv_addr
            && let Some(wrong) = split_addresses(list).find(|address| !is_host_and_port(address))
        {
            return Err(("namesrvAddr", format!("a list `host:port;host:port`; `{wrong}` is not host:port")));
        }
        if Hours::parse(&self.delete_when).is_none() {
            return refuse(
                "deleteWhen",
                "hours of the day from 0 to 23, with `;` between them, such as 04 or 03;04;05",
            );
        }
        if self.max_index_num <= self.max_hash_slot_num / 1000 {
            return refuse("maxIndexNum", "more than a thousandth of maxHashSlotNum");
        }
        Ok(())
    }

    /// Longest body of a message that is stored: `maxMessageSize`, or what an answer takes beside the rest of the record. A longer one could be
    /// sent and never be pulled.
    pub fn message_len_max(&self) -> usize {
        self.max_message_size.min(ferromq_protocol::BODY_LEN_MAX - 64 * 1024)
    }

    /// A slave's master, if nameservers are not asked who it is.
    pub(crate) fn pinned_master(&self) -> Option<&str> {
        self.ha_master_address.as_deref().filter(|address| !address.is_empty())
    }

    /// None on a slave, as in Java: nobody waits there for an append.
    pub(crate) fn write_pool(&self) -> Option<WritePoolConfig> {
        let buffer_len = usize::try_from(self.mapped_file_size_commit_log).unwrap_or(POOL_BUFFER_LEN);
        let has_pool = self.transient_store_pool_enable && self.broker_role != BrokerRole::Slave;
        has_pool.then(|| WritePoolConfig {
            buffers: self.transient_store_pool_size,
            buffer_len: buffer_len.min(POOL_BUFFER_LEN),
            commit_interval: Duration::from_millis(self.commit_interval_commit_log),
            commit_least_pages: self.commit_commit_log_least_pages,
            commit_thorough_interval: Duration::from_millis(self.commit_commit_log_thorough_interval),
            fails_fast: self.fast_fail_if_no_buffer_in_store_pool,
        })
    }

    /// What the store keeps. Ratios are bounded as Java bounds them.
    pub fn retention(&self) -> RetentionRules {
        let ratio = |percent: u32, least, most| f64::from(percent.clamp(least, most)) / 100.0;
        RetentionRules {
            reserved_time: Duration::from_secs(self.file_reserved_time * 3600),
            // Checked when it was set.
            hours: Hours::parse(&self.delete_when).unwrap_or_default(),
            used_ratio_max: ratio(self.disk_max_used_space_ratio, 10, 95),
            forced_ratio: ratio(self.disk_space_clean_forcibly_ratio, 30, 85),
            forced: self.clean_file_forcibly_enable,
            full_ratio: ratio(self.disk_space_warning_level_ratio, 35, 90),
            reserved_bytes: Some(self.file_reserved_bytes).filter(|bytes| *bytes > 0),
            batch_max: self.delete_file_batch_max,
            segment_pause: Duration::from_millis(self.delete_commit_log_files_interval),
            interval: Duration::from_millis(self.clean_resource_interval),
        }
    }

    /// The nameservers, in the order of the list.
    pub fn nameservers(&self) -> Vec<String> {
        self.namesrv_addr.as_deref().map(|list| split_addresses(list).map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The port that serves everything but pulls; `None` when the main port is chosen by the system.
    pub fn fast_port(&self) -> Option<u16> {
        self.listen_port.checked_sub(FAST_PORT_DISTANCE).filter(|port| *port > 0)
    }

    /// The address that clients are told.
    pub fn advertised_host(&self) -> &str {
        self.broker_ip1.as_deref().unwrap_or("127.0.0.1")
    }

    /// `host:port` that slaves are told, with the port that is listened on.
    pub fn ha_address(&self, port: u16) -> String {
        let host = self.broker_ip2.as_deref().unwrap_or(self.advertised_host());
        with_port(without_brackets(host), port)
    }

    /// Directories of the commit log that get new files, but for those that are only read.
    pub fn commit_log_dirs(&self) -> Vec<PathBuf> {
        self.split_paths(self.store_path_commit_log.as_deref())
    }

    /// Directories of the commit log that get no new files.
    pub fn read_only_log_dirs(&self) -> Vec<PathBuf> {
        self.split_paths(self.read_only_commit_log_store_paths.as_deref())
    }

    /// Blanks around a path and empty ones do not count; Java would take the first for a part of it, the second for `/`.
    fn split_paths(&self, list: Option<&str>) -> Vec<PathBuf> {
        let paths = list.unwrap_or_default().split(&*self.multi_path_splitter).map(str::trim);
        paths.filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    }

    /// Where the JSON tables are.
    pub fn config_dir(&self) -> PathBuf {
        self.store_path_root_dir.join("config")
    }
}

fn split_addresses(list: &str) -> impl Iterator<Item = &str> {
    list.split(';').map(str::trim).filter(|address| !address.is_empty())
}

fn is_host_and_port(address: &str) -> bool {
    host_and_port(address).is_some_and(|(_, port)| port > 0)
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
