//! What reading a send's frame and writing its reply cost, in both header forms: the part of a send that is no store.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ferromq_protocol::header::{SendReply, SendRequest};
use ferromq_protocol::{
    Command, FRAME_LEN_MAX, QueueId, QueueOffset, Reply, RequestCode, RequestId, Serialization, decode_frame,
};

fn frame(serialization: Serialization) -> BytesMut {
    let header = SendRequest {
        producer_group: "producers".into(),
        topic: "Orders".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 3,
        born_timestamp: 1_795_220_483_790,
        properties: Some(
            "UNIQ_KEY\u{1}7F000001A5B418B4AAC20D6D4F4A0000\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}".into(),
        ),
        ..SendRequest::default()
    };
    let mut command = Command::request(RequestCode::SEND_MESSAGE_V2, &header.short_names());
    command.serialization = serialization;
    command.body = Bytes::from(vec![7; 500]);
    let mut out = BytesMut::new();
    command.encode_head(&mut out).expect("a send fits a frame");
    out.extend_from_slice(&command.body);
    out
}

fn codec(criterion: &mut Criterion) {
    for (name, serialization) in [("JSON", Serialization::Json), ("binary", Serialization::Binary)] {
        let bytes = frame(serialization);
        criterion.bench_function(&format!("read a send, {name} header"), |bencher| {
            bencher.iter_batched_ref(
                || bytes.clone(),
                |bytes| {
                    let command = decode_frame(bytes, FRAME_LEN_MAX).expect("a good frame").expect("a whole frame");
                    black_box(command.header::<SendRequest>().expect("a good header"));
                },
                BatchSize::SmallInput,
            );
        });
        let mut out = BytesMut::with_capacity(4096);
        criterion.bench_function(&format!("write the reply to a send, {name} header"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let reply = Reply::ok().header(SendReply {
                    msg_id: "7F00000100002A9F0000000000001234".into(),
                    queue_id: QueueId(3),
                    queue_offset: QueueOffset(1_234_567),
                    ..SendReply::default()
                });
                let to = RequestId { opaque: 77, serialization };
                reply.encode_head(to, &mut out).expect("a reply fits a frame");
                black_box(&out);
            });
        });
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
