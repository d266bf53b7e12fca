//! Every limit of the process by name, with its reason (S1). A flag can only select a value within
//! these limits.
//!
//! Sizes are in bytes and times are [`Duration`]s. Limits that depend on one another are compared
//! at compile time at the end of this file. `docs/reference/limits.md` lists them.

use std::time::Duration;

/// Maximum open client connections, all workers together. The proxy closes a further connection
/// without a response. At start the proxy raises the descriptor limit of the process towards this
/// value. A smaller descriptor limit lowers the maximum.
pub const MAX_CONNECTIONS: usize = 65_536;

/// Maximum size of a configuration file in bytes. A larger file is not read.
pub const CONFIG_BYTES: u64 = 1024 * 1024;

/// File descriptors reserved for listeners, upstream connections, epoll and logs.
pub const RESERVED_DESCRIPTORS: usize = 64;

/// Maximum open connections of `--metrics-addr`, all its listeners together, in addition to
/// client connections. Each one may need a further connection to etcd, so descriptors for both
/// are reserved. The proxy closes a further connection without a response.
pub const MAX_ADMIN_CONNECTIONS: usize = 64;

/// Maximum open streams of one client connection. `--max-concurrent-streams` can only select a
/// smaller value. An open stream uses about 4 KiB, so the streams of one connection use at most
/// 64 MiB.
pub const MAX_STREAMS: u32 = 16_384;

/// Maximum open calls of one worker, all connections together. The proxy refuses a further call
/// with RESOURCE_EXHAUSTED before it sends anything upstream.
pub const MAX_CALLS_PER_WORKER: usize = 131_072;

/// Maximum decoded size of a header list in bytes, towards clients and etcd. Tokens are below 2
/// KiB. Other gRPC implementations default to 8–16 KiB. The default of the `h2` crate is 16 MiB.
pub const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// Maximum fields of one header list. The `h2` crate limits only the bytes. An empty field counts
/// as 32 bytes but uses far more memory in a map.
pub const HEADER_FIELDS: usize = 128;

/// Time from accept to the first HTTP request or the HTTP/2 preface, including the TLS handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Maximum size in bytes of one file of certificates, keys or revoked certificates. A revocation
/// list with a million entries is half of it.
pub const TLS_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Pause after a file change notification until the files are read. One change often affects
/// several files.
pub const TLS_SETTLE_TIME: Duration = Duration::from_millis(100);

/// Time for which files may be inconsistent after a change until the proxy reports an error. A
/// half-finished change is inconsistent.
pub const TLS_REPORT_DELAY: Duration = Duration::from_secs(1);

/// Interval at which the TLS files are checked without a notification. Some file systems send
/// none.
pub const TLS_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Time for a client to finish sending the message of a unary call after its first byte.
pub const REQUEST_TIME: Duration = Duration::from_secs(60);

/// Time for which a unary response waits for its client to read on. Then the call ends.
pub const STALLED_READER_TIME: Duration = Duration::from_secs(60);

/// Time for which unacknowledged or unsendable bytes of a client connection stay in the kernel
/// (TCP_USER_TIMEOUT). Then the kernel closes the connection of a client that stopped reading.
pub const STALLED_SOCKET_TIME: Duration = Duration::from_secs(300);

/// Silence after which the kernel probes the client's host (TCP keepalive), and the pause between
/// two probes. Without a response for [`STALLED_SOCKET_TIME`] the connection is closed. Without
/// probes, the connection of a host that vanished silently would stay open forever.
pub const SILENT_SOCKET_TIME: Duration = Duration::from_secs(15);

/// Maximum bytes queued for one client connection that does not read, including [`MESSAGE_COST`]
/// per message. The limit counts bytes and not streams: one event for ten thousand watches of a
/// connection makes all of them wait for its window, which is no attack. Ten thousand unread
/// large responses are one.
pub const MAX_STALLED_BYTES: usize = 64 * 1024 * 1024;

/// Memory of a queued message in bytes, in addition to its own bytes.
pub const MESSAGE_COST: usize = 256;

/// Interval at which the proxy checks a stream with an inactive reader: its queue may grow.
pub const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Receive window of a client stream in bytes: the amount that a client may have in transit before
/// etcd accepts it.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// Receive window of a client connection in bytes.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Receive window of one upstream stream in bytes: the most that a slow client can pin in this
/// process (P2).
pub const UPSTREAM_STREAM_WINDOW: u32 = 256 * 1024;

/// Receive window of an upstream connection in bytes. This window is never the effective limit,
/// because one stalled stream would then stall all others. The window of the stream is the limit.
pub const UPSTREAM_CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Bytes that a stream may queue before it reserves window of the receiver. Nearly every unary
/// message fits, and is sent without a pass through flow control. A client that never reads can
/// pin this much with each of its [`MAX_STREAMS`] streams.
pub const FREE_SEND_BYTES: usize = 4 * 1024;

