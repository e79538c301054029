//! Bytes waiting to be written to one socket, in order.
//!
//! Frame heads and short bodies are encoded one after the other into a growing tail; a long body (a pull answer's slice of the
//! commit log) is kept as it is, as a piece of its own. One write then covers many pieces. In steady state the tail's
//! allocation is reused for ever.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use ferromq_protocol::{Command, FrameError, Reply, RequestId, ResponseCode};
use tracing::error;

/// Most pieces one vectored write covers.
pub(crate) const SLICES_MAX: usize = 64;

/// Body chunks up to this many bytes are copied behind their head: cheaper than an io vector of their own.
const COPIED_LEN_MAX: usize = 2048;

/// An empty tail larger than this is given back.
const TAIL_KEPT_MAX: usize = 256 * 1024;

#[derive(Default)]
pub(crate) struct Outbound {
    /// Finished pieces, oldest first, none empty. The first one shrinks as it is written.
    pieces: VecDeque<Piece>,
    /// What comes after all pieces and may still grow.
    tail: BytesMut,
    /// How much of the tail is written already.
    tail_written: usize,
    /// Unwritten bytes in all of it.
    len: usize,
    /// Those of them that lie in mapped files.
    mapped: usize,
}

struct Piece {
    bytes: Bytes,
    /// It takes no memory of its own.
    mapped: bool,
}

impl Outbound {
    /// Unwritten bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Unwritten bytes that take memory.
    pub(crate) fn owned(&self) -> usize {
        self.len - self.mapped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A reply that cannot be encoded (too long, mostly) becomes code 1 with the reason: the peer waits for an answer.
    pub(crate) fn push_reply(&mut self, to: RequestId, reply: Reply) {
        let before = self.tail.len();
        let of_files = reply.of_files;
        let body = match reply.encode_head(to, &mut self.tail) {
            Ok(()) => reply.body,
            Err(cause) => {
                error!(?reply, %cause, "a reply cannot be encoded");
                let instead = Reply::error(ResponseCode::SYSTEM_ERROR, format!("the reply cannot be sent: {cause}"));
                if let Err(cause) = instead.encode_head(to, &mut self.tail) {
                    error!(%cause, "nor can the error that replaces it");
                }
                Vec::new()
            }
        };
        self.len += self.tail.len() - before;
        for chunk in body {
            // What was copied out of a file has no other owner; a slice of one says that it may have.
            let mapped = of_files && !chunk.is_unique();
            self.push_body(chunk, mapped);
        }
    }

    /// On an error nothing was queued.
    pub(crate) fn push_command(&mut self, command: &Command) -> Result<(), FrameError> {
        let before = self.tail.len();
        command.encode_head(&mut self.tail)?;
        self.len += self.tail.len() - before;
        self.push_body(command.body.clone(), false);
        Ok(())
    }

    fn push_body(&mut self, chunk: Bytes, mapped: bool) {
        self.len += chunk.len();
        if chunk.len() <= COPIED_LEN_MAX {
            self.tail.extend_from_slice(&chunk);
        } else {
            self.finish_tail();
            self.mapped += if mapped { chunk.len() } else { 0 };
            self.pieces.push_back(Piece { bytes: chunk, mapped });
        }
    }

    /// Moves everything out of `later` to the end of this one.
    pub(crate) fn append(&mut self, later: &mut Outbound) {
        if later.is_empty() {
            return;
        }
        if self.is_empty() {
            std::mem::swap(self, later);
            return;
        }
        self.finish_tail();
        self.len += later.len;
        self.mapped += later.mapped;
        self.pieces.append(&mut later.pieces);
        std::mem::swap(&mut self.tail, &mut later.tail);
        std::mem::swap(&mut self.tail_written, &mut later.tail_written);
        later.clear_tail();
        (later.len, later.mapped) = (0, 0);
    }

    /// Fills `slices` with the next unwritten bytes and says how many of them it used.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut used = 0;
        let tail = &self.tail[self.tail_written..];
        let tail = (!tail.is_empty()).then_some(tail);
        for piece in self.pieces.iter().map(|piece| &piece.bytes[..]).chain(tail).take(SLICES_MAX) {
            slices[used] = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// `count` bytes went out.
    pub(crate) fn written(&mut self, mut count: usize) {
        assert!(count <= self.len, "the socket took {count} of {} bytes", self.len);
        self.len -= count;
        while let Some(Piece { bytes, mapped }) = self.pieces.front_mut() {
            let gone = count.min(bytes.len());
            self.mapped -= if *mapped { gone } else { 0 };
            if count < bytes.len() {
                bytes.advance(count);
                return;
            }
            count -= gone;
            self.pieces.pop_front();
        }
        self.tail_written += count;
        if self.tail_written == self.tail.len() {
            self.clear_tail();
        }
    }

    /// Gives back what memory an empty queue holds.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Outbound::default();
        }
    }

