//! Any bytes as either side of the stream between a master and a slave, in one piece and in two; what is a packet is written again to the same bytes.
#![no_main]

use bytes::BytesMut;
use ferromq_protocol::ha::{
    Packet, REPORT_LEN, decode_packet, decode_reports, encode_packet_head, encode_report,
};
use libfuzzer_sys::fuzz_target;

fn packets(pieces: &[&[u8]]) -> (Vec<Packet>, bool, BytesMut) {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decode_packet(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(_) => return (packets, true, buffer),
            }
        }
    }
    (packets, false, buffer)
}

fuzz_target!(|bytes: &[u8]| {
    let (whole, is_bad, left) = packets(&[bytes]);
    let cut = bytes.first().map_or(0, |first| usize::from(*first) % bytes.len());
    let (first, second) = bytes.split_at(cut);
    let (in_two, is_bad_in_two, _) = packets(&[first, second]);
    assert_eq!((&whole, is_bad), (&in_two, is_bad_in_two));
    let mut again = Vec::new();
    for packet in &whole {
        again.extend_from_slice(&encode_packet_head(packet.at, packet.body.len()));
        again.extend_from_slice(&packet.body);
    }
    assert!(bytes.starts_with(&again) && bytes.ends_with(&left));

    let mut buffer = BytesMut::from(bytes);
    if let Ok(last) = decode_reports(&mut buffer) {
        let end = bytes.len() - bytes.len() % REPORT_LEN;
        let stated = bytes[..end].rchunks(REPORT_LEN).next();
        assert_eq!(last.map(encode_report).as_ref().map(|report| &report[..]), stated);
    }
});