/// Bytes that the HTTP/2 layer queues per stream beyond the window of the receiver.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes collected per connection before a write to the socket.
pub const BATCH_BYTES: usize = 128 * 1024;

/// Write buffers that a worker retains for reuse.
pub const SPARE_BUFFERS: usize = 32;

/// Maximum size in bytes of a retained write buffer. A larger buffer is freed. A full batch is
/// retained, because a stream of large messages would otherwise grow a new buffer for each batch.
pub const SPARE_BUFFER_BYTES: usize = BATCH_BYTES;

/// Bytes read from a socket at once when much arrives. A connection owns such a buffer only while
/// its own unread output prevents it from processing the content.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Buffers of [`READ_AHEAD_BYTES`] that a worker retains for reuse. One is in use at a time.
pub const SPARE_READ_BUFFERS: usize = 4;

/// Maximum size in bytes of a request that is buffered before it is sent upstream, so that a read
/// can be sent to a second endpoint (E2, E5).
pub const REQUEST_BUFFER_BYTES: usize = 64 * 1024;

/// Maximum size in bytes of a read response that is buffered until complete, so that an endpoint
/// that fails halfway causes no failed read (E1). A larger response is streamed.
pub const RESPONSE_BUFFER_BYTES: usize = 128 * 1024;

/// Maximum size in bytes of a response message that the proxy compresses for a client with gzip. A
/// larger one is sent uncompressed, which every client accepts: compression needs the message as a
/// whole, and a worker serves no other client meanwhile (about a millisecond at this size).
pub const COMPRESSED_MESSAGE_BYTES: usize = RESPONSE_BUFFER_BYTES;

/// Maximum bytes of all buffered responses of one upstream connection. Beyond it responses are
/// streamed, which limits them by the windows of the clients. Otherwise one client could have a
/// response buffered for each of its streams.
pub const RESPONSE_BUFFER_BYTES_PER_CONNECTION: usize = 32 * 1024 * 1024;

/// Maximum bytes of one call that are buffered for a resend if etcd provably did not process it
/// (E2).
pub const REPLAY_BYTES: usize = 2 * 1024 * 1024;

/// Maximum bytes buffered for resends of all calls of one worker. Beyond it calls cannot be
/// resent.
pub const REPLAY_BYTES_PER_WORKER: usize = 64 * 1024 * 1024;

/// Maximum tokens with a known user, about 300 B each including the index. A forgotten token
/// shares with no other token; nothing else is lost.
pub const KNOWN_TOKENS: usize = 16_384;

/// Maximum bytes of such a token together with the name of its user.
pub const KNOWN_TOKEN_BYTES: usize = 2 * 1024;

/// Bytes that may be queued for a client stream that shares upstream requests and does not read.
/// One more message may exceed it.
pub const STREAM_SEND_CAPACITY: usize = 64 * 1024;

/// Streams of one connection with the capacity [`STREAM_SEND_CAPACITY`]. Further streams have
/// [`FREE_SEND_BYTES`].
pub const FULL_CAPACITY_STREAMS: usize = 256;

/// Interval at which a client's token is checked while its heartbeats go to etcd with another
/// token of its user. etcd drops a token that is unused for five minutes, and would then refuse
/// the old one at the next heartbeat.
pub const TOKEN_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Validity of etcd's confirmation that a token may read a range (R4), or that the token is
/// valid.
pub const PERMISSION_TTL: Duration = Duration::from_secs(3);

/// Maximum memory in bytes of these confirmations per worker, tokens and keys included. If the
/// cache is full, a confirmation is not cached, and etcd is queried again.
pub const PERMISSION_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of events in transit to one worker, beyond which no upstream watch stream is read.
pub const INBOX_EVENT_BYTES: usize = 64 * 1024 * 1024;

/// Responses of an upstream watch stream that are processed before other tasks run.
pub const WATCH_RESPONSE_BATCH: usize = 256;

/// Interval at which the connection below a watch stream is checked, and the longest pause before
/// the next stream if a stream ends sooner.
pub const WATCH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time for the first response on a new upstream watch stream. Then another endpoint is tried.
pub const WATCH_FIRST_RESPONSE_TIME: Duration = Duration::from_secs(5);

/// Time without a leader at any endpoint until watches that require a leader are notified (W12).
/// An election takes one to two seconds.
pub const LEADERLESS_TIME: Duration = Duration::from_secs(3);

/// Validity of the etcd version that an endpoint reported.
pub const ETCD_VERSION_TTL: Duration = Duration::from_secs(60);

/// Budget of the `h2` crate in bytes for unread small DATA frames of a client connection. A frame
/// below 256 bytes is charged up to 256, so 65,000 frames of one byte may be unread. A full
/// socket buffer of such frames, read at once, is still no attack.
pub const DATA_FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// Maximum streams that the proxy resets on one client connection for protocol errors of the
/// client.
pub const LOCAL_ERROR_RESETS: usize = 200;

