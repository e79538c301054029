//! The two ways a header is written.

/// How a header is written. Java: `SerializeType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serialization {
    #[default]
    Json,
    /// Java calls it `ROCKETMQ`.
    Binary,
}

impl Serialization {
    /// The top byte of the header word.
    pub(crate) fn type_byte(self) -> u32 {
        match self {
            Serialization::Json => 0,
            Serialization::Binary => 1,
        }
    }
}
