//! The reference: Java's own nameserver and broker 5.3.3 on free ports.

use std::path::PathBuf;

use crate::cluster::{await_route, free_port};
use crate::driver::interop;
use crate::process::{await_condition, run};

/// What keeps the broker from calling a machine slow that other work keeps busy.
const PATIENT: [&str; 5] = [
    "syncFlushTimeout=60000",
    "osPageCacheBusyTimeOutMills=60000",
    "waitTimeMillsInSendQueue=60000",
    "waitTimeMillsInPullQueue=60000",
    "waitTimeMillsInTransactionQueue=60000",
];

/// A Java nameserver and broker, ended with the value.
pub struct JavaServer {
    home: tempfile::TempDir,
    /// The one that the broker is registered with.
    pub namesrv: String,
    /// What follows the directory on the command line: ports and lines of the broker.conf.
    arguments: Vec<String>,
}

impl JavaServer {
    /// Waits until both answer. `lines` are added to the broker.conf.
    pub fn start(lines: &[String]) -> JavaServer {
        let server = JavaServer::not_started(lines);
        server.start_what_is_not_running();
        server
    }

    fn not_started(lines: &[String]) -> JavaServer {
        let home = tempfile::tempdir().expect("a temporary directory");
        let (namesrv, broker) = (free_port(), free_port());
        let mut arguments = vec![namesrv.to_string(), broker.to_string()];
        arguments.extend(PATIENT.map(str::to_owned));
        arguments.extend_from_slice(lines);
        JavaServer { home, namesrv: format!("127.0.0.1:{namesrv}"), arguments }
    }

    /// A slave of the broker of ours, which is called `broker-a` and is the master; both know that nameserver. The Java nameserver beside it
    /// has nothing to do.
    pub fn slave_of(namesrv: &str, lines: &[String]) -> JavaServer {
        let own = ["brokerRole=SLAVE".to_owned(), "brokerId=1".to_owned(), format!("namesrvAddr={namesrv}")];
        let mut server = JavaServer::not_started(&[&own, lines].concat());
        server.namesrv = namesrv.to_owned();
        server.start_what_is_not_running();
        server
    }

    /// A file of the store.
    pub fn file(&self, path: &str) -> PathBuf {
        self.home.path().join("store").join(path)
    }

    pub fn broker_addr(&self) -> String {
        format!("127.0.0.1:{}", self.arguments[1])
    }

    pub fn broker_log(&self) -> String {
        let log = self.home.path().join("logs/rocketmqlogs/broker.log");
        std::fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()))
    }

    fn start_what_is_not_running(&self) {
        let done = run(interop("java-server").arg("start").arg(self.home.path()).args(&self.arguments));
        assert!(done.status.success(), "java-server: {}{}", done.stdout, done.stderr);
        // A Java broker says that it is up before the nameserver knows it; a topic of the cluster's name is always there.
        await_route(&self.namesrv, "DefaultCluster");
    }

    /// SIGKILL to the broker, and a new one on the same directory and port.
    pub fn restart_broker_hard(&mut self) {
        let text = std::fs::read_to_string(self.home.path().join("broker.pid")).expect("java-server wrote it");
        let raw = text.trim().parse().expect("a process id");
        let pid = rustix::process::Pid::from_raw(raw).expect("not zero");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the broker runs");
        await_condition("the end of the Java broker", || {
            // A process that has ended but was not reaped yet has an empty command line.
            let words = std::fs::read(format!("/proc/{raw}/cmdline")).unwrap_or_default();
            words.is_empty().then_some(())
        });
        self.start_what_is_not_running();
    }
}

impl Drop for JavaServer {
    fn drop(&mut self) {
        run(interop("java-server").arg("stop").arg(self.home.path()));
    }
}
