//! FerroMQ's nameserver: which brokers hold which topics, and a little key-value configuration.
//!
//! [`Nameserver::start`] composes it from three parts that each own one piece of state: the route table (`routes/`), the key-value
//! configuration (`kv.rs`) and its own configuration (`live_config.rs`). `dispatch.rs` has one line per request code, `handlers/` the functions
//! behind those lines. Reaches the network only through `ferromq_remoting`. Java: `rocketmq-namesrv`.

#![forbid(unsafe_code)]

mod config;
mod dispatch;
mod handlers;
mod kv;
mod live_config;
mod nameserver;
mod parts;
mod refusal;
mod routes;

pub use config::Config;
pub use ferromq_config::LoadError;
pub use ferromq_config::{ConfigError, Configuration, LoadedConfig};
pub use nameserver::{Nameserver, StartError};