    fn finish_tail(&mut self) {
        let mut finished = self.tail.split();
        finished.advance(self.tail_written);
        self.tail_written = 0;
        if !finished.is_empty() {
            self.pieces.push_back(Piece { bytes: finished.freeze(), mapped: false });
        }
    }

    fn clear_tail(&mut self) {
        self.tail_written = 0;
        if self.tail.capacity() > TAIL_KEPT_MAX {
            self.tail = BytesMut::new();
        } else {
            self.tail.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(queue: &mut Outbound, bytes: Vec<u8>) {
        // By its first byte, that it is half of them.
        let mapped = bytes.first().is_some_and(|first| first.is_multiple_of(2));
        queue.push_body(Bytes::from(bytes), mapped);
    }

    /// What a socket that takes at most `at_most` bytes per write would have received.
    fn drain(queue: &mut Outbound, at_most: usize) -> Vec<u8> {
        let mut received = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = queue.slices(&mut slices);
            let offered: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
            assert!(!offered.is_empty());
            let taken = offered.len().min(at_most);
            received.extend_from_slice(&offered[..taken]);
            queue.written(taken);
            assert_eq!(queue.mapped, queue.mapped_anew());
        }
        assert_eq!(queue.owned(), 0);
        received
    }

    impl Outbound {
        fn mapped_anew(&self) -> usize {
            self.pieces.iter().filter(|piece| piece.mapped).map(|piece| piece.bytes.len()).sum()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_leave_in_order_however_they_were_queued(
            lens in proptest::collection::vec((0usize..5000, any::<bool>()), 0..40),
            at_most in 1usize..20_000,
            first_write in 0usize..9000,
        ) {
            let mut queue = Outbound::default();
            let mut other = Outbound::default();
            let mut expected = Vec::new();
            let mut received = Vec::new();
            for (number, (len, through_other)) in lens.into_iter().enumerate() {
                let bytes = vec![number as u8; len];
                expected.extend_from_slice(&bytes);
                if through_other {
                    push(&mut other, bytes);
                    queue.append(&mut other);
                } else {
                    push(&mut queue, bytes);
                }
                if number == 10 {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let used = queue.slices(&mut slices);
                    let offered: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
                    let taken = offered.len().min(first_write);
                    received.extend_from_slice(&offered[..taken]);
                    queue.written(taken);
                }
            }
            prop_assert_eq!(queue.mapped, queue.mapped_anew());
            received.extend(drain(&mut queue, at_most));
            prop_assert!(other.is_empty());
            prop_assert_eq!(received, expected);
        }
    }

    #[test]
    fn short_bodies_share_one_slice_and_long_ones_are_not_copied() {
        let mut queue = Outbound::default();
        for _ in 0..10 {
            push(&mut queue, vec![1; 100]);
        }
        let long = Bytes::from(vec![2; 100_000]);
        queue.push_body(long.clone(), false);
        push(&mut queue, vec![3; 100]);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!(queue.slices(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), long.as_ptr());
    }

    #[test]
    fn what_lies_in_mapped_files_takes_no_memory() {
        let file = Bytes::from_owner(vec![0; 10_000]);
        let to = ferromq_protocol::Command::request(ferromq_protocol::RequestCode(1), &ferromq_protocol::NoFields).id();
        let mut queue = Outbound::default();
        let chunks = vec![file.slice(..5000), Bytes::from(vec![0; 3000]), file.slice(5000..), file.slice(..100)];
        queue.push_reply(to, Reply::ok().body_chunks(chunks));
        assert_eq!(queue.mapped, 10_000);
        queue.push_reply(to, Reply::ok().body(file));
        assert_eq!(queue.mapped, 10_000, "whoever does not say so has them in memory");
    }
}
