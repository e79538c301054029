//! Impossible config, taken ports and locked directories stop a start at once, with a message that names the cause and the remedy;
//! hostile frames and headers get an answer or a closed connection, and the process carries on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cluster::{Cluster, free_port};
use crate::driver::{Client, produce};
use crate::process::{Finished, HANG_GUARD, Process, run};

fn broker_with(dir: &Path, lines: &str) -> Finished {
    let conf = dir.join("bad.conf");
    std::fs::write(&conf, lines).expect("temporary directory is writable");
    run(Command::new(env!("CARGO_BIN_EXE_mqbroker")).arg("-c").arg(&conf).env("HOME", dir))
}

/// The start failed, and the message holds every one of `parts`.
fn refused(done: &Finished, parts: &[&str]) {
    assert!(!done.status.success(), "the start must fail: {}", done.stdout);
    for part in parts {
        assert!(done.stderr.contains(part), "{part:?} is missing in: {}", done.stderr);
    }
}

#[test]
fn impossible_config_values_name_file_line_and_key() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = format!("storePathRootDir={}\n", dir.path().join("s").display());
    for (line, key) in [
        ("listenPort=ninety", "listenPort"),
        ("listenPort=70000", "listenPort"),
        ("flushDiskType=SOMETIMES_FLUSH", "flushDiskType"),
        ("mappedFileSizeCommitLog=-5", "mappedFileSizeCommitLog"),
        ("namesrvAddr=nowhere", "namesrvAddr"),
        ("brokerRole=EMPEROR", "brokerRole"),
    ] {
        let done = broker_with(dir.path(), &format!("# a comment\n{store}{line}\n"));
        refused(&done, &["bad.conf", "3", key]);
    }
    let done = run(Command::new(env!("CARGO_BIN_EXE_mqbroker"))
        .arg("-c")
        .arg(dir.path().join("absent.conf"))
        .env("HOME", dir.path()));
    refused(&done, &["absent.conf"]);
    let conf = dir.path().join("ns.conf");
    std::fs::write(&conf, "listenPort=x\n").expect("temporary directory is writable");
    refused(
        &run(Command::new(env!("CARGO_BIN_EXE_mqnamesrv")).arg("-c").arg(&conf).env("HOME", dir.path())),
        &["ns.conf", "1", "listenPort"],
    );
}

#[test]
fn an_unknown_key_is_reported_once_and_the_start_goes_on() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let conf = home.path().join("odd.conf");
    let store = home.path().join("store");
    std::fs::write(
        &conf,
        format!(
            "listenPort={port}\nstorePathRootDir={}\nbrokerIP1=127.0.0.1\nflushDiskTypo=ASYNC_FLUSH\n",
            store.display()
        ),
    )
    .expect("writable");
    let log = home.path().join("stderr");
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("exec {} -c {} 2>{}", env!("CARGO_BIN_EXE_mqbroker"), conf.display(), log.display()))
        .env("HOME", home.path());
    let mut process = Process::start("odd", &mut command);
    process.wait_for_line("the broker is up", |line| line.contains("boot success"));
    assert!(process.terminate().success());
    let text = std::fs::read_to_string(&log).expect("the log was written");
    assert_eq!(text.lines().filter(|line| line.contains("flushDiskTypo")).count(), 1, "{text}");
    assert!(text.contains("odd.conf"), "{text}");
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let done = broker_with(
        dir.path(),
        &format!("listenPort={port}\nstorePathRootDir={}\nbrokerIP1=127.0.0.1\n", dir.path().join("s").display()),
    );
    refused(&done, &[&port.to_string(), "in use"]);
    let conf = dir.path().join("ns.conf");
    std::fs::write(&conf, format!("listenPort={port}\n")).expect("writable");
    refused(
        &run(Command::new(env!("CARGO_BIN_EXE_mqnamesrv")).arg("-c").arg(&conf).env("HOME", dir.path())),
        &[&port.to_string(), "in use"],
    );
}

