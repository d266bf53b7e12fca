//! A watch stream step by step, for tests that know what comes next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;

use super::client::Reader;
use super::messages::{Create, Event, Response, WATCH, cancel_request, progress_request};
use crate::support::load::Lane;
use crate::support::pb::Msg;
use crate::support::scripted_etcd::framed;

/// No step takes longer, however busy the machine.
const LIMIT: Duration = Duration::from_secs(30);

/// An open stream.
pub struct Stream {
    send: SendStream<Bytes>,
    reader: Reader,
    // Its connection lives as long.
    _lane: Arc<Lane>,
}

impl Stream {
    /// On a connection of its own, without metadata.
    pub async fn connect(address: &str) -> Stream {
        let lane = Lane::connect(address).await;
        let lane = lane.unwrap_or_else(|error| panic!("{address}: {error}"));
        Stream::open(&Arc::new(lane), &[]).await
    }

    /// On a connection that others share.
    pub async fn open(lane: &Arc<Lane>, metadata: &[(String, String)]) -> Stream {
        let (response, send) = lane.stream(WATCH, metadata).await.expect("an open lane");
        Stream {
            send,
            reader: Reader::new(response),
            _lane: lane.clone(),
        }
    }

    /// Sends a `WatchRequest`.
    pub fn send(&mut self, request: &Msg) {
        let sent = self.send.send_data(framed(request.as_ref()), false);
        sent.expect("an open stream");
    }

    /// Creates a watcher and gives the answer, which must be the next message.
    pub async fn create(&mut self, create: &Create) -> Response {
        self.send(&create.request());
        let created = self.next().await;
        assert!(created.created, "{created:?}");
        created
    }

    /// Asks for the cancel of a watcher.
    pub fn cancel(&mut self, id: i64) {
        self.send(&cancel_request(id));
    }

    /// Asks for progress.
    pub fn progress(&mut self) {
        self.send(&progress_request());
    }

    /// Ends the sending side.
    pub fn half_close(&mut self) {
        let closed = self.send.send_data(Bytes::new(), true);
        closed.expect("an open stream");
    }

    /// The next message; there must be one.
    pub async fn next(&mut self) -> Response {
        match self.next_or_end().await {
            Ok(response) => response,
            Err(why) => panic!("the stream ended: {why}"),
        }
    }

    /// The next message, or how the stream ended.
    pub async fn next_or_end(&mut self) -> Result<Response, String> {
        let next = tokio::time::timeout(LIMIT, self.reader.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing within {LIMIT:?}"));
        next.ok_or_else(|| self.reader.ending().to_owned())
    }

    /// Events until there are so many; nothing else may come.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            assert!(!response.events.is_empty(), "{response:?}");
            events.extend(response.events);
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// Progress of the whole stream at or above a revision, asked for again and again as long as
    /// there is none, since etcd drops a request that it cannot answer yet.
    pub async fn progress_at(&mut self, revision: i64) -> Vec<Response> {
        let mut before = Vec::new();
        let told = tokio::time::timeout(LIMIT, async {
            loop {
                self.progress();
                let asked = tokio::time::sleep(Duration::from_millis(100));
                tokio::pin!(asked);
                loop {
                    tokio::select! {
                        response = self.reader.next() => {
                            let response = response.expect("an open stream");
                            let told = response.id == -1 && response.is_progress();
                            let done = told && response.revision >= revision;
                            before.push(response);
                            if done {
                                return;
                            }
                        }
                        () = &mut asked => break,
                    }
                }
            }
        });
        assert!(told.await.is_ok(), "no progress at {revision}: {before:?}");
        before
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }
}
