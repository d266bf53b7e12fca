//! A watch stream that a test drives step by step.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;

use super::client::Reader;
use super::messages::{Create, Event, Response, WATCH, cancel_request, progress_request};
use crate::support::load::H2Connection;
use crate::support::pb::Msg;
use crate::support::scripted_etcd::framed;

/// Maximum time of a step on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// An open watch stream. Dropping it cancels it.
pub struct Stream {
    send: SendStream<Bytes>,
    reader: Reader,
    // Keeps the connection open.
    _connection: Arc<H2Connection>,
}

impl Stream {
    /// Opens a stream without metadata on a new connection.
    pub async fn connect(address: &str) -> Stream {
        let connection = H2Connection::connect(address).await;
        let connection = connection.unwrap_or_else(|error| panic!("{address}: {error}"));
        Stream::open(&Arc::new(connection), &[]).await
    }

    /// Opens a stream on a connection that other streams may share.
    pub async fn open(connection: &Arc<H2Connection>, metadata: &[(String, String)]) -> Stream {
        let call = connection.stream(WATCH, metadata).await;
        let (response, send) = call.expect("an open connection");
        Stream {
            send,
            reader: Reader::new(response),
            _connection: connection.clone(),
        }
    }

    /// Sends a `WatchRequest`.
    pub fn send(&mut self, request: &Msg) {
        let sent = self.send.send_data(framed(request.as_ref()), false);
        sent.expect("an open stream");
    }

    /// Creates a watcher and returns its `created` response, which must be the next message.
    pub async fn create(&mut self, create: &Create) -> Response {
        self.send(&create.request());
        let created = self.next().await;
        assert!(created.created, "{created:?}");
        created
    }

    /// Sends the cancel of a watcher.
    pub fn cancel(&mut self, id: i64) {
        self.send(&cancel_request(id));
    }

    /// Sends a progress request.
    pub fn progress(&mut self) {
        self.send(&progress_request());
    }

    /// Ends the sending side.
    pub fn half_close(&mut self) {
        let closed = self.send.send_data(Bytes::new(), true);
        closed.expect("an open stream");
    }

    /// Returns the next message; panics if the stream ends.
    pub async fn next(&mut self) -> Response {
        match self.next_or_end().await {
            Ok(response) => response,
            Err(why) => panic!("the stream ended: {why}"),
        }
    }

    /// Returns the next message, or the status with which the stream ended.
    pub async fn next_or_end(&mut self) -> Result<Response, String> {
        let next = tokio::time::timeout(LIMIT, self.reader.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing within {LIMIT:?}"));
        next.ok_or_else(|| self.reader.end().to_owned())
    }

    /// Returns exactly this many events; panics if another kind of message arrives.
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

    /// Requests progress until the stream reports it at or above `revision`, and returns all
    /// messages up to there. The request is repeated because etcd drops a request that it cannot
    /// serve yet.
    pub async fn progress_at(&mut self, revision: i64) -> Vec<Response> {
        let mut before = Vec::new();
        let reported = tokio::time::timeout(LIMIT, async {
            loop {
                self.progress();
                let retry = tokio::time::sleep(Duration::from_millis(100));
                tokio::pin!(retry);
                loop {
                    tokio::select! {
                        response = self.reader.next() => {
                            let response = response.expect("an open stream");
                            let progress = response.id == -1 && response.is_progress();
                            let done = progress && response.revision >= revision;
                            before.push(response);
                            if done {
                                return;
                            }
                        }
                        () = &mut retry => break,
                    }
                }
            }
        });
        assert!(
            reported.await.is_ok(),
            "no progress at {revision}: {before:?}"
        );
        before
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }
}
