//! The reference: Java's own nameserver and broker 5.3.3 on free ports.

use crate::cluster::free_port;
use crate::driver::interop;
use crate::process::run;

/// A Java nameserver and broker, ended with the value.
pub struct JavaServer {
    home: tempfile::TempDir,
    pub namesrv: String,
}

impl JavaServer {
    /// Waits until both answer. `lines` are added to the broker.conf.
    pub fn start(lines: &[String]) -> JavaServer {
        let home = tempfile::tempdir().expect("a temporary directory");
        let (namesrv, broker) = (free_port(), free_port());
        let mut command = interop("java-server");
        command.arg("start").arg(home.path()).arg(namesrv.to_string()).arg(broker.to_string()).args(lines);
        let done = run(&mut command);
        assert!(done.status.success(), "java-server: {}{}", done.stdout, done.stderr);
        JavaServer { home, namesrv: format!("127.0.0.1:{namesrv}") }
    }
}

impl Drop for JavaServer {
    fn drop(&mut self) {
        run(interop("java-server").arg("stop").arg(self.home.path()));
    }
}
