//! Nameservers and brokers as real processes on free ports in a temporary directory.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::process::{Finished, Process, await_condition, run};

/// A port whose neighbours P-2 (fast port) and P+1 (replication) are free as well.
///
/// Taken below the kernel's ephemeral range, so that no outgoing connection of another test lands on it between the probe and the bind.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 12_000 + (std::process::id() % 2_000) as u16 * 8;
    for _ in 0..2_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (base - 12_000 + step * 4) % 18_000;
        let free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if free(port) && free(port - 2) && free(port + 1) {
            return port;
        }
    }
    panic!("no free port between 12000 and 30000");
}

/// A program of ours: the one built with the tests, or one in `FERROMQ_BIN_DIR`.
fn program(name: &str, built: &str) -> PathBuf {
    std::env::var_os("FERROMQ_BIN_DIR").map_or_else(|| PathBuf::from(built), |dir| PathBuf::from(dir).join(name))
}

/// A command that another program runs, if there is one.
fn wrapped(wrapper: &[String], program: PathBuf) -> Command {
    match wrapper {
        [] => Command::new(program),
        [first, others @ ..] => {
            let mut command = Command::new(first);
            command.args(others).arg(program);
            command
        }
    }
}

/// One nameserver process.
pub struct Nameserver {
    pub process: Process,
    pub port: u16,
    home: PathBuf,
}

impl Nameserver {
    pub fn start(home: &Path) -> Nameserver {
        Nameserver::start_on(home, free_port())
    }

    pub fn start_on(home: &Path, port: u16) -> Nameserver {
        let conf = home.join(format!("namesrv-{port}.conf"));
        let kv = home.join(format!("kvConfig-{port}.json"));
        std::fs::write(&conf, format!("listenPort={port}\nkvConfigPath={}\n", kv.display()))
            .expect("temporary directory is writable");
        let mut command = Command::new(program("mqnamesrv", env!("CARGO_BIN_EXE_mqnamesrv")));
        command.arg("-c").arg(&conf).env("HOME", home);
        let mut process = Process::start(format!("namesrv-{port}"), &mut command);
        process.wait_for_line("the nameserver is up", |line| line.contains("boot success"));
        Nameserver { process, port, home: home.to_owned() }
    }

    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL and a new process on the same port.
    pub fn restart_hard(self) -> Nameserver {
        let Nameserver { mut process, port, home } = self;
        process.kill_hard();
        drop(process);
        Nameserver::start_on(&home, port)
    }
}

/// One broker process and the directory that survives it. It does not call a disk slow that other work keeps busy.
pub struct Broker {
    pub process: Process,
    pub port: u16,
    pub store: PathBuf,
    pub name: String,
    conf: PathBuf,
    home: PathBuf,
    /// The words before its command line: what runs it where it is to run.
    wrapper: Vec<String>,
}

impl Broker {
    pub fn start(home: &Path, name: &str, namesrv: &str, extra: &[&str]) -> Broker {
        Broker::start_in(home, name, namesrv, extra, &home.join(format!("store-{name}")), Vec::new())
    }

    /// With its store elsewhere, and run by another program.
    pub fn start_in(
        home: &Path,
        name: &str,
        namesrv: &str,
        extra: &[&str],
        store: &Path,
        wrapper: Vec<String>,
    ) -> Broker {
        let port = free_port();
        let store = store.to_owned();
        let conf = home.join(format!("{name}.conf"));
        let mut text = format!(
            "brokerClusterName=DefaultCluster\nbrokerName={name}\nbrokerId=0\nbrokerIP1=127.0.0.1\nlistenPort={port}\nnamesrvAddr={namesrv}\n\
             storePathRootDir={}\nstorePathCommitLog={}\nmappedFileSizeCommitLog=16777216\nautoCreateTopicEnable=true\n\
             syncFlushTimeout=60000\nosPageCacheBusyTimeOutMills=60000\n",
            store.display(),
            store.join("commitlog").display()
        );
        for line in extra {
            text.push_str(line);
            text.push('\n');
        }
        std::fs::write(&conf, text).expect("temporary directory is writable");
        let process = Broker::launch(name, &conf, home, &wrapper);
        let mut broker = Broker { process, port, store, name: name.to_owned(), conf, home: home.to_owned(), wrapper };
        broker.await_up();
        broker
    }

