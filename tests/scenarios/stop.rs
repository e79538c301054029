//! SIGTERM at a time when nobody expects it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use rustix::fs::OFlags;

use crate::cluster::free_port;
use crate::process::{Process, await_condition, run};

/// After a crash a store is checked before it opens, which may take minutes.
#[test]
fn a_broker_that_is_told_to_stop_does_not_finish_its_recovery() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let root = home.path().join("store");
    let queues = root.join("consumequeue/Topic");
    std::fs::create_dir_all(queues.join("0")).expect("temporary directory is writable");
    std::fs::create_dir_all(queues.join("1")).expect("temporary directory is writable");
    std::fs::write(root.join("abort"), "1").expect("temporary directory is writable");
    // Whoever opens it waits until somebody writes to it: so long the recovery takes.
    let slow = queues.join("0/00000000000000000000");
    assert!(run(Command::new("mkfifo").arg(&slow)).status.success());
    let conf = home.path().join("broker.conf");
    let lines = format!("brokerIP1=127.0.0.1\nlistenPort={}\nstorePathRootDir={}\n", free_port(), root.display());
    std::fs::write(&conf, lines).expect("temporary directory is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqbroker"));
    let mut broker = Process::start("broker", command.arg("-c").arg(&conf).env("HOME", home.path()));
    let logged = |broker: &Process, text: &str| {
        await_condition(text, || broker.logged(|line| line.contains(text)).then_some(()));
    };
    logged(&broker, "it is checked before it opens");
    broker.ask_to_end();
    logged(&broker, "stopping before the store is open");
    // Without a reader there is nothing to be opened, and a broker that has ended needs no writer.
    await_condition("somebody reads it, or has ended", || {
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let opened = OpenOptions::new().write(true).custom_flags(nonblocking).open(&slow).is_ok();
        (opened || broker.has_ended()).then_some(())
    });
    assert!(broker.wait_exit().success());
    assert_eq!(broker.next_line(), None, "it never said that it was up");
    assert!(root.join("abort").exists(), "the next start checks everything");
}
