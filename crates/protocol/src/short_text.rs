//! Looking for a byte in text that is mostly shorter than what a vector search costs to begin: names, numbers, values of properties.

/// Where the first `one` or `other` is, eight bytes at a time.
#[inline]
pub(crate) fn first_of(one: u8, other: u8, bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_be_bytes([0x7f; 8]);
    // 0x80 in every byte that is zero, and nothing anywhere else.
    let zeros = |word: u64| !(((word & LOW) + LOW) | word | LOW);
    let ones = u64::from_be_bytes([one; 8]);
    let others = u64::from_be_bytes([other; 8]);
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (number, chunk) in chunks.iter().enumerate() {
        let word = u64::from_be_bytes(*chunk);
        let hits = zeros(word ^ ones) | zeros(word ^ others);
        if hits != 0 {
            return Some(number * 8 + hits.leading_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == one || *byte == other)?;
    Some(chunks.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_first_is_found(bytes in proptest::collection::vec(proptest::prop_oneof![0u8..4, 0x7e..=0x83u8, 0u8..=255], 0..40), one: u8, same: bool) {
            let (one, other) = (if same { 1 } else { one }, if same { 1 } else { 0x80 });
            let expected = bytes.iter().position(|byte| *byte == one || *byte == other);
            proptest::prop_assert_eq!(first_of(one, other, &bytes), expected);
        }
    }
}
