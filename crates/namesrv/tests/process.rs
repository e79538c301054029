//! A nameserver over its life: restart, changes of its configuration, registrations that are too much, things that keep it from starting.

use std::path::Path;
use std::time::Duration;

use ferromq_namesrv::{Config, Configuration, LoadError, Nameserver, StartError};
use ferromq_protocol::body::{ClusterInfo, RegisterBrokerBody};
use ferromq_protocol::header::{
    KvKeyRequest, KvPutRequest, RegisterBrokerRequest, RouteRequest, UnregisterBrokerRequest,
};
use ferromq_protocol::{Command, EncodeFields, NoFields, RequestCode, ResponseCode, json};
use ferromq_remoting::{Client, ClientConfig};

const TIMEOUT: Duration = Duration::from_secs(300);

fn config(dir: &Path) -> Config {
    Config {
        bind_address: "127.0.0.1".into(),
        listen_port: 0,
        kv_config_path: dir.join("kvConfig.json"),
        config_store_path: dir.join("namesrv.properties"),
        ..Config::default()
    }
}

async fn ask(
    nameserver: &Nameserver,
    client: &Client,
    code: RequestCode,
    header: &dyn EncodeFields,
    body: &str,
) -> Command {
    let request = Command::request(code, header).with_body(body.to_owned());
    client.invoke(&nameserver.local_addr().to_string(), request, TIMEOUT).await.unwrap()
}

fn client() -> Client {
    Client::new(ClientConfig::default(), None)
}

#[tokio::test]
async fn kv_configuration_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (nameserver, first) = (Nameserver::start(config(dir.path())).await.unwrap(), client());
    let put = KvPutRequest { namespace: "ORDER_TOPIC_CONFIG".into(), key: "T".into(), value: "broker-a:4".into() };
    let answer = ask(&nameserver, &first, RequestCode::PUT_KV_CONFIG, &put, "").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    first.shutdown().await;
    nameserver.shutdown().await;

    let (nameserver, second) = (Nameserver::start(config(dir.path())).await.unwrap(), client());
    let key = KvKeyRequest { namespace: "ORDER_TOPIC_CONFIG".into(), key: "T".into() };
    let answer = ask(&nameserver, &second, RequestCode::GET_KV_CONFIG, &key, "").await;
    assert_eq!(answer.field("value").as_deref(), Some("broker-a:4"));
    second.shutdown().await;
    nameserver.shutdown().await;
}

#[tokio::test]
async fn configuration_changes_take_effect_and_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let nameserver = Nameserver::start(config(dir.path())).await.unwrap();
    let client = client();
    let change =
        async |text: &str| ask(&nameserver, &client, RequestCode::UPDATE_NAMESRV_CONFIG, &NoFields, text).await;
    let topics =
        async || ask(&nameserver, &client, RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &NoFields, "").await;

    assert_eq!(topics().await.response_code(), ResponseCode::SUCCESS);
    assert_eq!(change("enableAllTopicList=false\n").await.response_code(), ResponseCode::SUCCESS);
    let refused = topics().await;
    assert_eq!((refused.response_code(), refused.remark.as_deref()), (ResponseCode::SYSTEM_ERROR, Some("disable")));
    let impossible = change("enableTopicList=false\nwaitSecondsForService=soon\n").await;
    assert_eq!(impossible.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(
        impossible.remark.as_deref().unwrap().contains("waitSecondsForService is `soon`"),
        "{:?}",
        impossible.remark
    );
    assert_eq!(change("rocketmqHome=/x").await.response_code(), ResponseCode::NO_PERMISSION);
    let long = change(&format!("productEnvName={}", "x".repeat(4 << 20))).await;
    assert!(long.remark.as_deref().unwrap().contains("the limit is 4194304"), "{:?}", long.remark);

    let saved = Config::load(&dir.path().join("namesrv.properties")).unwrap();
    assert!(!saved.config.enable_all_topic_list && saved.config.enable_topic_list);
    assert_eq!(saved.unknown, []);
    client.shutdown().await;
    nameserver.shutdown().await;
}

#[tokio::test]
async fn routes_wait_for_brokers_if_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let nameserver = Nameserver::start(Config {
        need_wait_for_service: true,
        wait_seconds_for_service: 86_400,
        order_message_enable: true,
        ..config(dir.path())
    })
    .await
    .unwrap();
    let client = client();
    let broker = RegisterBrokerRequest {
        broker_name: "broker-a".into(),
        broker_addr: "10.0.0.1:10911".into(),
        cluster_name: "c".into(),
        ha_server_addr: "10.0.0.1:10912".into(),
        ..RegisterBrokerRequest::default()
    };
    let body = r#"{"topicConfigSerializeWrapper":{"dataVersion":{"counter":1},"topicConfigTable":{"T":{"topicName":"T"},"T2":{"topicName":"T2"}}}}"#;
    ask(&nameserver, &client, RequestCode::REGISTER_BROKER, &broker, body).await;
    let put = KvPutRequest { namespace: "ORDER_TOPIC_CONFIG".into(), key: "T".into(), value: "broker-a:16".into() };
    ask(&nameserver, &client, RequestCode::PUT_KV_CONFIG, &put, "").await;

    let route = RouteRequest { topic: "T".into(), accept_standard_json_only: None };
    let early = ask(&nameserver, &client, RequestCode::GET_ROUTEINFO_BY_TOPIC, &route, "").await;
    assert_eq!(early.remark.as_deref(), Some("name server not ready"));
    ask(&nameserver, &client, RequestCode::UPDATE_NAMESRV_CONFIG, &NoFields, "needWaitForService=false").await;
    let ready = ask(&nameserver, &client, RequestCode::GET_ROUTEINFO_BY_TOPIC, &route, "").await;
    let text = String::from_utf8(ready.body.to_vec()).unwrap();
    assert!(text.contains(r#""filterServerTable":{},"orderTopicConf":"broker-a:16","queueDatas""#), "{text}");
    client.shutdown().await;
    nameserver.shutdown().await;
}

#[tokio::test]
async fn what_keeps_it_from_starting_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let running = Nameserver::start(config(dir.path())).await.unwrap();
    let taken = Config { listen_port: running.local_addr().port(), ..config(dir.path()) };
    let error = Nameserver::start(taken).await.err().unwrap();
    let port = running.local_addr().port().to_string();
    assert!(
        matches!(error, StartError::Bind(_))
            && error.to_string().contains(&port)
            && error.to_string().contains("listenPort"),
        "{error}"
    );
    running.shutdown().await;

    let error = Nameserver::start(Config { bind_address: "here".into(), ..config(dir.path()) }).await.err().unwrap();
    assert!(error.to_string().contains("bindAddress is `here`"), "{error}");

    std::fs::write(dir.path().join("kvConfig.json"), "{").unwrap();
    let error = Nameserver::start(config(dir.path())).await.err().unwrap();
    assert!(matches!(error, StartError::Kv(LoadError::Damaged { .. })), "{error}");
}

