//! Brokers under conditions that nobody wants, each followed by an audit from outside: a client that knows every answer it was given looks for
//! what was lost, doubled, changed, moved, early, or never sent.
//!
//! Spoken to by a client of our own (`wire`), which waits for nothing and needs no nameserver, so that a kill takes a second. The same things with
//! the official clients are in `crash` and `retention`.

mod audit;
mod bad_disk;
mod damaged_starts;
mod full_disk;
mod kills;
mod load;
mod pool_window;
mod small_disk;
pub mod wire;

/// Of brokers that delete all the time, and are read without the limits of a pull.
const SETTINGS: [&str; 10] = [
    "mappedFileSizeConsumeQueue=4000",
    "maxHashSlotNum=1000",
    "maxIndexNum=4000",
    "cleanResourceInterval=10",
    "deleteCommitLogFilesInterval=0",
    "messageDelayLevel=1s 2s",
    "maxTransferCountOnMessageInMemory=1000",
    "maxTransferBytesOnMessageInMemory=1000000",
    "maxTransferCountOnMessageInDisk=1000",
    "maxTransferBytesOnMessageInDisk=1000000",
];

/// A number that the environment may set.
fn of_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
