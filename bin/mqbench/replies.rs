//! The cheap way to read replies to sends: only the code and the opaque of each, straight from the JSON bytes.
//!
//! Servers write the members of a header in the same order and with the same tail every time, so where the opaque stood in
//! the last header is tried first; a search finds it anywhere else.

/// Longest reply to a send that makes sense.
const REPLY_LEN_MAX: usize = 16_777_216;

/// Code and opaque of one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedReply {
    pub code: i32,
    pub opaque: i32,
}

/// Why bytes are no reply.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAReply(pub &'static str);

/// Walks the replies in a read buffer.
#[derive(Default)]
pub struct ReplyScanner {
    /// Where `"opaque":` began in the last header, counted from its end.
    opaque_from_end: usize,
}

impl ReplyScanner {
    /// The first whole frame in `bytes` and its length; `None`: more bytes are needed.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<(ScannedReply, usize)>, NotAReply> {
        let Some((prefix, rest)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
        let total = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
        let header_len = u32::from_be_bytes([0, prefix[5], prefix[6], prefix[7]]) as usize;
        if total > REPLY_LEN_MAX || header_len + 4 > total {
            return Err(NotAReply("lengths that fit no frame"));
        }
        if prefix[4] != 0 {
            return Err(NotAReply("a header that is not JSON"));
        }
        if bytes.len() < total + 4 {
            return Ok(None);
        }
        // total >= header_len + 4, so `rest` holds the header.
        let header = &rest[..header_len];
        let code = member(header, b"\"code\":", 1).ok_or(NotAReply("a header without code"))?.0;
        let hint = header_len.wrapping_sub(self.opaque_from_end);
        let (opaque, at) = member(header, b"\"opaque\":", hint).ok_or(NotAReply("a header without opaque"))?;
        self.opaque_from_end = header_len - at;
        Ok(Some((ScannedReply { code, opaque }, total + 4)))
    }
}

/// The number after `name`, and where the name stands: at `hint`, or else at its last occurrence (a remark or field before it
/// could contain the same text).
fn member(header: &[u8], name: &[u8], hint: usize) -> Option<(i32, usize)> {
    let at = match header.get(hint..) {
        Some(there) if there.starts_with(name) => hint,
        _ => header.windows(name.len()).rposition(|window| window == name)?,
    };
    let digits = &header[at + name.len()..];
    let (negative, digits) = match digits.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, digits),
    };
    let mut value: i64 = 0;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()).take(11) {
        value = value * 10 + i64::from(digit - b'0');
    }
    i32::try_from(if negative { -value } else { value }).ok().map(|value| (value, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &str, body: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(((4 + header.len() + body.len()) as u32).to_be_bytes());
        frame.extend((header.len() as u32).to_be_bytes());
        frame.extend(header.as_bytes());
        frame.extend(body.as_bytes());
        frame
    }

    #[test]
    fn code_and_opaque_are_found_wherever_they_stand() {
        let mut scanner = ReplyScanner::default();
        for (header, code, opaque) in [
            (
                r#"{"code":0,"extFields":{"a":"b"},"flag":1,"language":"JAVA","opaque":1000000001,"serializeTypeCurrentRPC":"JSON","version":479}"#,
                0,
                1_000_000_001,
            ),
            (
                r#"{"code":0,"extFields":{"a":"longer"},"flag":1,"language":"JAVA","opaque":1000000002,"serializeTypeCurrentRPC":"JSON","version":479}"#,
                0,
                1_000_000_002,
            ),
            (r#"{"flag":1,"opaque":7,"code":-13,"remark":"x"}"#, -13, 7),
        ] {
            let bytes = frame(header, "body");
            let (scanned, len) = scanner.next(&bytes).expect("a reply").expect("a whole one");
            assert_eq!((scanned, len), (ScannedReply { code, opaque }, bytes.len()));
            assert_eq!(scanner.next(&bytes[..bytes.len() - 1]), Ok(None));
        }
        assert_eq!(scanner.next(&[0; 3]), Ok(None));
    }

    #[test]
    fn other_bytes_are_refused() {
        let mut scanner = ReplyScanner::default();
        assert!(scanner.next(b"HTTP/1.1 400 Bad Request").is_err());
        assert!(scanner.next(&frame("{}", "")).is_err());
    }
}