/// Streams reset by the proxy that it remembers for [`RESET_MEMORY_TIME`], about 600 B each.
/// Frames that their client had in transit are ignored. Frames for forgotten streams count as
/// protocol errors (see [`LOCAL_ERROR_RESETS`]), for example when many large messages are refused
/// at once.
pub const RESET_MEMORY: usize = 4_096;

/// Time for which a stream reset by the proxy is remembered, up to [`RESET_MEMORY`] streams.
pub const RESET_MEMORY_TIME: Duration = Duration::from_secs(10);

/// Maximum streams that a client opened and reset before the proxy processed them: a burst of
/// cancelled calls, or deadlines shorter than a busy moment of the proxy. [`RESETS_PER_SECOND`]
/// limits their rate. The default of the `h2` crate is 20.
pub const PENDING_RESETS: usize = 2_000;

/// Maximum streams that a client may reset at once.
pub const RESET_BURST: u32 = 10_000;

/// Maximum streams that a client may reset per second after [`RESET_BURST`].
pub const RESETS_PER_SECOND: u32 = 2_000;

/// Maximum burst of frames without a call (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA,
/// CONTINUATION, unknown types). Go clients probe their bandwidth with one PING per round trip,
/// so the value is generous. A flood has a hundred times more.
pub const CONTROL_BURST: u32 = 50_000;

/// Maximum such frames per second after [`CONTROL_BURST`].
pub const CONTROL_PER_SECOND: u32 = 20_000;

/// Early pings of a client that are tolerated. The next one closes its connection. All gRPC
/// servers use this value.
pub const PING_STRIKES: u32 = 2;

/// Minimum time between two pings of a client without an open call, as in gRPC.
pub const PING_WITHOUT_CALLS: Duration = Duration::from_secs(2 * 3600);

/// Minimum silence of a client until it is pinged, as in gRPC. A smaller
/// `--grpc-keepalive-interval` is raised to it.
pub const MIN_CLIENT_PING: Duration = Duration::from_secs(1);

/// Bytes sent to a client that justify one PING or WINDOW_UPDATE of that client: a small
/// response.
pub const BYTES_PER_CONTROL_FRAME: usize = 128;

/// Maximum size in bytes of an HTTP/1.1 request head on an admin listener.
pub const ADMIN_HEAD_BYTES: usize = 16 * 1024;

/// Bytes of the body of an admin request that the proxy reads and discards. No page needs a body,
/// but some clients lose the response if their stream or connection ends while they still send.
/// They are never stored, so the limit is generous.
pub const UNREAD_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Time for which the proxy discards the body of an admin request.
pub const UNREAD_BODY_TIME: Duration = Duration::from_secs(10);

/// Time for which the response of a page waits for the end of the request's body. Some clients
/// lose a response that arrives before it.
pub const UNREAD_BODY_WAIT: Duration = Duration::from_secs(2);

/// Maximum admin requests in progress on one HTTP/2 connection. The proxy answers a further
/// request with 503. A response has up to [`MEMBER_METRICS_BYTES`], and one for a member uses a
/// connection to it.
pub const MAX_ADMIN_REQUESTS: usize = 8;

/// Time to produce one HTTP page, including the request for `/metrics` of a member.
pub const ADMIN_RESPONSE_TIME: Duration = Duration::from_secs(5);

/// Maximum size in bytes of the `/metrics` response of a member.
pub const MEMBER_METRICS_BYTES: usize = 16 * 1024 * 1024;

/// Time limit of the read of a health check.
pub const HEALTH_TIME: Duration = Duration::from_secs(1);

/// Validity of a successful health check.
pub const HEALTH_TTL: Duration = Duration::from_millis(250);

/// Validity of a failed health check.
pub const HEALTH_FAILURE_TTL: Duration = Duration::from_millis(100);

/// Interval of health checks while health watches are open.
pub const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive failed health checks until health watches are notified.
pub const HEALTH_FAILURES: u32 = 2;

/// Maximum open `grpc.health.v1.Health/Watch` calls, all workers together. A further call is
/// refused with RESOURCE_EXHAUSTED.
pub const HEALTH_WATCHES: usize = 16_384;

/// Maximum of these calls per client connection, so that one client cannot use the capacity of
/// all others.
pub const HEALTH_WATCHES_PER_CONNECTION: usize = 2_048;

/// Maximum size in bytes of a `grpc.health.v1` request, which contains the name of a service.
pub const HEALTH_REQUEST_BYTES: u64 = 4 * 1024;

/// Maximum duration of a CPU profile.
pub const PROFILE_TIME: Duration = Duration::from_secs(300);

/// Duration of a CPU profile if the request has none.
pub const PROFILE_DEFAULT_TIME: Duration = Duration::from_secs(30);

/// CPU time between two samples of a profile.
pub const PROFILE_TICK: Duration = Duration::from_millis(10);

