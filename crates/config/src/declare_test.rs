//! What a declared config does with files, changes and listings.

use std::path::PathBuf;

use crate::{Configuration, config_enum};

config_enum! {
    /// Flush before or after the answer.
    pub enum Flush {
        After = "ASYNC_FLUSH",
        Before = "SYNC_FLUSH",
    }
}

config! {
    /// Sample.
    pub struct Sample {
        /// Port.
        /// Where to listen.
        "listenPort" => listen_port: u16 = 9876,
        "ratio" in 10..=95 => ratio: u32 = 75,
        "flushDiskType" => flush: Flush = Flush::After,
        "home" => home: Option<PathBuf> = None,
    }
    inert {
        "threads" => 8,
        "fast" => true,
        "plugin" => "",
        "unset" => None,
    }
}

fn parse(text: &str) -> crate::LoadedConfig<Sample> {
    Sample::parse(text, "x.conf".as_ref()).unwrap()
}

fn error(text: &str) -> String {
    Sample::parse(text, "x.conf".as_ref()).unwrap_err().to_string()
}

#[test]
fn defaults_are_listed_sorted_and_without_unset_keys() {
    assert_eq!(
        Sample::default().to_properties(),
        "fast=true\nflushDiskType=ASYNC_FLUSH\nlistenPort=9876\nplugin=\nratio=75\nthreads=8\n"
    );
}

#[test]
fn later_key_wins_and_values_are_trimmed() {
    let loaded = parse("listenPort=1  \nlistenPort = 2\t\nhome=/x y \n");
    assert_eq!(loaded.config.listen_port, 2);
    assert_eq!(loaded.config.home, Some("/x y".into()));
}

#[test]
fn errors_name_file_line_key_and_remedy() {
    assert_eq!(
        error("\nlistenPort=port"),
        "x.conf:2: listenPort is `port`, but must be a whole number from 0 to 65535"
    );
    assert_eq!(error("ratio=5"), "x.conf:1: ratio is `5`, but must be a whole number from 10 to 95");
    assert_eq!(error("flushDiskType=sync"), "x.conf:1: flushDiskType is `sync`, but must be ASYNC_FLUSH or SYNC_FLUSH");
    assert_eq!(error("a=\\uX"), "x.conf:1: `\\u` must be followed by four hexadecimal digits");
    assert_eq!(
        parse("a=1\nratio=80").refuse("ratio", "below 80 with this disk").to_string(),
        "x.conf:2: ratio is `80`, but must be below 80 with this disk"
    );
    assert_eq!(parse("").refuse("ratio", "80").to_string(), "ratio is `75`, but must be 80");
    let missing = Sample::load("no/such/file".as_ref()).unwrap_err().to_string();
    assert!(missing.starts_with("no/such/file: cannot be read: "), "{missing}");
}

#[test]
fn change_is_all_or_nothing_and_skips_unknown_keys() {
    let mut config = Sample::default();
    assert_eq!(
        config
            .apply(&[("ratio", "80"), ("noSuchKey", "1"), ("threads", "9"), ("listenPort", "9876"), ("home", "/h")])
            .unwrap(),
        ["home", "ratio", "threads"]
    );
    assert_eq!((config.ratio, config.passive.unknown.len()), (80, 0));
    let before = config.clone();
    assert_eq!(config.apply(&[("ratio", "70"), ("listenPort", "x")]).unwrap_err().key, "listenPort");
    assert_eq!(config, before);
}

#[test]
fn declarations_carry_docs_and_defaults() {
    let declarations = Sample::declarations();
    let port = &declarations[0];
    assert_eq!((port.key, &*port.doc, port.default.as_deref()), ("listenPort", "Port. Where to listen.", Some("9876")));
    assert_eq!(declarations[1].allowed.as_deref(), Some("a whole number from 10 to 95"));
    let threads = declarations.iter().find(|declaration| declaration.key == "threads").unwrap();
    assert_eq!((threads.allowed.as_deref(), threads.default.as_deref()), (None, Some("8")));
}
