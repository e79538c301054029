//! Any bytes as a connection's input: no panic, and what was accepted is written as a frame that reads the same.
#![no_main]

use bytes::{BufMut as _, BytesMut};
use ferromq_protocol::{FRAME_LEN_MAX, decode_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(command)) = decode_frame(&mut buffer, FRAME_LEN_MAX) {
        let mut out = BytesMut::new();
        if command.encode_head(&mut out).is_err() {
            continue;
        }
        out.put_slice(&command.body);
        let back = decode_frame(&mut out, FRAME_LEN_MAX).expect("our own frame").expect("whole");
        assert_eq!((back.code, back.opaque, &back.body), (command.code, command.opaque, &command.body));
        assert!(back.fields.iter().map(pair).eq(command.fields.iter().map(pair)));
    }
});

fn pair(field: (std::borrow::Cow<'_, str>, ferromq_protocol::FieldText<'_>)) -> (String, String) {
    (field.0.into_owned(), field.1.into_text().into_owned())
}
