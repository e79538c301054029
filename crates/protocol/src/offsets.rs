//! Offsets and queue ids as types, so that one cannot be taken for another.
//!
//! On the wire `-1` means "none"; that becomes `Option` at the codec.

use std::fmt;

/// Byte position in the commit log, counted from the first byte the broker ever wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalOffset(pub u64);

impl PhysicalOffset {
    /// The value as Java's signed long, which is what the wire and records carry.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// Where the mapped file that holds this byte begins. `file_len` is in bytes; 0 gives the offset itself.
    #[must_use]
    pub fn file_start(self, file_len: u64) -> Self {
        Self(self.0 - self.0.checked_rem(file_len).unwrap_or(0))
    }
}

/// Moves on by a number of bytes; stays at `u64::MAX` instead of wrapping.
impl std::ops::Add<u64> for PhysicalOffset {
    type Output = Self;

    fn add(self, len: u64) -> Self {
        Self(self.0.saturating_add(len))
    }
}

/// Refuses what the wire may carry and a log may not have.
impl TryFrom<i64> for PhysicalOffset {
    type Error = std::num::TryFromIntError;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        u64::try_from(value).map(Self)
    }
}

/// Bytes between two positions; 0 when the right one is ahead.
impl std::ops::Sub for PhysicalOffset {
    type Output = u64;

    fn sub(self, from: Self) -> u64 {
        self.0.saturating_sub(from.0)
    }
}

impl fmt::Display for PhysicalOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Entry number in a consume queue. Java also says "logic offset".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct QueueOffset(pub u64);

impl QueueOffset {
    /// The entry after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The value as Java's signed long, which is what the wire and records carry.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// Refuses what the wire may carry and a queue may not have.
impl TryFrom<i64> for QueueOffset {
    type Error = std::num::TryFromIntError;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        u64::try_from(value).map(Self)
    }
}

impl std::ops::Add<u64> for QueueOffset {
    type Output = Self;

    fn add(self, entries: u64) -> Self {
        Self(self.0.saturating_add(entries))
    }
}

/// Entries between two offsets; 0 when the right one is ahead.
impl std::ops::Sub for QueueOffset {
    type Output = u64;

    fn sub(self, from: Self) -> u64 {
        self.0.saturating_sub(from.0)
    }
}

impl fmt::Display for QueueOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a queue within a topic on one broker, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct QueueId(pub u32);

impl QueueId {
    /// The value as Java's signed int, which is what the wire and records carry.
    pub fn as_i32(self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }
}

/// Refuses what the wire may carry and a topic may not have.
impl TryFrom<i32> for QueueId {
    type Error = std::num::TryFromIntError;

    fn try_from(value: i32) -> Result<Self, Self::Error> {
        u32::try_from(value).map(Self)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_start_rounds_down() {
        assert_eq!(PhysicalOffset(2500).file_start(1000), PhysicalOffset(2000));
        assert_eq!(PhysicalOffset(2000).file_start(1000), PhysicalOffset(2000));
        assert_eq!(PhysicalOffset(7).file_start(0), PhysicalOffset(7));
    }

    #[test]
    fn arithmetic_does_not_wrap() {
        assert_eq!(PhysicalOffset(u64::MAX) + 1, PhysicalOffset(u64::MAX));
        assert_eq!(PhysicalOffset(1) - PhysicalOffset(2), 0);
        assert_eq!(QueueOffset(u64::MAX).as_i64(), i64::MAX);
    }
}