fn broker(name: &str) -> RegisterBrokerRequest {
    RegisterBrokerRequest {
        broker_name: name.into(),
        broker_addr: format!("{name}:10911").into(),
        cluster_name: "C".into(),
        ..RegisterBrokerRequest::default()
    }
}

/// Names of the brokers that the nameserver knows.
async fn brokers(nameserver: &Nameserver, client: &Client) -> Vec<String> {
    let answer = ask(nameserver, client, RequestCode::GET_BROKER_CLUSTER_INFO, &NoFields, "").await;
    let info: ClusterInfo = json::from_slice(&answer.body).unwrap();
    info.broker_addr_table.into_keys().collect()
}

#[tokio::test]
async fn a_registration_with_too_long_names_or_too_many_filter_servers_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (nameserver, client) = (Nameserver::start(config(dir.path())).await.unwrap(), client());
    let long = |len: usize| "n".repeat(len);
    let servers = |count: usize, len: usize| {
        let body = RegisterBrokerBody { filter_server_list: vec![long(len); count], ..RegisterBrokerBody::default() };
        String::from_utf8(body.encode()).unwrap()
    };
    let too_long = "a name or an address has 1025 bytes, the limit is 1024";
    let too_many = "too many filter servers, or too long ones";
    let refused = [
        (RegisterBrokerRequest { broker_name: long(1025).into(), ..broker("a") }, String::new(), too_long),
        (RegisterBrokerRequest { broker_addr: long(1025).into(), ..broker("a") }, String::new(), too_long),
        (RegisterBrokerRequest { cluster_name: long(1025).into(), ..broker("a") }, String::new(), too_long),
        (RegisterBrokerRequest { ha_server_addr: long(1025).into(), ..broker("a") }, String::new(), too_long),
        (broker("a"), servers(101, 9), too_many),
        (broker("a"), servers(1, 1025), too_many),
    ];
    for (header, body, why) in &refused {
        let answer = ask(&nameserver, &client, RequestCode::REGISTER_BROKER, header, body).await;
        assert_eq!((answer.response_code(), answer.remark.as_deref()), (ResponseCode::SYSTEM_ERROR, Some(*why)));
    }
    let zone = [
        ("brokerName", "a"),
        ("brokerAddr", "a:10911"),
        ("clusterName", "C"),
        ("haServerAddr", ""),
        ("brokerId", "0"),
        ("__ZONE_NAME", &*long(1025)),
    ];
    let answer = ask(&nameserver, &client, RequestCode::REGISTER_BROKER, &zone.to_vec(), "").await;
    assert_eq!(answer.remark.as_deref(), Some(too_long));
    assert_eq!(brokers(&nameserver, &client).await, Vec::<String>::new());
    // What is just not too much.
    let name = long(1024);
    let header = RegisterBrokerRequest { broker_addr: name.as_str().into(), ..broker(&name) };
    let answer = ask(&nameserver, &client, RequestCode::REGISTER_BROKER, &header, &servers(100, 1024)).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    assert_eq!(brokers(&nameserver, &client).await, [name]);
    client.shutdown().await;
    nameserver.shutdown().await;
}

#[tokio::test]
async fn who_is_registered_goes_on_when_the_table_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (nameserver, client) = (Nameserver::start(config(dir.path())).await.unwrap(), client());
    for number in 0..10_000 {
        let answer = ask(&nameserver, &client, RequestCode::REGISTER_BROKER, &broker(&format!("b{number}")), "").await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{number}");
    }
    let answer = ask(&nameserver, &client, RequestCode::REGISTER_BROKER, &broker("late"), "").await;
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    let remark = answer.remark.as_deref();
    assert_eq!(remark, Some("register broker failed: there is no room for more brokers or topics"));
    let answer = ask(&nameserver, &client, RequestCode::REGISTER_BROKER, &broker("b7"), "").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    let known = brokers(&nameserver, &client).await;
    assert_eq!((known.len(), known.iter().any(|name| name == "late")), (10_000, false));
    // When one leaves there is room again.
    let gone = UnregisterBrokerRequest {
        broker_name: "b7".into(),
        broker_addr: "b7:10911".into(),
        cluster_name: "C".into(),
        broker_id: 0,
    };
    ask(&nameserver, &client, RequestCode::UNREGISTER_BROKER, &gone, "").await;
    let answer = ask(&nameserver, &client, RequestCode::REGISTER_BROKER, &broker("late"), "").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    client.shutdown().await;
    nameserver.shutdown().await;
}
