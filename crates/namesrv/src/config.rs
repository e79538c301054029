//! What a nameserver can be told: `NamesrvConfig` and the server half of Java's Netty keys.

use std::path::PathBuf;

use ferromq_config::{config, home_dir};

config! {
    /// Java: `NamesrvConfig` and `NettyServerConfig`. Effective keys other than addresses, paths and sockets also change at run time
    /// (UPDATE_NAMESRV_CONFIG).
    pub struct Config {
        /// Address to listen on; `0.0.0.0` and `::` mean all, of IPv4 and IPv6.
        "bindAddress" => bind_address: String = "0.0.0.0".into(),
        /// Port for brokers, clients and tools; 0 takes any free one.
        "listenPort" => listen_port: u16 = 9876,
        /// Shown by listings, otherwise unused. Default: the environment's ROCKETMQ_HOME.
        "rocketmqHome" => rocketmq_home: Option<PathBuf> = std::env::var_os("ROCKETMQ_HOME").map(PathBuf::from),
        /// File that keeps the key-value configuration.
        "kvConfigPath" => kv_config_path: PathBuf = home_dir().join("namesrv/kvConfig.json"),
        /// File that configuration changes are written to. With `-c FILE` it is that file.
        "configStorePath" => config_store_path: PathBuf = home_dir().join("namesrv/namesrv.properties"),
        /// Keys that cannot be changed at run time, separated by semicolons.
        "configBlackList" => config_black_list: String = "configBlackList;configStorePath;kvConfigPath".into(),
        /// Attach the order configuration of a topic to its route.
        "orderMessageEnable" => order_message_enable: bool = false,
        /// Answer registrations with the order configuration of all topics.
        "returnOrderTopicConfigToBroker" => return_order_topic_config_to_broker: bool = true,
        /// Milliseconds between two looks for brokers that fell silent, as in RocketMQ 4.x; 5.3.3 has 5000.
        "scanNotActiveBrokerInterval" in 10..=3_600_000 => scan_not_active_broker_interval: u64 = 10_000,
        /// Present the smallest broker id as master while the master is gone and the brokers allow it.
        "supportActingMaster" => support_acting_master: bool = false,
        /// Answer GET_ALL_TOPIC_LIST_FROM_NAMESERVER.
        "enableAllTopicList" => enable_all_topic_list: bool = true,
        /// Answer the other topic lists.
        "enableTopicList" => enable_topic_list: bool = true,
        /// Tell brokers when the smallest id of their group changes.
        "notifyMinBrokerIdChanged" => notify_min_broker_id_changed: bool = false,
        /// Refuse route lookups for `waitSecondsForService` after the start, so that brokers can register first.
        "needWaitForService" => need_wait_for_service: bool = false,
        /// Seconds.
        "waitSecondsForService" in 0..=86_400 => wait_seconds_for_service: u64 = 45,
        /// A full registration removes the broker's topics that it no longer lists.
        "deleteTopicWithBrokerRegistration" => delete_topic_with_broker_registration: bool = false,
        /// Seconds of silence in both directions after which a connection is closed.
        "serverChannelMaxIdleTimeSeconds" in 1..=86_400 => server_channel_max_idle_time_seconds: u64 = 120,
        /// Socket send buffer in bytes; 0 leaves it to the system.
        "serverSocketSndBufSize" in 0..=1_073_741_824 => server_socket_snd_buf_size: u32 = 0,
        /// Socket receive buffer in bytes; 0 leaves it to the system.
        "serverSocketRcvBufSize" in 0..=1_073_741_824 => server_socket_rcv_buf_size: u32 = 0,
    }
    inert {
        /// Route lookups run on the connection's own task; there is no pool.
        "clientRequestThreadPoolNums" => 8,
        "clientRequestThreadPoolQueueCapacity" => 50_000,
        "defaultThreadPoolNums" => 16,
        "defaultThreadPoolQueueCapacity" => 10_000,
        /// Brokers are unregistered at once, not through a queue.
        "unRegisterBrokerQueueCapacity" => 3000,
        "clusterTest" => false,
        "productEnvName" => "center",
        "enableControllerInNamesrv" => false,
        "enableShutdownGracefully" => false,
        "shutdownWaitTimeSeconds" => 30,
        "serverAsyncSemaphoreValue" => 64,
        "serverCallbackExecutorThreads" => 0,
        "serverNettyWorkerGroupEnable" => true,
        "serverOnewaySemaphoreValue" => 256,
        "serverPooledByteBufAllocatorEnable" => true,
        "serverSelectorThreads" => 3,
        "serverSocketBacklog" => 1024,
        "serverWorkerThreads" => 8,
        "useEpollNativeSelector" => false,
        "writeBufferHighWaterMark" => 0,
        "writeBufferLowWaterMark" => 0,
    }
}

#[cfg(test)]
mod tests {
    use ferromq_config::Configuration;

    use super::*;

    /// Body of GET_NAMESRV_CONFIG as 5.3.3 answers it.
    const JAVA: &str = "bindAddress=0.0.0.0\nclientRequestThreadPoolNums=8\nclientRequestThreadPoolQueueCapacity=50000\nclusterTest=false\n\
        configBlackList=configBlackList;configStorePath;kvConfigPath\nconfigStorePath=/HOME/ns.conf\ndefaultThreadPoolNums=16\n\
        defaultThreadPoolQueueCapacity=10000\ndeleteTopicWithBrokerRegistration=false\nenableAllTopicList=true\n\
        enableControllerInNamesrv=false\nenableShutdownGracefully=false\nenableTopicList=true\nkvConfigPath=/HOME/kvConfig.json\n\
        listenPort=33876\nneedWaitForService=false\nnotifyMinBrokerIdChanged=false\norderMessageEnable=false\nproductEnvName=center\n\
        returnOrderTopicConfigToBroker=true\nrocketmqHome=/HOME\nscanNotActiveBrokerInterval=5000\nserverAsyncSemaphoreValue=64\n\
        serverCallbackExecutorThreads=0\nserverChannelMaxIdleTimeSeconds=120\nserverNettyWorkerGroupEnable=true\n\
        serverOnewaySemaphoreValue=256\nserverPooledByteBufAllocatorEnable=true\nserverSelectorThreads=3\nserverSocketBacklog=1024\n\
        serverSocketRcvBufSize=0\nserverSocketSndBufSize=0\nserverWorkerThreads=8\nshutdownWaitTimeSeconds=30\nsupportActingMaster=false\n\
        unRegisterBrokerQueueCapacity=3000\nuseEpollNativeSelector=false\nwaitSecondsForService=45\nwriteBufferHighWaterMark=0\n\
        writeBufferLowWaterMark=0\n";

    #[test]
    fn listing_is_javas() {
        let config = Config {
            listen_port: 33876,
            scan_not_active_broker_interval: 5000,
            rocketmq_home: Some("/HOME".into()),
            kv_config_path: "/HOME/kvConfig.json".into(),
            config_store_path: "/HOME/ns.conf".into(),
            ..Config::default()
        };
        assert_eq!(config.to_properties(), JAVA);
    }

    #[test]
    fn javas_dump_is_a_config_file_with_nothing_unknown() {
        let loaded = Config::parse(JAVA, "ns.conf".as_ref()).unwrap();
        assert_eq!(loaded.unknown, []);
        assert_eq!(loaded.config.to_properties(), JAVA);
    }
}
