//! Why a broker does not start.

use std::io;
use std::path::PathBuf;

use ferromq_config::InvalidValue;
use ferromq_remoting::BindError;
use ferromq_store::{OpenError, ReadError};

use crate::persistence::TableError;

/// Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] InvalidValue),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Tables(#[from] TableError),
    #[error(
        "{bind}. Stop the process that has the port, or set listenPort to another one (the fast port is two below it)"
    )]
    Port { bind: BindError },
    #[error("{bind}. Stop the process that has the port for slaves, or set haListenPort to another one")]
    HaPort { bind: BindError },
    #[error("brokerIP1 is `{host}`, which names no address: {reason}")]
    Address { host: String, reason: String },
    #[error("cannot use {}, where messages for a given time are kept track of: {source}. Put right what is wrong there; if it cannot be, move it away: it is made again from the messages that wait, and those past their time that the log still has are delivered again", path.display())]
    Timers { path: PathBuf, source: io::Error },
    #[error("cannot find out which transactions are open: {0}. Start again when it can be read")]
    Transactions(#[source] ReadError),
    #[error(
        "the queues do not have all of the log, so what waits in them is not known. See why they cannot be written or the log is not on the disk, and start again"
    )]
    NotDispatched,
    #[error("cannot make the log a copy: {0}")]
    Writer(#[source] ReadError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl From<BindError> for StartError {
    fn from(bind: BindError) -> StartError {
        StartError::Port { bind }
    }
}
