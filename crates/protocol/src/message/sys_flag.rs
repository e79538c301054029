//! The sys flag of a message: what the broker and clients must know about it beside its bytes.
//!
//! Java: MessageSysFlag, CompressionType. Unknown bits are kept as they came.

use std::fmt;

/// Bit set carried in every record and send header (Java: `MessageSysFlag`). Bits this type does not know survive untouched.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SysFlag(pub i32);

/// Bits 2–3: what part a record plays in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionKind {
    /// An ordinary message.
    None,
    /// A half message: stored, not visible to consumers.
    Prepared,
    /// The real message after a commit; visible like an ordinary one.
    Commit,
    /// The mark of a rollback; never visible.
    Rollback,
}

/// How a compressed body is compressed (bits 8–10). Clients before 5.0 leave the bits zero and mean zlib.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    Lz4,
    Zstd,
    Zlib,
}

impl SysFlag {
    pub const COMPRESSED: i32 = 0x1;
    pub const MULTI_TAGS: i32 = 0x2;
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    pub const TRANSACTION_MASK: i32 = 0xC;
    pub const BORN_HOST_V6: i32 = 0x10;
    pub const STORE_HOST_V6: i32 = 0x20;
    pub const NEED_UNWRAP: i32 = 0x40;
    pub const INNER_BATCH: i32 = 0x80;
    pub const COMPRESSION_LZ4: i32 = 0x100;
    pub const COMPRESSION_ZSTD: i32 = 0x200;
    pub const COMPRESSION_ZLIB: i32 = 0x300;
    pub const COMPRESSION_MASK: i32 = 0x700;

    /// Whether every bit of `mask` is set.
    pub const fn has(self, mask: i32) -> bool {
        self.0 & mask == mask
    }

    /// The flag with every bit of `mask` set.
    #[must_use]
    pub const fn with(self, mask: i32) -> SysFlag {
        SysFlag(self.0 | mask)
    }

    /// The flag with every bit of `mask` cleared.
    #[must_use]
    pub const fn without(self, mask: i32) -> SysFlag {
        SysFlag(self.0 & !mask)
    }

    pub const fn is_compressed(self) -> bool {
        self.has(Self::COMPRESSED)
    }

    /// How to decompress the body, or `None` when it is not compressed. `None` too for a kind nobody defined.
    pub const fn compression(self) -> Option<Compression> {
        if !self.is_compressed() {
            return None;
        }
        match self.0 & Self::COMPRESSION_MASK {
            Self::COMPRESSION_LZ4 => Some(Compression::Lz4),
            Self::COMPRESSION_ZSTD => Some(Compression::Zstd),
            0 | Self::COMPRESSION_ZLIB => Some(Compression::Zlib),
            _ => None,
        }
    }

    pub const fn transaction(self) -> TransactionKind {
        match self.0 & Self::TRANSACTION_MASK {
            Self::TRANSACTION_PREPARED => TransactionKind::Prepared,
            Self::TRANSACTION_COMMIT => TransactionKind::Commit,
            Self::TRANSACTION_ROLLBACK => TransactionKind::Rollback,
            _ => TransactionKind::None,
        }
    }

    /// The flag with its transaction bits replaced. Java: MessageSysFlag.resetTransactionValue.
    #[must_use]
    pub const fn with_transaction(self, kind: TransactionKind) -> SysFlag {
        let bits = match kind {
            TransactionKind::None => 0,
            TransactionKind::Prepared => Self::TRANSACTION_PREPARED,
            TransactionKind::Commit => Self::TRANSACTION_COMMIT,
            TransactionKind::Rollback => Self::TRANSACTION_ROLLBACK,
        };
        self.without(Self::TRANSACTION_MASK).with(bits)
    }

    /// Whether a record with this flag gets a consume queue entry and a queue offset. Java: `CommitLogDispatcherBuildConsumeQueue`.
    pub const fn is_visible(self) -> bool {
        matches!(self.transaction(), TransactionKind::None | TransactionKind::Commit)
    }
}

impl fmt::Debug for SysFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SysFlag({:#x})", self.0)
    }
}

impl From<i32> for SysFlag {
    fn from(bits: i32) -> SysFlag {
        SysFlag(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_bits_replace_each_other() {
        let flag = SysFlag(0x1 | 0x1000_0000).with_transaction(TransactionKind::Prepared);
        assert_eq!(flag.transaction(), TransactionKind::Prepared);
        assert!(!flag.is_visible());
        let flag = flag.with_transaction(TransactionKind::Commit);
        assert_eq!(flag, SysFlag(0x1000_0009));
        assert!(flag.is_visible());
        assert_eq!(flag.with_transaction(TransactionKind::None), SysFlag(0x1000_0001));
    }

    #[test]
    fn zero_compression_type_means_zlib() {
        assert_eq!(SysFlag(0).compression(), None);
        assert_eq!(SysFlag(0x300).compression(), None);
        assert_eq!(SysFlag(0x1).compression(), Some(Compression::Zlib));
        assert_eq!(SysFlag(0x101).compression(), Some(Compression::Lz4));
        assert_eq!(SysFlag(0x201).compression(), Some(Compression::Zstd));
        assert_eq!(SysFlag(0x301).compression(), Some(Compression::Zlib));
        assert_eq!(SysFlag(0x401).compression(), None);
    }
}
