//! Calls of the Watch service. One stream sends one request at a time, so the order of responses is
//! fixed.

use crate::recording::Recorder;
use crate::support::pb::{self, Msg};

const PATH: &str = "Watch/Watch";

pub(crate) async fn run(etcd: &mut Recorder) {
    let mut stream = etcd.open(PATH).await;
    let creates = [
        ("from now", Msg::new().bytes(1, "w")),
        (
            "with previous values",
            Msg::new().bytes(1, "w").bytes(2, "x").int(6, 1),
        ),
        (
            "an explicit id",
            Msg::new().bytes(1, "w").int(7, 70).int(5, 1),
        ),
        ("the same id", Msg::new().bytes(1, "w").int(7, 70)),
        ("an inverted range", Msg::new().bytes(1, "w").bytes(2, "a")),
        ("a negative revision", Msg::new().bytes(1, "w").int(3, -1)),
        (
            "a future revision",
            Msg::new().bytes(1, "w").int(3, 1 << 40),
        ),
    ];
    for (case, create) in creates {
        stream.send(Msg::new().msg(1, create)).await;
        let created = stream.next().await.expect(case);
        assert_eq!(pb::int(&created, &[3]), 1, "{case}: {created:?}");
    }
    // Two watches match the put, three the delete. etcd chooses their order.
    let mut responses = Vec::new();
    etcd.unary(
        "KV/Put",
        "watched",
        Msg::new().bytes(1, "w").bytes(2, "1"),
        0,
    )
    .await;
    etcd.unary("KV/DeleteRange", "watched", Msg::new().bytes(1, "w"), 0)
        .await;
    while responses
        .iter()
        .map(|response: &Msg| events(response))
        .sum::<usize>()
        < 5
    {
        let response = stream.next().await.expect("an event");
        responses.push(pb::without(&response, &[1]));
    }
    let mut sorted: Vec<String> = responses
        .iter()
        .map(|response| format!("{response:?}"))
        .collect();
    sorted.sort();
    stream.send(Msg::new().msg(2, Msg::new().int(1, 70))).await;
    stream.next().await.expect("canceled");
    stream.cancel();
    let mut reply = stream.finish().await;
    // The responses with events are compared in sorted order, the others in order of arrival.
    let events_at = creates_count()..reply.messages.len() - 1;
    reply.messages.splice(
        events_at,
        sorted
            .into_iter()
            .map(|text| Msg::new().bytes(99, text).as_ref().to_vec().into()),
    );
    etcd.record(PATH, "one stream", reply, None, &[]);
    past(etcd).await;
}

const fn creates_count() -> usize {
    7
}

fn events(response: &Msg) -> usize {
    pb::fields(response.as_ref())
        .iter()
        .filter(|(field, _)| *field == 11)
        .count()
}

async fn past(etcd: &mut Recorder) {
    // With a start revision: `created`, the history in one response, then progress on request.
    let mut stream = etcd.open(PATH).await;
    let create = Msg::new().bytes(1, "s").bytes(2, "t").int(3, 8).int(8, 1);
    stream.send(Msg::new().msg(1, create)).await;
    stream.next().await.expect("created");
    stream.next().await.expect("past events");
    stream.send(Msg::new().msg(3, Msg::new())).await;
    stream.next().await.expect("progress");
    stream.cancel();
    etcd.record(
        PATH,
        "with a start revision",
        stream.finish().await,
        None,
        &[],
    );

    let mut stream = etcd.open(PATH).await;
    stream
        .send(Msg::new().msg(1, Msg::new().bytes(1, "s").int(3, 2)))
        .await;
    stream.next().await.expect("created");
    let canceled = stream.next().await.expect("canceled");
    assert!(
        pb::int(&canceled, &[5]) > 0,
        "no compact revision: {canceled:?}"
    );
    stream.cancel();
    etcd.record(
        PATH,
        "a compacted revision",
        stream.finish().await,
        None,
        &[],
    );
}