/// Interval at which the samples in the slots are collected.
pub const PROFILE_COLLECT_INTERVAL: Duration = Duration::from_millis(100);

/// Samples that are buffered between two collections: those of 64 busy cores. Further samples are
/// lost.
pub const PROFILE_SLOTS: usize = 1_024;

/// Maximum bytes of the stack of a thread that a CPU sample copies, from the innermost frame. Outer
/// frames of a deeper stack are missing in the profile.
pub const PROFILE_STACK_BYTES: usize = 64 * 1024;

/// Maximum frames of a stack in a profile. The innermost frames are recorded.
pub const PROFILE_DEPTH: usize = 64;

/// Maximum distinct stacks of one CPU profile.
pub const PROFILE_STACKS: usize = 65_536;

/// Average number of allocated bytes per recorded allocation while memory is profiled. Go uses
/// the same value.
pub const HEAP_RATE: usize = 512 * 1024;

/// Maximum distinct stacks of recorded allocations, about 1 KiB each.
pub const HEAP_STACKS: usize = 8_192;

/// Maximum recorded allocations that are not freed, which stand for 32 GiB.
pub const HEAP_LIVE: usize = 65_535;

/// Time for one dial: name lookup, connect, TLS, and the HTTP/2 preface of etcd.
pub const DIAL_TIME: Duration = Duration::from_secs(3);

/// Time for one of several addresses during a dial.
pub const DIAL_ADDRESS_TIME: Duration = Duration::from_secs(1);

/// First pause between two dials of an endpoint.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// Longest pause between two dials of an endpoint.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(3);

/// Maximum endpoints in the list, from flags, name servers and the member list of the cluster. A
/// further endpoint is ignored and logged.
pub const MAX_ENDPOINTS: usize = 256;

/// Changes of the selected endpoint that `/proxy/status` lists.
pub const SELECTION_HISTORY: usize = 32;

/// Time limit of the name server queries at start.
pub const DISCOVERY_TIME: Duration = Duration::from_secs(30);

/// Minimum interval between two requests for the member list of the cluster.
pub const MIN_SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Time limit of one request for the member list.
pub const SYNC_TIME: Duration = Duration::from_secs(5);

/// Interval at which balanced endpoints are compared.
pub const OUTLIER_TICK: Duration = Duration::from_millis(500);

/// Intervals that the comparison takes into account. Older ones are dropped.
pub const OUTLIER_TICKS: usize = 10;

/// Consecutive intervals without a response, with calls open, that count as silence.
pub const SILENT_TICKS: usize = 4;

/// Minimum calls of an endpoint, and of the others together, for a conclusion.
pub const OUTLIER_MIN_CALLS: u64 = 20;

/// Error rate in percent from which an endpoint is ejected.
pub const OUTLIER_ERROR_PERCENT: u64 = 20;

/// Multiple of the error rate of the others that an ejection also requires.
pub const OUTLIER_ERROR_FACTOR: u64 = 3;

/// Doublings by which the median latency of an ejected endpoint exceeds the median of the others.
pub const OUTLIER_LATENCY_DOUBLINGS: usize = 3;

/// Latency up to which a response is never too slow.
pub const OUTLIER_LATENCY: Duration = Duration::from_millis(4);

/// Duration of the first ejection. Each consecutive ejection takes twice as long.
pub const EJECTION_FIRST: Duration = Duration::from_secs(10);

/// Maximum duration of an ejection.
pub const EJECTION_LONGEST: Duration = Duration::from_secs(300);

/// Time without an ejection after which the next one has the duration [`EJECTION_FIRST`] again.
pub const EJECTION_RESET_TIME: Duration = Duration::from_secs(60);

/// Time in which an endpoint that returns reaches its full share of the calls.
pub const SLOW_START_TIME: Duration = Duration::from_secs(10);

/// Interval of the checks of an endpoint: whether it can be reached, and the status of its member.
/// The first check is at the start. Each pause is up to a fifth shorter, so that the proxies of a
/// fleet do not check at the same time.
pub const ENDPOINT_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Time limit of one check of an endpoint. A dial has a limit of its own.
pub const ENDPOINT_CHECK_TIME: Duration = Duration::from_secs(5);

/// Interval of log messages about an endpoint that cannot be reached, while the error is the same.
pub const UNREACHABLE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum interval of these messages if the error changes.
pub const UNREACHABLE_LOG_MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Interval at which the leader is queried whether it is still the leader.
pub const LEADER_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of the search for the leader while none is known.
pub const LEADER_SEARCH_INTERVAL: Duration = Duration::from_millis(500);

/// Lifetime of a connection after which earlier failures of its endpoint are forgotten.
pub const BACKOFF_RESET_TIME: Duration = Duration::from_secs(10);

/// Maximum delay of the timers of a call: its deadline, and the time at which a read counts as
/// silent.
pub const TICK: Duration = Duration::from_millis(10);

