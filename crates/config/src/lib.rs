//! Configuration files with RocketMQ's keys: the `.properties` reader and the one declaration per key. Also what else programs are told by
//! people: command lines ([`command_line`]), and files that people may edit ([`read_saved`]).
//!
//! [`config!`] turns a list of keys into a struct with typed fields, its parser, the text that GET_NAMESRV_CONFIG and
//! GET_BROKER_CONFIG answer with, and the table for the docs ([`Configuration`]). Knows files, but no network and no clock.
//!
//! ```
//! use ferromq_config::{config, Configuration};
//!
//! config! {
//!     /// What a lamp can be told.
//!     pub struct LampConfig {
//!         /// Brightness in percent.
//!         "brightNess" in 1..=100 => brightness: u32 = 80,
//!         /// Where the lamp keeps its diary; nowhere if unset.
//!         "diaryPath" => diary_path: Option<std::path::PathBuf> = None,
//!     }
//!     // Keys of the old lamp that mean nothing here, with the default that it shows.
//!     inert {
//!         "wickLength" => 7,
//!     }
//! }
//!
//! let loaded = LampConfig::parse("# my lamp\nbrightNess = 20\nwickLength=9\ncolour=red\n", "lamp.conf".as_ref())?;
//! assert_eq!(loaded.config.brightness, 20);
//! assert_eq!((loaded.inert[0].line, &*loaded.inert[0].key), (3, "wickLength"));
//! assert_eq!((loaded.unknown[0].line, &*loaded.unknown[0].key), (4, "colour"));
//! assert_eq!(loaded.config.to_properties(), "brightNess=20\ncolour=red\nwickLength=9\n");
//!
//! let error = LampConfig::parse("brightNess = 300", "lamp.conf".as_ref()).unwrap_err();
//! assert_eq!(error.to_string(), "lamp.conf:1: brightNess is `300`, but must be a whole number from 1 to 100");
//! # Ok::<(), ferromq_config::ConfigError>(())
//! ```

#![forbid(unsafe_code)]

pub mod command_line;
mod declare;
mod file;
mod properties;
mod saved;
mod value;

pub use declare::{
    ConfigError, Configuration, Declaration, InertDefault, InvalidValue, KeyAt, KeyKind, LoadedConfig, Passive,
};
pub use file::replace_file;
pub use properties::{Entry, MalformedProperties, decode_text, parse_properties};
pub use saved::{LoadError, read_saved};
pub use value::{ConfigValue, home_dir, range_text};
