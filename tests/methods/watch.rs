//! Watch: the answers of one stream, one request at a time so that their order is given.

use crate::recording::Recorder;
use crate::support::pb::{self, Msg};

const PATH: &str = "Watch/Watch";

pub(crate) async fn play(etcd: &mut Recorder) {
    let mut stream = etcd.open(PATH).await;
    let creates = [
        ("from now", Msg::new().bytes(1, "w")),
        (
            "with previous values",
            Msg::new().bytes(1, "w").bytes(2, "x").int(6, 1),
        ),
        (
            "an id of its own",
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
    for (what, create) in creates {
        stream.send(Msg::new().msg(1, create)).await;
        let created = stream.next().await.expect(what);
        assert_eq!(pb::int(&created, &[3]), 1, "{what}: {created:?}");
    }
    // Two watches see the put, three the delete; in which order is etcd's choice.
    let mut answers = Vec::new();
    etcd.unary(
        "KV/Put",
        "watched",
        Msg::new().bytes(1, "w").bytes(2, "1"),
        0,
    )
    .await;
    etcd.unary("KV/DeleteRange", "watched", Msg::new().bytes(1, "w"), 0)
        .await;
    while answers
        .iter()
        .map(|answer: &Msg| events(answer))
        .sum::<usize>()
        < 5
    {
        let answer = stream.next().await.expect("an event");
        answers.push(pb::without(&answer, &[1]));
    }
    let mut seen: Vec<String> = answers.iter().map(|answer| format!("{answer:?}")).collect();
    seen.sort();
    stream.send(Msg::new().msg(2, Msg::new().int(1, 70))).await;
    stream.next().await.expect("canceled");
    stream.cancel();
    let mut reply = stream.finish().await;
    // The events are compared sorted, and the rest as it came.
    let events_at = creates_count()..reply.messages.len() - 1;
    reply.messages.splice(
        events_at,
        seen.into_iter()
            .map(|answer| Msg::new().bytes(99, answer).as_ref().to_vec().into()),
    );
    etcd.keep(PATH, "one stream", reply, None, &[]);
    past(etcd).await;
}

const fn creates_count() -> usize {
    7
}

fn events(answer: &Msg) -> usize {
    pb::fields(answer.as_ref())
        .iter()
        .filter(|(field, _)| *field == 11)
        .count()
}

async fn past(etcd: &mut Recorder) {
    // From a revision on: created, history in one answer, then progress on request.
    let mut stream = etcd.open(PATH).await;
    let create = Msg::new().bytes(1, "s").bytes(2, "t").int(3, 8).int(8, 1);
    stream.send(Msg::new().msg(1, create)).await;
    stream.next().await.expect("created");
    stream.next().await.expect("the past");
    stream.send(Msg::new().msg(3, Msg::new())).await;
    stream.next().await.expect("progress");
    stream.cancel();
    etcd.keep(PATH, "from a revision on", stream.finish().await, None, &[]);

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
    etcd.keep(
        PATH,
        "a compacted revision",
        stream.finish().await,
        None,
        &[],
    );
}
