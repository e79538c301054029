//! What the zeros in a record's text tell: the CRC covers the body only, but what was not written reads as zeros, since segments are
//! allocated zeroed, and the rest of one is zeroed when it is cut.

use ferromq_protocol::message::Record;

use crate::disk::PAGE;

/// Whether a page that holds a part of the record's topic or properties was lost, or got to the disk while it was being filled. So
/// reads what has a zero at the end of a page, too, and that a client may have sent.
pub fn has_torn_text(record: &Record<'_>, at: usize) -> bool {
    record.topic().contains('\0') || properties_by_page(record, at).any(|piece| piece.last() == Some(&0))
}

/// Whether the record was still being put into the log when its process was killed: that ends with its last byte, from the write pool too.
pub fn has_unwritten_end(record: &Record<'_>) -> bool {
    record.topic().contains('\0') || record.properties_bytes().last() == Some(&0)
}

/// Whether a whole page of the record's properties is zeros.
pub fn has_lost_properties(record: &Record<'_>, at: usize) -> bool {
    properties_by_page(record, at).skip(1).any(|piece| piece.iter().all(|byte| *byte == 0))
}

/// The first piece ends with the page that the properties begin in.
fn properties_by_page<'a>(record: &'a Record<'_>, at: usize) -> impl Iterator<Item = &'a [u8]> {
    let text = record.properties_bytes();
    let begin = at + record.record_len() - text.len();
    let (first, rest) = text.split_at((begin.next_multiple_of(PAGE) - begin).min(text.len()));
    std::iter::once(first).chain(rest.chunks(PAGE))
}
