//! Send requests encoded once and patched in place: a ring of equal frames in one piece of memory.
//!
//! Only the numbers that differ are overwritten per message (opaque, queue, born time, unique keys), all of fixed width, so a
//! message costs its patching and nothing else, and many leave with one write.

/// First opaque; all have ten digits.
pub const OPAQUE_BASE: u32 = 1_000_000_000;

/// Digits of the opaque, of the born timestamp in milliseconds, and of the counting part of a unique key.
const OPAQUE_DIGITS: usize = 10;
const BORN_DIGITS: usize = 13;
const KEY_DIGITS: usize = 16;

/// The first bytes of a body, when there is room for them: a mark, and when the message was due, in nanoseconds since 1970. The born
/// time in the header has only milliseconds.
pub const STAMP_MARK: [u8; 8] = *b"mqbench\x01";
pub const STAMP_LEN: usize = 16;

/// What all frames of a ring have in common.
pub struct Shape<'a> {
    pub topic: &'a str,
    pub group: &'a str,
    /// Queues wished for when the topic is created by this send.
    pub queues_wished: u32,
    /// Queue ids used: 0 until this.
    pub queues: u32,
    pub body_len: usize,
    /// Messages per request; more than one makes a batch.
    pub batch: usize,
    /// Sixteen hex digits that no other connection uses: the first half of the unique keys.
    pub key_prefix: u64,
}

/// The frames, and which of them wait to be written.
pub struct FrameRing {
    bytes: Vec<u8>,
    frame_len: usize,
    count: usize,
    spots: Spots,
    queues: u32,
    /// Frames prepared since the beginning; the next one stands at this modulo `count`.
    prepared: u64,
    taken: u64,
}

/// Where the numbers stand in a frame.
#[derive(Default)]
struct Spots {
    opaque: usize,
    queue: usize,
    queue_digits: usize,
    born: usize,
    keys: Vec<usize>,
    /// Behind the mark.
    stamps: Vec<usize>,
}

impl FrameRing {
    /// A ring of `count` frames: as many can be prepared before they must be written.
    pub fn new(shape: &Shape<'_>, count: usize) -> Self {
        let (frame, spots) = encode(shape);
        let frame_len = frame.len();
        Self { bytes: frame.repeat(count), frame_len, count, spots, queues: shape.queues, prepared: 0, taken: 0 }
    }

    /// Length of one frame in bytes.
    pub fn frame_len(shape: &Shape<'_>) -> usize {
        encode(shape).0.len()
    }

    /// Readies the next frame; `born_ns` is in nanoseconds since 1970. At most `count` may be ready at a time.
    pub fn prepare(&mut self, opaque: u32, born_ns: u64) {
        assert!(self.prepared - self.taken < self.count as u64, "the ring is full");
        let number = self.prepared;
        let start = (number % self.count as u64) as usize * self.frame_len;
        let frame = &mut self.bytes[start..start + self.frame_len];
        let spots = &self.spots;
        digits(&mut frame[spots.opaque..][..OPAQUE_DIGITS], u64::from(opaque));
        digits(&mut frame[spots.queue..][..spots.queue_digits], number % u64::from(self.queues));
        digits(&mut frame[spots.born..][..BORN_DIGITS], born_ns / 1_000_000);
        for stamp in &spots.stamps {
            frame[*stamp..*stamp + 8].copy_from_slice(&born_ns.to_be_bytes());
        }
        for (item, key) in spots.keys.iter().enumerate() {
            hex(&mut frame[*key..][..KEY_DIGITS], number * spots.keys.len() as u64 + item as u64);
        }
        self.prepared += 1;
    }

    /// The bytes of all frames that are ready, in at most two pieces. They count as written.
    pub fn take(&mut self) -> (&[u8], &[u8]) {
        let ready = (self.prepared - self.taken) as usize;
        let first = (self.taken % self.count as u64) as usize;
        self.taken = self.prepared;
        let until_end = ready.min(self.count - first);
        let frames = |from: usize, count: usize| &self.bytes[from * self.frame_len..(from + count) * self.frame_len];
        (frames(first, until_end), frames(0, ready - until_end))
    }
}