#[test]
fn a_locked_or_unwritable_store_is_named() {
    let cluster = Cluster::start(&[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = cluster.broker.store.display().to_string();
    let done = broker_with(
        dir.path(),
        &format!("listenPort={}\nstorePathRootDir={store}\nbrokerIP1=127.0.0.1\n", free_port()),
    );
    refused(&done, &[&store, "lock"]);
    // A path below a plain file can never become a directory, not even for root.
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("writable");
    let done = broker_with(
        dir.path(),
        &format!(
            "listenPort={}\nstorePathRootDir={}\nbrokerIP1=127.0.0.1\n",
            free_port(),
            file.join("store").display()
        ),
    );
    refused(&done, &[&file.display().to_string()]);
}

#[test]
fn a_damaged_table_is_named_and_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let lines = format!(
        "listenPort={}\nstorePathRootDir={}\nbrokerIP1=127.0.0.1\n",
        free_port(),
        dir.path().join("s").display()
    );
    let tables = dir.path().join("s/config");
    std::fs::create_dir_all(&tables).expect("writable");
    for table in ["topics.json", "subscriptionGroup.json", "consumerOffset.json", "delayOffset.json"] {
        for damage in ["{\n\t\"dataVersion\":{", "{\n\"someTable\":{}}", "\0\0\0\0"] {
            std::fs::write(tables.join(table), damage).expect("writable");
            refused(&broker_with(dir.path(), &lines), &[table, "Repair the file"]);
            assert_eq!(std::fs::read_to_string(tables.join(table)).expect("still there"), damage);
        }
        std::fs::remove_file(tables.join(table)).expect("writable");
    }
}

fn frame(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&u32::try_from(4 + header.len() + body.len()).expect("small").to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(header.len()).expect("small").to_be_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the broker listens");
    stream.set_read_timeout(Some(HANG_GUARD)).expect("a timeout can be set");
    stream
}

/// Sends one request and returns the reply's header text.
fn ask(addr: &str, header: &str, body: &[u8]) -> String {
    let mut stream = connect(addr);
    stream.write_all(&frame(header, body)).expect("the broker reads");
    let mut words = [0; 8];
    stream.read_exact(&mut words).unwrap_or_else(|error| panic!("no answer to {header}: {error}"));
    let header_len = u32::from_be_bytes([0, words[5], words[6], words[7]]) as usize;
    let mut text = vec![0; header_len];
    stream.read_exact(&mut text).expect("the whole header");
    String::from_utf8(text).expect("a JSON header")
}

fn send(topic: &str, queue: &str, extra: &str) -> String {
    format!(
        r#"{{"code":310,"opaque":1,"flag":0,"language":"JAVA","version":479,"extFields":{{"a":"PID_bad","b":"{topic}","c":"TBW102","d":"4","e":"{queue}","f":"0","g":"1700000000000","h":"0","i":"","j":"0","k":"false","l":"16","m":"false"{extra}}}}}"#
    )
}

#[test]
fn bad_requests_get_the_answer_of_the_spec() {
    let cluster = Cluster::start(&["maxMessageSize=65536"]);
    let addr = cluster.broker.addr();
    for (header, body, expected) in [
        (r#"{"code":4711,"opaque":1,"flag":0}"#.to_owned(), &b""[..], r#""code":3,"#),
        (send("ok_topic", "0", ""), &b"hello"[..], r#""code":0,"#),
        (send("bad/topic", "0", ""), &b"hello"[..], r#""code":29,"#),
        (send("ok_topic", "99", ""), &b"hello"[..], r#""code":29,"#),
        (send("ok_topic", "many", ""), &b"hello"[..], r#""code":1,"#),
        (send("ok_topic", "0", ""), &[b'x'; 70_000][..], r#""code":13,"#),
        (r#"{"code":310,"opaque":1,"flag":0,"extFields":{"b":"ok_topic"}}"#.to_owned(), &b"x"[..], r#""code":1,"#),
        (r#"{"code":34,"opaque":1,"flag":0}"#.to_owned(), &b"{not json"[..], r#""code":1,"#),
        (
            r#"{"code":11,"opaque":1,"flag":0,"extFields":{"consumerGroup":"CID_bad"}}"#.to_owned(),
            &b""[..],
            r#""code":1,"#,
        ),
    ] {
        let reply = ask(&addr, &header, body);
        assert!(reply.contains(expected), "{header} expected {expected}, got {reply}");
    }
}

#[test]
fn hostile_frames_close_their_connection_and_nothing_else() {
    let cluster = Cluster::start(&[]);
    let header = br#"{"code":105,"opaque":1}"#;
    let mut lying = Vec::new();
    lying.extend_from_slice(&40u32.to_be_bytes());
    lying.extend_from_slice(&4_000u32.to_be_bytes());
    lying.extend_from_slice(&[b' '; 36]);
    let mut unknown_type = Vec::new();
    unknown_type.extend_from_slice(&(4 + header.len() as u32).to_be_bytes());
    unknown_type.extend_from_slice(&(0x0700_0000 | header.len() as u32).to_be_bytes());
    unknown_type.extend_from_slice(header);
    for (what, bytes) in [
        ("longer than the limit", 0x7fff_ffffu32.to_be_bytes().repeat(4)),
        ("a negative length", 0xffff_fff0u32.to_be_bytes().repeat(4)),
        ("a header longer than its frame", lying),
        ("an unknown serialization", unknown_type),
        ("a header that is not JSON", frame("this is not a header", b"")),
    ] {
        for addr in [cluster.broker.addr(), cluster.namesrv()] {
            let mut stream = connect(&addr);
            stream.write_all(&bytes).expect("the server reads");
            let mut rest = Vec::new();
            let closed = stream.read_to_end(&mut rest);
            assert!(
                closed.is_ok() || closed.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
                "{what}: {closed:?}"
            );
            assert!(rest.is_empty(), "{what}: nothing is answered");
        }
    }
    produce(Client::Java533, &cluster.namesrv(), "StillHere", "sync", "k", 10, &[]);
}

#[test]
fn a_connection_that_never_reads_does_not_grow_the_broker() {
    let cluster = Cluster::start(&[]);
    produce(Client::Java533, &cluster.namesrv(), "Flood", "sync", "k", 500, &["--size", "8000"]);
    let mut stream = connect(&cluster.broker.addr());
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    let pull = frame(
        r#"{"code":11,"opaque":1,"flag":0,"extFields":{"consumerGroup":"CID_flood","topic":"Flood","queueId":"0","queueOffset":"0","maxMsgNums":"32","sysFlag":"4","commitOffset":"0","suspendTimeoutMillis":"0","subscription":"*","subVersion":"0","expressionType":"TAG"}}"#,
        b"",
    );
    // Ask for far more than any buffer holds and read none of it: at some point the broker stops reading.
    let mut asked = 0;
    while asked < 200_000 {
        match stream.write_all(&pull) {
            Ok(()) => asked += 1,
            Err(_) => break,
        }
    }
    assert!(asked < 200_000, "the broker kept reading requests whose answers nobody takes");
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", cluster.broker.process.pid())).expect("proc is mounted");
    let anonymous: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .expect("the kernel tells RssAnon");
    assert!(anonymous < 200 * 1024, "{anonymous} KiB of anonymous memory");
    produce(Client::Java533, &cluster.namesrv(), "Flood", "sync", "again", 10, &[]);
}