/// Time that a call waits for any endpoint, and a read for an endpoint that can answer (E4).
pub const WAIT_FOR_ENDPOINT: Duration = Duration::from_secs(30);

/// Maximum time that the shared read of a large batch of clients waits for more of them (R1).
pub const COALESCE_PAUSE: Duration = Duration::from_millis(5);

/// Utilization of the worker in percent from which the shared read waits. Only a busy worker can
/// send the responses of others meanwhile.
pub const COALESCE_MIN_LOAD: u32 = 25;

/// Silence after which a read is also sent to another endpoint (E5).
pub const SILENT_READ: Duration = Duration::from_secs(2);

/// Silence of the connection below a shared stream with an overdue response, after which its
/// endpoint is checked. After the same time again the stream counts as stalled (E5).
pub const SILENT_STREAM: Duration = Duration::from_secs(2);

/// Pause before a read tries all endpoints once more.
pub const READ_ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Interval of pings to etcd while calls are open, if `--dial-keepalive-time` is 0, and the minimum
/// of that flag. etcd closes a connection that receives pings more often than every 5 seconds.
pub const UPSTREAM_PING: Duration = Duration::from_secs(10);

/// Stream id at which an upstream connection is replaced. Stream ids end at 2^31.
pub const LAST_STREAM_ID: u32 = (1 << 31) / 4 * 3;

/// Interval at which an upstream connection checks whether its endpoint is silent, and whether
/// the connection is still needed.
pub const UPSTREAM_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Time for the shutdown of a connection without streams after GOAWAY, and for the last flush.
pub const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Time after the first SIGTERM or SIGINT in which further ones count as the same signal. Programs
/// such as `timeout` signal both the process and its process group.
pub const SIGNAL_REPEAT_TIME: Duration = Duration::from_secs(1);

/// Bytes read from a client after GOAWAY until its socket is closed: the amount that a correct
/// client may have in transit. A flood is not read to its end.
pub const LINGER_BYTES: usize = CONNECTION_WINDOW as usize;

/// Bytes of the event logs of a hub where no flag sets them, as in tests. The program uses
/// `--watch-log-bytes` (W9).
pub const WATCH_LOG_BYTES: usize = 64 * 1024 * 1024;

/// Maximum catch-up watches that one worker has open at etcd. Each is a stream at etcd. Further
/// client watchers wait.
pub const WATCH_CATCH_UPS: usize = 256;

/// Interval of progress notifications of a watch that requests them: the default of etcd.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// Size in bytes at which a response is split for a watch with `fragment`: the default of etcd,
/// 1.5 MiB for a request and 512 KiB for its overhead.
pub const WATCH_FRAGMENT_BYTES: usize = 2 * 1024 * 1024;

/// Maximum pending requests of one watch stream. Beyond it the stream is not read. A Go client
/// sends one create after the other.
pub const WATCH_REQUESTS: usize = 4_096;

/// Maximum client watchers of one stream. A further create is refused in the stream. etcd has no
/// limit.
pub const WATCHERS_PER_STREAM: usize = 131_072;

/// Maximum client watchers of one worker, refused in the same way. Each uses about 400 B if every
/// one has its own range.
pub const WATCHERS_PER_WORKER: usize = 1_048_576;

/// Maximum bytes of keys in the ranges of one watch stream.
pub const WATCH_KEY_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of keys in the pending requests of one watch stream, beyond which the stream is not
/// read.
pub const WATCH_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Divisor of the total log size: one range may use one part in this many.
pub const WATCH_LOG_SHARE: usize = 4;

/// Maximum revisions between the next revision of a client watcher and the frontier of a catch-up
/// for the client watcher to share it.
pub const CATCH_UP_SHARE_REVISIONS: i64 = 1_000;

/// Events that are processed for slow client watchers before the worker runs other tasks.
pub const WATCH_EVENTS_PER_TURN: usize = 16_384;

/// Time after which a catch-up is closed if no client watcher can take its events. The proxy
/// opens it again when one can. A client that stopped reading leaves no catch-up open at etcd.
pub const CATCH_UP_IDLE_TIME: Duration = Duration::from_secs(10);

/// Time after which narrow upstream watchers replace a wide one that only narrow client watchers
/// still use. After the same time a watcher without `prev_kv` replaces one with an unneeded
/// `prev_kv`.
pub const WATCH_NARROW_AFTER: Duration = Duration::from_secs(10);

/// Maximum narrow ranges for which a wide upstream watcher is replaced. More ranges are better
/// served by the wide one.
pub const WATCH_NARROW_GROUPS: usize = 16;

/// Pause before a progress request that could not be answered soundly is repeated (W8).
pub const WATCH_BARRIER_PAUSE: Duration = Duration::from_millis(100);

/// Maximum unanswered creates on one upstream watch stream. Further ones wait in the proxy. An
/// etcd that answers none is then not sent an unlimited number of watchers that clients open and
/// close.
pub const WATCH_CREATES: usize = 4_096;

