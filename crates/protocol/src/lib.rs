//! Bytes <-> types of the RocketMQ remoting protocol and of the message record.
//!
//! No I/O, no async, no clock, no configuration. Everything here takes bytes and gives values, or the other way
//! round; bad bytes are errors, never panics. Integers on the wire and in records are big-endian, always.
//!
//! - [`decode_frame`] splits one [`Command`] off a read buffer without copying.
//! - [`Command::header`] reads a typed header (module [`header`]) straight from the frame's bytes.
//! - [`Reply`] is what a handler answers.
//! - [`message`] holds the stored record, properties, batches and message ids; [`body`] the JSON bodies.
//! - [`ha`] is the stream between a master and its slaves, which has no frames.
#![forbid(unsafe_code)]
#![warn(clippy::little_endian_bytes, clippy::host_endian_bytes)]

// The derive writes paths that start at `::ferromq_protocol`; this lets it be used inside the crate too.
extern crate self as ferromq_protocol;

mod binary_fields;
mod binary_header;
mod code;
mod command;
mod fields;
mod frame;
mod frame_error;
mod head;
mod json_fields;
mod json_header;
mod language;
mod names;
mod offsets;
mod reply;
mod serialization;
mod short_text;
mod version;

pub mod body;
pub mod ha;
pub mod header;
pub mod json;
pub mod message;
pub mod topics;

pub use bytestring::ByteString;
pub use code::{RequestCode, ResponseCode};
pub use command::{Command, decode_frame};
pub use ferromq_protocol_derive::Header;
#[doc(hidden)]
pub use fields::derive;
pub use fields::{
    DecodeFields, EncodeFields, FieldIter, FieldText, FieldValue, FieldWriter, Fields, HeaderError, NoFields,
    UnreadableValue,
};
pub use frame::{BODY_LEN_MAX, FRAME_LEN_MAX};
pub use frame_error::{FrameError, HEADER_LEN_MAX};
pub use head::{Flags, RequestId};
pub use language::Language;
pub use names::{GroupName, NameError, TopicName};
pub use offsets::{PhysicalOffset, QueueId, QueueOffset};
pub use reply::Reply;
pub use serialization::Serialization;
pub use version::{VERSION, version_name};
