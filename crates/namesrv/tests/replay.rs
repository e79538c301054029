//! Replays captured requests against a real nameserver over real sockets and compares the answers byte for byte.

use std::collections::HashMap;

use ferromq_namesrv::{Config, Nameserver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CAPTURE: &str = include_str!("golden/nameserver.txt");

struct Case<'a> {
    title: &'a str,
    close: Option<&'a str>,
    connection: &'a str,
    request: (&'a str, &'a str),
    answer: (&'a str, &'a str),
}

fn cases() -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    let (mut title, mut close, mut connection) = ("", None, "admin");
    let mut lines = CAPTURE.lines().peekable();
    // A body stands on the line after its header; `(no body)` is an empty one.
    let body = |lines: &mut std::iter::Peekable<std::str::Lines<'static>>| match lines
        .next_if(|line| line.starts_with("   body: "))
    {
        Some(line) if !line.ends_with("(no body)") => &line[9..],
        _ => "",
    };
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("# ") {
            (title, close, connection) = (text, None, "admin");
        } else if let Some(name) = line.strip_prefix("!close ") {
            close = Some(name);
        } else if let Some(name) = line.strip_prefix('@') {
            connection = name;
        } else if let Some(request) = line.strip_prefix("-> ") {
            let request = (request, body(&mut lines));
            while lines.next_if(|line| line.is_empty()).is_some() {}
            let answer = lines.next().and_then(|line| line.strip_prefix("<- ")).expect("an answer follows its request");
            cases.push(Case { title, close, connection, request, answer: (answer, body(&mut lines)) });
        }
    }
    cases
}

async fn exchange(stream: &mut TcpStream, (header, body): (&str, &str)) -> (String, String) {
    let mut frame = Vec::new();
    frame.extend(u32::try_from(4 + header.len() + body.len()).unwrap().to_be_bytes());
    frame.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
    frame.extend([header.as_bytes(), body.as_bytes()].concat());
    stream.write_all(&frame).await.unwrap();
    let len = stream.read_u32().await.unwrap() as usize;
    let header_len = stream.read_u32().await.unwrap() as usize;
    let mut rest = vec![0; len - 4];
    stream.read_exact(&mut rest).await.unwrap();
    let body = rest.split_off(header_len);
    (String::from_utf8(rest).unwrap(), String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn answers_are_javas() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        bind_address: "127.0.0.1".into(),
        listen_port: 0,
        kv_config_path: dir.path().join("kvConfig.json"),
        config_store_path: dir.path().join("namesrv.properties"),
        return_order_topic_config_to_broker: true,
        ..Config::default()
    };
    let nameserver = Nameserver::start(config).await.unwrap();
    let mut connections: HashMap<&str, TcpStream> = HashMap::new();
    let cases = cases();
    assert!(cases.len() > 60, "{}", cases.len());
    for case in cases {
        let closed = case.close.is_some_and(|name| connections.remove(name).is_some());
        if !connections.contains_key(case.connection) {
            connections.insert(case.connection, TcpStream::connect(nameserver.local_addr()).await.unwrap());
        }
        let stream = connections.get_mut(case.connection).unwrap();
        let mut answer = exchange(stream, case.request).await;
        // The nameserver learns of a closed connection by itself; until then the answer is the one of before.
        while closed && answer != (case.answer.0.into(), case.answer.1.into()) {
            tokio::task::yield_now().await;
            answer = exchange(stream, case.request).await;
        }
        let expected = match case.answer.0.split_once("\"remark\":\"*\"") {
            None => case.answer.0.to_owned(),
            // Our own words.
            Some((before, after)) => {
                let remark = answer.0.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                assert!(
                    remark.is_some_and(|remark| remark.contains("RegisterBrokerBody")),
                    "{}: {}",
                    case.title,
                    answer.0
                );
                answer.0.clone()
            }
        };
        assert_eq!((answer.0, &*answer.1), (expected, case.answer.1), "{}", case.title);
    }
    nameserver.shutdown().await;
}