/// Interval at which the progress of an upstream watch stream is requested while no client waits
/// for it. A quiet range is at most this far behind, so that it can be resumed before its
/// revision is compacted.
pub const WATCH_PROBE: Duration = Duration::from_secs(10);

/// First pause until an unanswered progress request is repeated. Each pause is twice the previous
/// one. etcd drops a progress request, and never answers it, while any watch of the stream is
/// behind.
pub const WATCH_PROGRESS_FIRST: Duration = Duration::from_millis(100);

/// Longest pause until an unanswered progress request is repeated.
pub const WATCH_PROGRESS_LONGEST: Duration = Duration::from_secs(1);

/// Age at which an unanswered progress request counts as dropped. Until then the next response
/// may belong to it, and does not count as the response to a later request.
pub const WATCH_PROGRESS_DROPPED: Duration = Duration::from_secs(5);

/// Maximum finished calls queued for a log, half a kilobyte each. Further ones are counted and
/// lost.
pub const CALL_LOG_QUEUE: usize = 8_192;

/// Bytes of lines that are written to the access log at once.
pub const CALL_LOG_BATCH_BYTES: usize = 64 * 1024;

/// Maximum logged bytes of the path of a call.
pub const CALL_LOG_PATH_BYTES: usize = 256;

/// First bytes of a request that are retained, so that debug logging can describe the request.
pub const CALL_LOG_REQUEST_BYTES: usize = 1024;

/// Minimum time between two warnings about lost log lines or spans.
pub const CALL_LOG_WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Time at the end of the process for queued lines and spans.
pub const CALL_LOG_FLUSH_TIME: Duration = Duration::from_secs(2);

/// Maximum queued spans. Further ones are counted and lost.
pub const SPAN_QUEUE: usize = 4_096;

/// Maximum spans sent at once.
pub const SPAN_BATCH: usize = 512;

/// Time that the first span of a batch waits for more.
pub const SPAN_BATCH_TIME: Duration = Duration::from_secs(1);

/// Time to send one batch, all attempts together.
pub const SPAN_EXPORT_TIME: Duration = Duration::from_secs(5);

/// Maximum size in bytes of a response of the collector.
pub const SPAN_RESPONSE_BYTES: usize = 64 * 1024;

/// Maximum size in bytes of a keepalive request: a few bytes, and fields that a later etcd may
/// add.
pub const KEEP_ALIVE_BYTES: u64 = 4 * 1024;

/// Maximum bytes, per worker, of incomplete messages larger than half a window on streams that
/// share upstream requests. Messages that a namespace has to translate are included, beyond
/// [`CONNECTION_WINDOW`] of a connection; decompressed ones count until they are sent.
pub const LARGE_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Maximum bytes, per worker, of incomplete responses above [`RESPONSE_BUFFER_BYTES`] that a
/// namespace has to translate.
pub const LARGE_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// Maximum unanswered heartbeats of one client stream. Beyond it the stream is not read. Each
/// uses about 150 B if every one is for its own lease. Streams of a connection beyond
/// [`FULL_CAPACITY_STREAMS`] have [`LEASE_REDUCED_PENDING`].
pub const LEASE_PENDING: u32 = 128;

/// Maximum unanswered heartbeats of a client stream beyond [`FULL_CAPACITY_STREAMS`].
pub const LEASE_REDUCED_PENDING: u32 = 8;

/// Leases remembered per identity while no heartbeat is pending, about 60 B each. A forgotten
/// lease may wait behind others at its next heartbeat if one of them blocks.
pub const LEASES_REMEMBERED: usize = 262_144;

/// Maximum heartbeats sent on one upstream stream before the first of them is answered. As many
/// are sent again if one of them blocks.
pub const LEASE_BATCH: usize = 256;

/// Size of a batch from which the next batch waits [`LEASE_BATCH_DELAY`] for more heartbeats.
/// Each write and read costs the same for many heartbeats as for one, in the proxy and in etcd.
pub const LEASE_LARGE_BATCH: usize = 16;

/// Time that a batch waits for more heartbeats after one of [`LEASE_LARGE_BATCH`].
pub const LEASE_BATCH_DELAY: Duration = Duration::from_millis(1);

/// Time after which an unanswered heartbeat counts as blocking its stream, if its lease may have
/// expired. A lease is renewed with two thirds of its time left, and none lives shorter than two
/// seconds, so half a second makes no difference.
pub const LEASE_BLOCKED_TIME: Duration = Duration::from_millis(300);

/// Time after which an unanswered heartbeat counts as blocking if its lease cannot have expired:
/// the endpoint is at fault.
pub const LEASE_SILENT_TIME: Duration = Duration::from_secs(2);

/// Time for a heartbeat that is alone on its stream until another endpoint is tried. If the lease
/// itself blocks, it also blocks there, so nothing is lost.
pub const LEASE_ISOLATED_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for which leases that may have expired are isolated after one of them blocked a stream.
pub const LEASE_ISOLATION_PERIOD: Duration = Duration::from_secs(10);

