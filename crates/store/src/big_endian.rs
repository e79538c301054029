//! Fields in bytes that were read from a file and are long enough for them.

/// The four bytes at `at`.
pub fn word_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

/// The eight bytes at `at`.
pub fn long_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(word_at(bytes, at)) << 32 | u64::from(word_at(bytes, at + 4))
}