    fn launch(name: &str, conf: &Path, home: &Path, wrapper: &[String]) -> Process {
        let mut command = wrapped(wrapper, program("mqbroker", env!("CARGO_BIN_EXE_mqbroker")));
        command.arg("-c").arg(conf).env("HOME", home);
        Process::start(name, &mut command)
    }

    fn await_up(&mut self) {
        self.process.wait_for_line("the broker is up", |line| line.contains("boot success"));
    }

    /// Starts it, and says whether it is up. What it says otherwise is on its stderr.
    pub fn try_start(&mut self) -> bool {
        self.process = Broker::launch(&self.name, &self.conf, &self.home, &self.wrapper);
        while let Some(line) = self.process.next_line() {
            if line.contains("boot success") {
                return true;
            }
        }
        self.process.wait_exit();
        false
    }

    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `mqadmin storeCheck` of what the stopped broker has left.
    pub fn store_check(&self, options: &[&str]) -> Finished {
        let mut command = wrapped(&self.wrapper, program("mqadmin", env!("CARGO_BIN_EXE_mqadmin")));
        run(command.arg("storeCheck").arg(&self.store).arg("-c").arg(&self.conf).args(options))
    }

    /// What the stopped broker has left holds together.
    pub fn assert_store_is_whole(&self) {
        let done = self.store_check(&[]);
        assert!(done.status.success(), "{}: {}{}", self.name, done.stdout, done.stderr);
    }

    /// SIGKILL, and a new process on the same directory and port.
    pub fn restart_hard(&mut self) {
        self.process.kill_hard();
        self.assert_store_is_whole();
        self.start_again();
    }

    /// SIGTERM, the orderly end, and a new process on the same directory and port.
    pub fn restart_clean(&mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "{} ended with {status}", self.name);
        self.assert_store_is_whole();
        self.start_again();
    }

    /// Starts it on its directory and kills it so soon that it is hardly up.
    pub fn start_and_kill_within(&mut self, moment: Duration) {
        self.process = Broker::launch(&self.name, &self.conf, &self.home, &self.wrapper);
        std::thread::sleep(moment);
        self.process.kill_hard();
    }

    pub fn start_again(&mut self) {
        self.process = Broker::launch(&self.name, &self.conf, &self.home, &self.wrapper);
        self.await_up();
    }
}

/// A nameserver and a broker of ours in a directory that goes with them.
pub struct Cluster {
    // Order matters: processes end before their directory is removed.
    pub broker: Broker,
    pub nameserver: Nameserver,
    pub home: tempfile::TempDir,
}

impl Cluster {
    pub fn start(extra: &[&str]) -> Cluster {
        let home = tempfile::tempdir().expect("a temporary directory");
        let nameserver = Nameserver::start(home.path());
        let broker = Broker::start(home.path(), "broker-a", &nameserver.addr(), extra);
        Cluster { broker, nameserver, home }
    }

    pub fn namesrv(&self) -> String {
        self.nameserver.addr()
    }
}

/// `mqadmin` of ours with arguments.
pub fn mqadmin(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("mqadmin", env!("CARGO_BIN_EXE_mqadmin")));
    command.args(arguments);
    command
}

/// Makes a topic in `DefaultCluster` and waits until clients can learn of it.
pub fn create_topic(namesrv: &str, topic: &str, queues: u32) {
    update_topic(namesrv, topic, queues, queues);
    await_route(namesrv, topic);
}

/// Makes or changes a topic in `DefaultCluster`.
pub fn update_topic(namesrv: &str, topic: &str, read_queues: u32, write_queues: u32) {
    let (read, write) = (read_queues.to_string(), write_queues.to_string());
    let done = run(&mut mqadmin(&[
        "updateTopic",
        "-n",
        namesrv,
        "-c",
        "DefaultCluster",
        "-t",
        topic,
        "-r",
        &read,
        "-w",
        &write,
    ]));
    assert!(done.status.success() && done.stdout.contains("success"), "{}{}", done.stdout, done.stderr);
}

/// Waits until the nameserver knows who serves a topic.
pub fn await_route(namesrv: &str, topic: &str) {
    await_condition(&format!("the route of {topic}"), || {
        run(&mut mqadmin(&["topicRoute", "-n", namesrv, "-t", topic])).stdout.contains("brokerDatas").then_some(())
    });
}