/// Maximum parallel TTL checks of leases per identity, before their heartbeats are sent.
pub const LEASE_TTL_CHECKS: usize = 64;

/// Maximum interval of the check for heartbeats that have waited too long.
pub const LEASE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum upstream streams for heartbeats that may block, per identity. Only expired leases use
/// them.
pub const LEASE_ISOLATED_STREAMS: usize = 32;

/// Maximum upstream streams for heartbeats that may block, per client connection.
pub const LEASE_ISOLATED_STREAMS_PER_CONNECTION: usize = 4;

/// Maximum upstream streams that the heartbeats of one identity share. A follower forwards each
/// heartbeat to the leader, one after the other, so more streams are faster.
pub const LEASE_SHARED_STREAMS: usize = 32;

/// Time that a heartbeat waits until one more shared stream is opened, up to
/// [`LEASE_SHARED_STREAMS`].
pub const LEASE_NEW_STREAM_WAIT: Duration = Duration::from_millis(100);

/// Time that a heartbeat waits until a further shared stream sends it instead of the first. If
/// the first stream sends every heartbeat sooner, the others are idle and close.
pub const LEASE_SPILL_WAIT: Duration = Duration::from_millis(20);

/// Idle time after which all upstream streams but one are closed.
pub const LEASE_STREAM_IDLE: Duration = Duration::from_secs(10);

/// Idle time after which the last upstream stream is closed, when no client stream is left. A
/// client that renews once is likely to reconnect.
pub const LEASE_LINGER: Duration = Duration::from_secs(1);

/// Default of `--cache-bytes`: bytes of cached responses for serializable reads (R6).
pub const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Default of `--cache-max-age`: the maximum age of a cached response (R2).
pub const CACHE_MAX_AGE: Duration = Duration::from_secs(1);

/// Maximum size in bytes of a cached response with its index entry. A larger response is not
/// buffered either.
pub const CACHE_ENTRY_BYTES: usize = RESPONSE_BUFFER_BYTES;

/// Shards of the cache, each with its own lock.
pub const CACHE_SHARDS: usize = 16;

/// Requests per interval that make a cached response hot. A watch then proves it current, instead
/// of one read per second.
pub const CACHE_HOT_REQUESTS: u32 = 32;

/// Consecutive intervals with [`CACHE_HOT_REQUESTS`] that make a cached response hot.
pub const CACHE_HOT_INTERVAL_COUNT: u32 = 3;

/// Length of an interval in which [`CACHE_HOT_REQUESTS`] are counted.
pub const CACHE_HOT_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum watch-backed entries, all workers together.
pub const CACHE_WATCH_BACKED: usize = 1_024;

/// Time in which a watch-backed entry must receive [`CACHE_HOT_REQUESTS`] requests to remain
/// watch-backed.
pub const CACHE_COLD_AFTER: Duration = Duration::from_secs(10);

/// Maximum parallel comparisons of cached responses with etcd, per worker.
pub const CACHE_AUDITS: usize = 8;

/// Maximum ranges with a recorded last write. Beyond it the older half counts as a write to all
/// keys.
pub const CACHE_FLOORS: usize = 16_384;

/// Maximum bytes of the keys of these ranges, with the same effect.
pub const CACHE_FLOOR_BYTES: usize = 4 * 1024 * 1024;

/// Time after a write with an unknown outcome during which its keys are read from etcd only. The
/// write may still be in transit.
pub const CACHE_UNCERTAIN_TIME: Duration = Duration::from_secs(8);

/// Maximum places that a namespace rewrites in one request: keys, range ends, and the lengths
/// around them. The largest transaction that etcd accepts by default has a few thousand.
pub const TRANSLATED_PLACES: usize = 262_144;

/// Maximum depth of nested transactions in a namespace. etcd has the same limit at its default
/// number of operations in a transaction.
pub const TRANSACTION_DEPTH: u32 = 128;

/// Maximum proxies below the resolver prefix that MemberList returns.
pub const FLEET_MEMBERS: usize = 1_024;

/// Maximum size in bytes of a key or value of a registered proxy. All proxies together have at
/// most four million bytes.
pub const FLEET_VALUE_BYTES: usize = 2 * 1024;

/// Maximum size in bytes of a response to a read or watch of the resolver prefix. If there is
/// more, the proxy repeats the read after pauses, and MemberList returns the previous list.
pub const FLEET_RESPONSE_BYTES: usize = 8 * 1024 * 1024;

/// Time limit of one registration step.
pub const FLEET_CALL_TIME: Duration = Duration::from_secs(5);

/// Time limit of the revocation at the end of the process.
pub const FLEET_REVOKE_TIME: Duration = Duration::from_secs(2);

/// Time for which the registration key must be absent until it is written again. A watch may lag.
pub const FLEET_ABSENT_TIME: Duration = Duration::from_secs(1);

