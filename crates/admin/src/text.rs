//! Value formats of the tool's output: times, permissions, cut columns, and Java's hash map order.

use jiff::{Timestamp, tz::TimeZone};

/// `yyyy-MM-dd HH:mm:ss,SSS` in the local zone. Java: `UtilAll.timeMillisToHumanString2`.
pub fn time_with_millis(ms: i64) -> String {
    format_time(ms, "%Y-%m-%d %H:%M:%S,%3f")
}

/// `yyyy-MM-dd HH:mm:ss` in the local zone.
pub fn time_of_day(ms: i64) -> String {
    format_time(ms, "%Y-%m-%d %H:%M:%S")
}

fn format_time(ms: i64, pattern: &str) -> String {
    match Timestamp::from_millisecond(ms) {
        // strftime's %3f keeps the dot of the fraction out of the text, as the pattern has its own separator.
        Ok(time) => time.to_zoned(TimeZone::system()).strftime(pattern).to_string(),
        Err(_) => ms.to_string(),
    }
}

/// Milliseconds since 1970 of `yyyy-MM-dd#HH:mm:ss:SSS` in the local zone, or of plain digits.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    let (whole, millis) = text.rsplit_once(':')?;
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d#%H:%M:%S", whole).ok()?;
    let millis: i64 = millis.parse().ok().filter(|ms| (0..1000).contains(ms))?;
    Some(time.to_zoned(TimeZone::system()).ok()?.timestamp().as_millisecond() + millis)
}

/// The first `columns` characters: some columns are cut before they are padded.
pub fn cut(text: &str, columns: usize) -> &str {
    text.char_indices().nth(columns).map_or(text, |(at, _)| &text[..at])
}

/// `RW-`, as `PermName.perm2String`.
pub fn permission(perm: i32) -> String {
    [(4, 'R'), (2, 'W'), (1, 'X')].iter().map(|(bit, letter)| if perm & bit != 0 { *letter } else { '-' }).collect()
}

/// `{a=1, b=2}` in the order in which a Java `HashMap` of that initial capacity would list the entries.
pub fn java_map(entries: &[(&str, &str)], initial_capacity: usize) -> String {
    let entries = java_hash_order(entries, initial_capacity, |entry| entry.0);
    let items: Vec<String> = entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", items.join(", "))
}

/// Entries in the iteration order of `java.util.HashMap`: by bucket, then by insertion.
pub fn java_hash_order<T: Clone>(entries: &[T], initial_capacity: usize, key: impl Fn(&T) -> &str) -> Vec<T> {
    let mut buckets = initial_capacity.next_power_of_two().max(1);
    while entries.len() * 4 > buckets * 3 {
        buckets *= 2;
    }
    let bucket = |entry: &T| {
        let hash = ferromq_protocol::message::tags::java_string_hash(key(entry)) as u32;
        (hash ^ (hash >> 16)) as usize & (buckets - 1)
    };
    let mut sorted = entries.to_vec();
    sorted.sort_by_key(bucket);
    sorted
}

/// A body as Java's `Arrays.toString(byte[])` prints it.
pub fn java_bytes(body: &[u8]) -> String {
    let items: Vec<String> = body.iter().map(|byte| (*byte as i8).to_string()).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_in_the_order_of_the_java_tool() {
        // Captured from queryMsgById of 5.3.3; names that share a bucket come in the order in which they are stored.
        let entries = [
            ("UNIQ_KEY", "FD"),
            ("TAGS", "TagA"),
            ("KEYS", "order-3"),
            ("WAIT", "true"),
            ("MSG_REGION", "DefaultRegion"),
            ("TRACE_ON", "true"),
            ("CLUSTER", "DefaultCluster"),
        ];
        assert_eq!(
            java_map(&entries, 128),
            "{MSG_REGION=DefaultRegion, UNIQ_KEY=FD, CLUSTER=DefaultCluster, TAGS=TagA, KEYS=order-3, WAIT=true, TRACE_ON=true}"
        );
    }

    #[test]
    fn times_go_both_ways() {
        let ms = 1_795_220_275_664;
        let text = time_with_millis(ms);
        assert!(text.ends_with(",664"), "{text}");
        let argument = format!("{}#{}:664", &text[..10], &text[11..19]);
        assert_eq!(parse_time(&argument), Some(ms));
        assert_eq!(parse_time("1795220275664"), Some(ms));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn permissions_and_cuts() {
        assert_eq!(permission(6), "RW-");
        assert_eq!(permission(7), "RWX");
        assert_eq!(permission(0), "---");
        assert_eq!(cut("broker-a", 6), "broker");
        assert_eq!(cut("äöü", 2), "äö");
        assert_eq!(java_bytes(b"Hi\xff"), "[72, 105, -1]");
    }
}
