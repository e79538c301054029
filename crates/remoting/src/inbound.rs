//! The read buffer of one connection: how much to ask the socket for, and when to give memory back.
//!
//! It starts with nothing, grows with what really arrives (never with what a length word promises), and is dropped again
//! on quiet connections, but for the beginning of a frame that may be there.

use bytes::BytesMut;
use ferromq_protocol::{Command, FrameError, decode_frame};

/// Room offered to the first read, and again after a quiet spell.
const ROOM_MIN: usize = 4 * 1024;

/// Room offered to a connection that keeps filling its buffer: about a hundred 1 KB sends.
const ROOM_MAX: usize = 128 * 1024;

pub(crate) struct Inbound {
    pub(crate) buffer: BytesMut,
    room: usize,
    frame_len_max: usize,
    /// A whole frame was decoded, so the peer does speak this protocol.
    pub(crate) seen_frame: bool,
}

impl Inbound {
    pub(crate) fn new(frame_len_max: usize) -> Self {
        Self { buffer: BytesMut::new(), room: ROOM_MIN, frame_len_max, seen_frame: false }
    }

    /// Splits the next whole frame off. `None`: more bytes are needed.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Command>, MalformedInput> {
        let start = first_bytes(&self.buffer);
        match decode_frame(&mut self.buffer, self.frame_len_max) {
            Ok(Some(command)) => {
                self.seen_frame = true;
                Ok(Some(command))
            }
            Ok(None) => Ok(None),
            Err(cause) if self.seen_frame => Err(MalformedInput { cause, guess: None }),
            Err(cause) => Err(MalformedInput { cause, guess: other_protocol(&start) }),
        }
    }

    /// Makes room for the next read: the usual amount, or as much again as a long frame has brought so far.
    pub(crate) fn make_room(&mut self) -> usize {
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * ROOM_MAX {
            self.buffer = BytesMut::new();
        }
        let have = self.buffer.len();
        let missing = self.missing();
        self.buffer.reserve(missing.min(have).max(self.room));
        self.buffer.capacity() - have
    }

    /// Bytes still to come of a frame whose length word is here.
    fn missing(&self) -> usize {
        match self.buffer.first_chunk::<4>() {
            Some(word) => {
                let len = (u32::from_be_bytes(*word) as usize).saturating_add(4);
                len.min(self.frame_len_max).saturating_sub(self.buffer.len())
            }
            None => 0,
        }
    }

    /// A read brought `count` bytes where `room` were possible.
    pub(crate) fn arrived(&mut self, count: usize, room: usize) {
        if count >= room && self.room < ROOM_MAX {
            self.room *= 2;
        }
    }

    /// Gives memory back on a quiet connection.
    pub(crate) fn shrink(&mut self) {
        self.room = ROOM_MIN;
        if self.buffer.len() <= ROOM_MIN {
            // The beginning of a frame may be what is left of a large buffer, however little room that still shows.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
    }
}

/// Bytes that are no frame, and what they look like instead when they opened the connection.
#[derive(Debug, thiserror::Error)]
#[error("{cause}{}", guess.map(|guess| format!("; {guess}")).unwrap_or_default())]
pub(crate) struct MalformedInput {
    cause: FrameError,
    guess: Option<&'static str>,
}

fn first_bytes(buffer: &[u8]) -> [u8; 4] {
    buffer.first_chunk::<4>().copied().unwrap_or_default()
}

/// What a peer speaks whose first bytes are no frame. All of these exceed the frame limit when read as a length.
fn other_protocol(start: &[u8; 4]) -> Option<&'static str> {
    match start {
        [0x16, ..] => Some("this looks like TLS, which is not configured here"),
        b"PROX" | [0x0d, 0x0a, 0x0d, 0x0a] => Some("this looks like the PROXY protocol, which is not supported here"),
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" => Some("this looks like HTTP"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promised_length_is_not_allocated() {
        let mut inbound = Inbound::new(16_777_216);
        inbound.buffer.extend_from_slice(&16_777_212_u32.to_be_bytes());
        assert!(inbound.next_frame().is_ok_and(|frame| frame.is_none()));
        inbound.make_room();
        assert!(inbound.buffer.capacity() <= 2 * ROOM_MIN);
    }

    #[test]
    fn room_follows_the_traffic_and_goes_back() {
        let mut inbound = Inbound::new(16_777_216);
        for _ in 0..10 {
            let room = inbound.make_room();
            inbound.arrived(room, room);
        }
        assert_eq!(inbound.room, ROOM_MAX);
        inbound.shrink();
        assert_eq!(inbound.room, ROOM_MIN);
        assert_eq!(inbound.buffer.capacity(), 0);
    }

    #[test]
    fn the_beginning_of_a_frame_does_not_keep_a_large_buffer() {
        let mut inbound = Inbound::new(16_777_216);
        inbound.room = ROOM_MAX;
        inbound.make_room();
        inbound.buffer.extend_from_slice(&[7; 3]);
        let large = inbound.buffer.as_ptr();
        inbound.shrink();
        assert_eq!((&inbound.buffer[..], inbound.buffer.capacity() < ROOM_MIN), (&[7; 3][..], true));
        assert_ne!(inbound.buffer.as_ptr(), large);
    }

    #[test]
    fn other_protocols_are_named() {
        for (bytes, word) in [
            (&b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n"[..], "PROXY"),
            (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0][..], "TLS"),
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP"),
        ] {
            let mut inbound = Inbound::new(16_777_216);
            inbound.buffer.extend_from_slice(bytes);
            let malformed = inbound.next_frame().expect_err("no frame");
            assert!(malformed.to_string().contains(word), "{malformed}");
        }
    }
}
