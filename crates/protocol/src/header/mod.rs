//! Typed request and reply headers, one struct each, named after what they ask. Java: `CommandCustomHeader`s.
//!
//! Field names are Java's in snake case. Required is `T`, optional is `Option<T>` or has a default. The fields of Java's
//! common base classes (`ns`, `nsd`, `bname`, `oway`, `lo`) are no part of them: [`crate::Command::field`] reads them.

mod admin;
mod client;
mod group;
mod namesrv;
mod offset;
mod pull;
mod query;
mod send;
mod topic;

pub use admin::*;
pub use client::*;
pub use group::*;
pub use namesrv::*;
pub use offset::*;
pub use pull::*;
pub use query::*;
pub use send::*;
pub use topic::*;
