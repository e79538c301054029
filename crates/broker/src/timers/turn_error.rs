//! Why a turn of the timers' thread ends early.

use std::io;

use ferromq_store::AppendError;

#[derive(Debug, thiserror::Error)]
pub(super) enum TurnError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the timer index: {0}")]
    Index(#[from] io::Error),
    /// No more is entered.
    #[error("the disk has no room for the timers' files, and in memory there are as many as may be")]
    NoRoom,
}
