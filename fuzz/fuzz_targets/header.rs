//! Any bytes as a frame's header, in both forms, read into the typed headers of the hot paths: no panic.
#![no_main]

use bytes::{BufMut as _, BytesMut};
use ferromq_protocol::header::{PullReply, PullRequest, RegisterBrokerRequest, SendReply, SendRequest, UpdateOffsetRequest};
use ferromq_protocol::{Command, DecodeFields, EncodeFields, FRAME_LEN_MAX, Fields, RequestCode, decode_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for serialization in [0, 1 << 24] {
        let mut frame = BytesMut::new();
        let len = u32::try_from(input.len()).expect("a short input");
        frame.put_u32(len + 4);
        frame.put_u32(serialization | len & 0x00ff_ffff);
        frame.put_slice(input);
        let Ok(Some(mut command)) = decode_frame(&mut frame, FRAME_LEN_MAX) else { continue };
        again::<PullRequest>(&command);
        again::<PullReply>(&command);
        again::<SendReply>(&command);
        again::<SendRequest>(&command);
        again::<UpdateOffsetRequest>(&command);
        again::<RegisterBrokerRequest>(&command);
        command.code = RequestCode::SEND_MESSAGE_V2.0;
        let _either = command.header::<SendRequest>();
    }
});

/// A header that can be read is written as fields that read the same.
fn again<H: DecodeFields + EncodeFields + PartialEq + std::fmt::Debug>(command: &Command) {
    if let Ok(header) = H::decode_fields(&command.fields) {
        assert_eq!(H::decode_fields(&Fields::from_header(&header)).as_ref(), Ok(&header));
    }
}