/// Pause until a registration that continues to fail is logged again, if its error has changed.
pub const FLEET_WARN_INTERVAL: Duration = Duration::from_secs(60);

const _: () = {
    assert!(FLEET_MEMBERS * FLEET_VALUE_BYTES * 2 <= FLEET_RESPONSE_BYTES);
    assert!(SPAN_BATCH <= SPAN_QUEUE);
    assert!(FLEET_REVOKE_TIME.as_millis() < FLEET_CALL_TIME.as_millis());
    assert!(PROFILE_DEFAULT_TIME.as_millis() < PROFILE_TIME.as_millis());
    // The counter of recorded allocations has 16 bits.
    assert!(HEAP_LIVE <= u16::MAX as usize);
    assert!(UNREAD_BODY_WAIT.as_millis() < UNREAD_BODY_TIME.as_millis());
    assert!(HEALTH_FAILURE_TTL.as_millis() <= HEALTH_TTL.as_millis());
    assert!(HEALTH_TTL.as_millis() < HEALTH_CHECK_INTERVAL.as_millis());
    assert!(HEALTH_WATCHES_PER_CONNECTION < HEALTH_WATCHES);
    assert!(CACHE_ENTRY_BYTES * CACHE_SHARDS <= CACHE_BYTES);
    assert!(LEASE_REDUCED_PENDING <= LEASE_PENDING);
    assert!(LEASE_ISOLATED_STREAMS_PER_CONNECTION < LEASE_ISOLATED_STREAMS);
    assert!(LEASE_BATCH_DELAY.as_millis() < LEASE_SPILL_WAIT.as_millis());
    assert!(LEASE_SPILL_WAIT.as_millis() < LEASE_NEW_STREAM_WAIT.as_millis());
    assert!(LEASE_NEW_STREAM_WAIT.as_millis() < LEASE_BLOCKED_TIME.as_millis());
    assert!(LEASE_BLOCKED_TIME.as_millis() < LEASE_SILENT_TIME.as_millis());
    assert!(LEASE_ISOLATED_TIMEOUT.as_millis() < LEASE_ISOLATION_PERIOD.as_millis());
    assert!(LEASE_ISOLATION_PERIOD.as_millis() < WAIT_FOR_ENDPOINT.as_millis());
    assert!(WATCHERS_PER_STREAM <= WATCHERS_PER_WORKER);
    assert!(TLS_SETTLE_TIME.as_millis() < TLS_REPORT_DELAY.as_millis());
    assert!(TLS_REPORT_DELAY.as_millis() < TLS_POLL_INTERVAL.as_millis());
    assert!(STREAM_WINDOW <= CONNECTION_WINDOW);
    assert!(FREE_SEND_BYTES <= SEND_BUFFER_BYTES);
    assert!(SPARE_BUFFER_BYTES <= BATCH_BYTES);
    assert!(BATCH_BYTES.is_power_of_two());
    assert!(REQUEST_BUFFER_BYTES <= STREAM_WINDOW as usize);
    // A larger buffered response would wait for a window update that is never sent.
    assert!(RESPONSE_BUFFER_BYTES < UPSTREAM_STREAM_WINDOW as usize);
    assert!(RESPONSE_BUFFER_BYTES <= RESPONSE_BUFFER_BYTES_PER_CONNECTION);
    assert!(STREAM_SEND_CAPACITY * FULL_CAPACITY_STREAMS * 4 <= MAX_STALLED_BYTES);
    assert!(FREE_SEND_BYTES * MAX_STREAMS as usize <= MAX_STALLED_BYTES);
    assert!(REPLAY_BYTES <= REPLAY_BYTES_PER_WORKER);
    assert!(PENDING_RESETS <= RESET_BURST as usize);
    assert!(STALL_CHECK_INTERVAL.as_millis() <= STALLED_READER_TIME.as_millis());
    assert!(UPSTREAM_STREAM_WINDOW as usize <= MAX_STALLED_BYTES);
    assert!(DIAL_ADDRESS_TIME.as_millis() < DIAL_TIME.as_millis());
    assert!(BACKOFF_FIRST.as_millis() < BACKOFF_LONGEST.as_millis());
    assert!(UPSTREAM_CHECK_INTERVAL.as_millis() <= UPSTREAM_PING.as_millis());
    assert!(SILENT_READ.as_millis() < WAIT_FOR_ENDPOINT.as_millis());
    assert!(WATCH_PROGRESS_FIRST.as_millis() < WATCH_PROGRESS_LONGEST.as_millis());
    assert!(WATCH_PROGRESS_LONGEST.as_millis() < WATCH_PROGRESS_DROPPED.as_millis());
    assert!(WATCH_PROGRESS_DROPPED.as_millis() < WATCH_PROBE.as_millis());
    assert!(DATA_FRAME_BUDGET >= CONNECTION_WINDOW as usize / 2);
};