fn encode(shape: &Shape<'_>) -> (Vec<u8>, Spots) {
    let is_batch = shape.batch > 1;
    let mut spots = Spots { queue_digits: (shape.queues.max(1) - 1).to_string().len(), ..Spots::default() };
    // The names were validated and need no escapes. Member order is Java's.
    let mut header = format!(
        r#"{{"code":{},"extFields":{{"a":"{}","b":"{}","c":"TBW102","d":"{}","e":""#,
        if is_batch { 320 } else { 310 },
        shape.group,
        shape.topic,
        shape.queues_wished
    );
    let blank = |text: &mut String, count: usize| {
        let at = text.len();
        text.extend(std::iter::repeat_n('0', count));
        at
    };
    spots.queue = blank(&mut header, spots.queue_digits);
    header.push_str(r#"","f":"0","g":""#);
    spots.born = blank(&mut header, BORN_DIGITS);
    header.push_str(r#"","h":"0","i":""#);
    if !is_batch {
        header.push_str(&format!(r"UNIQ_KEY\u0001{:016X}", shape.key_prefix));
        spots.keys.push(blank(&mut header, KEY_DIGITS));
        header.push_str(r"\u0002");
    }
    header.push_str(&format!(
        r#"WAIT\u0001true\u0002","j":"0","k":"false","m":"{is_batch}"}},"flag":0,"language":"JAVA","opaque":"#
    ));
    spots.opaque = blank(&mut header, OPAQUE_DIGITS);
    header.push_str(r#","serializeTypeCurrentRPC":"JSON","version":479}"#);

    let mut payload = vec![b'm'; shape.body_len];
    let stamped = payload.len() >= STAMP_LEN;
    if stamped {
        payload[..8].copy_from_slice(&STAMP_MARK);
    }
    let mut body = Vec::new();
    if is_batch {
        let properties_len = "UNIQ_KEY".len() + 1 + 16 + KEY_DIGITS + 1;
        for _ in 0..shape.batch {
            body.extend(((22 + payload.len() + properties_len) as u32).to_be_bytes());
            body.extend([0; 12]);
            body.extend((payload.len() as u32).to_be_bytes());
            spots.stamps.extend(stamped.then_some(8 + header.len() + body.len() + 8));
            body.extend(&payload);
            body.extend((properties_len as u16).to_be_bytes());
            body.extend(format!("UNIQ_KEY\u{1}{:016X}", shape.key_prefix).as_bytes());
            spots.keys.push(8 + header.len() + body.len());
            body.extend([b'0'; KEY_DIGITS]);
            body.push(2);
        }
    } else {
        spots.stamps.extend(stamped.then_some(8 + header.len() + 8));
        body = payload;
        spots.keys.iter_mut().for_each(|key| *key += 8);
    }
    spots.opaque += 8;
    spots.queue += 8;
    spots.born += 8;

    let mut frame = Vec::with_capacity(8 + header.len() + body.len());
    frame.extend(((4 + header.len() + body.len()) as u32).to_be_bytes());
    frame.extend((header.len() as u32).to_be_bytes());
    frame.extend(header.as_bytes());
    frame.extend(body);
    (frame, spots)
}

/// Fills `spot` with the decimal digits of `value`, zeros in front.
fn digits(spot: &mut [u8], mut value: u64) {
    for digit in spot.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn hex(spot: &mut [u8], mut value: u64) {
    for digit in spot.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use ferromq_protocol::header::SendRequest;
    use ferromq_protocol::{Command, FRAME_LEN_MAX, decode_frame};

    fn shape(batch: usize) -> Shape<'static> {
        Shape { topic: "T", group: "g", queues_wished: 4, queues: 12, body_len: 100, batch, key_prefix: 0xabc }
    }

    fn decoded(ring: &mut FrameRing) -> Vec<Command> {
        let (first, second) = ring.take();
        let mut bytes = BytesMut::from(first);
        bytes.extend_from_slice(second);
        let mut commands = Vec::new();
        while let Some(command) = decode_frame(&mut bytes, FRAME_LEN_MAX).expect("good frames") {
            commands.push(command);
        }
        assert!(bytes.is_empty());
        commands
    }

    #[test]
    fn frames_decode_to_what_was_patched_in_round_after_round() {
        let mut ring = FrameRing::new(&shape(1), 5);
        let mut number = 0;
        for round in 0..10 {
            for _ in 0..3 {
                ring.prepare(OPAQUE_BASE + number, (1_700_000_000_000 + u64::from(number)) * 1_000_000 + 7);
                number += 1;
            }
            let commands = decoded(&mut ring);
            assert_eq!(commands.len(), 3);
            for (at, command) in commands.iter().enumerate() {
                let expected = round * 3 + at as i32;
                assert_eq!(command.opaque, OPAQUE_BASE as i32 + expected);
                let header = command.header::<SendRequest>().expect("a send header");
                assert_eq!(&*header.topic, "T");
                assert_eq!(header.queue_id, expected % 12);
                assert_eq!(header.born_timestamp, 1_700_000_000_000 + i64::from(expected));
                let properties = header.properties.expect("properties");
                assert!(
                    properties.contains(&format!("UNIQ_KEY\u{1}0000000000000ABC{expected:016X}\u{2}")),
                    "{properties:?}"
                );
                assert_eq!(command.body.len(), 100);
                let born_ns = (1_700_000_000_000 + expected as u64) * 1_000_000 + 7;
                assert_eq!(command.body[..STAMP_LEN], [STAMP_MARK, born_ns.to_be_bytes()].concat());
            }
        }
    }

    #[test]
    fn batches_carry_as_many_messages_as_told() {
        use ferromq_protocol::message::BatchItems;
        let mut ring = FrameRing::new(&shape(3), 2);
        ring.prepare(OPAQUE_BASE, 1_700_000_000_000_000_000);
        ring.prepare(OPAQUE_BASE + 1, 1_700_000_000_000_000_000);
        for command in decoded(&mut ring) {
            assert_eq!(command.code, 320);
            assert_eq!(BatchItems::parse(&command.body).expect("a batch").count(), 3);
            let stamps = BatchItems::parse(&command.body).expect("a batch").map(|item| item.body[..8] == STAMP_MARK);
            assert!(stamps.eq([true; 3]));
        }
    }
}
