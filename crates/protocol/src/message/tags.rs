//! Hashes that Java fixed for us: the tags code of a consume queue entry and the key hash of an index entry.
//!
//! Both are `String.hashCode`: over UTF-16 units, wrapping in 32 bits.

/// Java's `String.hashCode`: `h = 31·h + unit` over UTF-16 units, wrapping.
pub fn java_string_hash(text: &str) -> i32 {
    extend_hash(0, text)
}

/// Continues [`java_string_hash`] of an earlier part with `text`, as if both were one string.
fn extend_hash(start: i32, text: &str) -> i32 {
    if text.is_ascii() {
        // Bytes are the UTF-16 units then.
        return text.bytes().fold(start, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    }
    text.encode_utf16().fold(start, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// What a consume queue entry keeps of the TAGS property: its hash, sign-extended. No tag (empty) is 0.
/// Java: MessageExtBrokerInner.tagsString2tagsCode.
pub fn tags_code(tags: &str) -> i64 {
    i64::from(java_string_hash(tags))
}

/// Hash of the index key `topic#key` without building the string. Never negative. Java: IndexFile.indexKeyHashMethod,
/// where the one hash without a positive counterpart becomes 0.
pub fn index_key_hash(topic: &str, key: &str) -> i32 {
    let hash = extend_hash(extend_hash(extend_hash(0, topic), "#"), key);
    hash.checked_abs().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_vectors() {
        for (tags, code) in [
            ("TagA", 2_598_919),
            ("TagB", 2_598_920),
            ("TagC", 2_598_921),
            ("*", 42),
            ("订单", 1_129_459),
            ("polygenelubricants", -2_147_483_648),
            ("", 0),
        ] {
            assert_eq!(tags_code(tags), code, "{tags}");
        }
        assert_eq!(tags_code("polygenelubricants").to_be_bytes(), [255, 255, 255, 255, 128, 0, 0, 0]);
    }

    #[test]
    fn units_beyond_the_basic_plane_count_twice() {
        // U+1F600 is D83D DE00 in UTF-16.
        assert_eq!(java_string_hash("\u{1F600}"), 0xD83D * 31 + 0xDE00);
    }

    #[test]
    fn index_vectors() {
        assert_eq!(index_key_hash("TopicA", "order-42"), 375_142_830);
        assert_eq!(java_string_hash("TopicA#key-0"), -1_577_233_007);
        assert_eq!(index_key_hash("TopicA", "key-0"), 1_577_233_007);
        assert_eq!(extend_hash(java_string_hash("polygene"), "lubricants"), i32::MIN);
    }
}
