//! Brokers under conditions that nobody wants, each followed by an audit from outside: a client that knows every answer it was given looks for
//! what was lost, doubled, changed, moved, early, or never sent.
//!
//! Spoken to by a client of our own (`wire`), which waits for nothing and needs no nameserver, so that a kill takes a second. The same things with
//! the official clients are in `crash` and `retention`.

mod audit;
mod damaged_starts;
mod full_disk;
mod kills;
mod load;
mod wire;

/// A number that the environment may set.
fn of_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
