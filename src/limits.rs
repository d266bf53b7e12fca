//! Every bound of the process by name, with its reason (S1). Nothing here depends on a flag:
//! a flag may only move a value inside what stands here.
//!
//! Sizes are bytes, times are [`Duration`]s. Bounds that lean on one another are compared at
//! compile time at the end of the file.

use std::time::Duration;

/// Client connections open at once, all workers together. A further one is closed unanswered.
/// The descriptor limit of the process is raised towards this at start and lowers it if smaller.
pub const MAX_CONNECTIONS: usize = 65_536;

/// Bytes of a configuration file; a larger one is not read.
pub const CONFIG_BYTES: u64 = 1024 * 1024;

/// Descriptors kept back from clients: listeners, upstream connections, epoll, logs.
pub const RESERVED_DESCRIPTORS: usize = 64;

/// Connections of `--metrics-addr` open at once, all of its listeners together, beside those of clients; each
/// may need another one to etcd, and descriptors for both are kept back. A further one is closed unanswered.
pub const MAX_PAGE_CONNECTIONS: usize = 64;

/// Streams one client connection may have open, whatever `--max-concurrent-streams` says.
/// An open stream costs about 4 KiB here, so one client can hold at most 64 MiB this way.
pub const MAX_STREAMS: u32 = 16_384;

/// Calls open at once on one worker, all connections together. A further one is refused with
/// RESOURCE_EXHAUSTED before anything of it goes upstream.
pub const MAX_CALLS_PER_WORKER: usize = 131_072;

/// Decoded size of a header list, client and etcd side. Tokens are below 2 KiB; gRPC peers
/// default to 8–16 KiB. The `h2` crate's own default is 16 MiB.
pub const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// Fields of one header list. The `h2` crate bounds only the bytes; an empty field costs
/// 32 of those but far more memory in a map.
pub const HEADER_FIELDS: usize = 128;

/// Time from accept to the first HTTP request or the HTTP/2 preface, TLS handshake included.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Bytes of one file of certificates, keys or revoked ones: a list of a million is half of it.
pub const TLS_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Pause after word of a changed file before files are read: a change is seldom of one file only.
pub const TLS_SETTLE_TIME: Duration = Duration::from_millis(100);

/// Time that files may be wrong after a change before they are called so: half of a change is.
pub const TLS_SUSPECT_TIME: Duration = Duration::from_secs(1);

/// How often those files are looked at without any word: not every file system gives one.
pub const TLS_LOOK: Duration = Duration::from_secs(10);

/// Time for a client to finish sending the message of a unary call once it has begun.
pub const REQUEST_TIME: Duration = Duration::from_secs(60);

/// Time a unary answer waits for its client to read on before the call is given up.
pub const STALLED_READER_TIME: Duration = Duration::from_secs(60);

/// Time the kernel keeps unacknowledged or unsendable bytes of a client's connection
/// (TCP_USER_TIMEOUT): a client that stopped reading the whole socket is gone after it.
pub const STALLED_SOCKET_TIME: Duration = Duration::from_secs(300);

/// Silence after which the kernel asks a client's machine whether it is still there, and the pause
/// between two such questions; unanswered for [`STALLED_SOCKET_TIME`], the connection is gone.
/// Without them one that vanished without a word would be kept for ever.
pub const SILENT_SOCKET_TIME: Duration = Duration::from_secs(15);

/// Bytes that wait here for one client connection which does not read, with what keeps them (see
/// [`MESSAGE_COST`]). Counted in bytes, not in streams: one event for ten thousand watches of a connection lets them all wait for its window
/// at once, and is no attack; ten thousand large answers that nobody reads are one.
pub const MAX_STALLED_BYTES: usize = 64 * 1024 * 1024;

/// What a message that waits for its client holds in memory beside its bytes.
pub const MESSAGE_COST: usize = 256;

/// How often a stream whose client does not read is looked at: what waits for it grows.
pub const STALL_LOOK: Duration = Duration::from_secs(1);

/// Receive window of a client's stream: what a sender may have on its way before etcd takes it.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// Receive window of a client's connection.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Receive window of one upstream stream: what one client that reads slowly can pin here (P2).
pub const UPSTREAM_STREAM_WINDOW: u32 = 256 * 1024;

/// Receive window of an upstream connection: never the bound, since one stalled stream would
/// then stall all others. The stream's window is the bound.
pub const UPSTREAM_CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Bytes a stream may queue towards a peer before the peer's window is asked for. Nearly every
/// unary message fits, so it leaves without a round through the flow control. A client that
/// never reads can pin this much with each of its [`MAX_STREAMS`].
pub const FREE_SEND_BYTES: usize = 4 * 1024;

/// Bytes the HTTP/2 layer queues per stream beyond the peer's window.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes collected per connection before they are written to the socket.
pub const BATCH_BYTES: usize = 128 * 1024;

/// Write buffers a worker keeps for reuse.
pub const SPARE_BUFFERS: usize = 32;

/// A write buffer above this size is freed instead of kept. A full batch is not: a stream of large
/// messages would grow a new one for each.
pub const SPARE_BUFFER_BYTES: usize = BATCH_BYTES;

/// Bytes read from a socket at once when much arrives. A connection holds such a buffer only while
/// its own output, which nobody reads, keeps it from taking what is in there.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Buffers of [`READ_AHEAD_BYTES`] that a worker keeps for reuse; one is in use at a time.
pub const SPARE_READ_BUFFERS: usize = 4;

/// Requests up to this size are gathered before they go upstream, so that a read can be sent
/// to a second endpoint (E2, E5).
pub const GATHER_BYTES: usize = 64 * 1024;

/// Answers of reads up to this size are held until complete, so that an endpoint that dies in
/// the middle of one costs no failed read (E1). Larger ones stream.
pub const HOLD_BYTES: usize = 128 * 1024;

/// The same over all answers of one upstream connection; beyond it they stream, which leaves them
/// to the client's windows. Else one client could have its every stream's answer held at once.
pub const HOLD_BYTES_PER_CONNECTION: usize = 32 * 1024 * 1024;

/// Bytes of one call kept for sending it again when it was provably not processed (E2).
pub const REPLAY_BYTES: usize = 2 * 1024 * 1024;

/// The same over all calls of one worker; beyond it calls are sent without a second chance.
pub const REPLAY_BYTES_PER_WORKER: usize = 64 * 1024 * 1024;

/// Tokens whose users are remembered, and the longest of them with its user's name: about 300 B each
/// with what keeps them. One that is forgotten shares with nobody, and loses nothing else.
pub const TOKENS: usize = 16_384;
/// See [`TOKENS`].
pub const TOKEN_BYTES: usize = 2 * 1024;

/// Bytes that may wait here for one stream of a client that shares what goes to etcd and does not read, and one message
/// more; and the streams of a connection that have this much. Further ones have
/// [`FREE_SEND_BYTES`].
pub const STREAM_ROOM: usize = 64 * 1024;
/// See [`STREAM_ROOM`].
pub const ROOMY_STREAMS: usize = 256;

/// How often a client's token is looked at while its heartbeats go to etcd with another of its user:
/// etcd lets a token go that was not used for five minutes, and would refuse an old one at the next
/// heartbeat.
pub const TOKEN_LOOK: Duration = Duration::from_secs(60);

/// How long etcd's word counts that a token may read a range (R4), or that it is one.
pub const GRANT_TIME: Duration = Duration::from_secs(3);

/// What such words may hold in memory per worker, tokens and keys included. One that finds no room
/// is not remembered, and etcd is asked again.
pub const GRANT_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of events on their way to a worker, beyond which no watch stream of etcd is read.
pub const MAIL_BYTES: usize = 64 * 1024 * 1024;

/// Answers of a watch stream that are worked off before others have their turn.
pub const WATCH_ANSWERS_AT_ONCE: usize = 256;

/// How often it is looked whether the connection under a watch stream still serves; and a stream that
/// ends sooner is followed by the next after a pause, of this length at most.
pub const WATCH_LOOK: Duration = Duration::from_secs(1);

/// Time for the first answer on a new watch stream until it is tried elsewhere.
pub const WATCH_UNANSWERED: Duration = Duration::from_secs(5);

/// Time that no endpoint has had a leader until watches that care are told (W12): an election takes
/// one to two seconds.
pub const LEADERLESS_TIME: Duration = Duration::from_secs(3);

/// How long an endpoint's release is taken to be what it said.
pub const RELEASE_TIME: Duration = Duration::from_secs(60);

/// Unread small DATA frames: the budget of the `h2` crate, in bytes, towards a client. A frame
/// below 256 bytes takes what it lacks to them, so 65,000 of one byte may lie unread; a full
/// socket buffer of such frames, read in one go, is still no attack.
pub const DATA_FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// Streams reset by this side on one client connection for its protocol errors.
pub const LOCAL_ERROR_RESETS: usize = 200;

/// Streams reset by this side that are remembered, for [`RESET_MEMORY_TIME`]. What their client
/// had on its way is ignored; after it they count as errors of the client's (see
/// [`LOCAL_ERROR_RESETS`]), as when many large messages are refused at once. About 600 B each.
pub const RESET_MEMORY: usize = 4_096;
/// See [`RESET_MEMORY`].
pub const RESET_MEMORY_TIME: Duration = Duration::from_secs(10);

/// Streams opened and reset by a client before this side has looked at them even once: a burst
/// of calls given up at once, or with deadlines shorter than a busy moment here. Their rate is
/// bounded by [`RESETS_PER_SECOND`]; the `h2` crate's own default is 20.
pub const PENDING_RESETS: usize = 2_000;

/// Streams a client resets: how many at once and how many a second it may go on with.
pub const RESET_BURST: u32 = 10_000;
/// See [`RESET_BURST`].
pub const RESETS_PER_SECOND: u32 = 2_000;

/// Frames that carry no call (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA,
/// CONTINUATION, unknown): burst and rate. Go clients probe their bandwidth with one PING per
/// round trip, so the figures are generous; a flood is a hundred times more.
pub const CONTROL_BURST: u32 = 50_000;
/// See [`CONTROL_BURST`].
pub const CONTROL_PER_SECOND: u32 = 20_000;

/// Pings of a client that come too soon and are borne; the next one ends its connection. Where all
/// gRPC servers stand.
pub const PING_STRIKES: u32 = 2;

/// Least time between two pings of a client that has no call open, as gRPC has it.
pub const PING_WITHOUT_CALLS: Duration = Duration::from_secs(2 * 3600);

/// Least silence of a client after which it is pinged, whatever `--grpc-keepalive-interval` says, as
/// gRPC has it.
pub const LEAST_CLIENT_PING: Duration = Duration::from_secs(1);

/// Bytes sent to a client that explain one PING or WINDOW_UPDATE of it: a small answer.
pub const BYTES_PER_CONTROL_FRAME: usize = 128;

/// HTTP/1.1 request head on the page listener.
pub const PAGE_HEAD_BYTES: usize = 16 * 1024;

/// Pages being made or sent at once on one HTTP/2 connection; a further request is told 503. A
/// page is up to [`PAGE_BYTES`] and one of a member costs a connection to it.
pub const MAX_PAGES: usize = 8;

/// Time for one HTTP page to be made, `/metrics` of a member included.
pub const PAGE_TIME: Duration = Duration::from_secs(5);

/// Largest `/metrics` page taken from a member.
pub const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Time limit of a health probe's read.
pub const HEALTH_TIME: Duration = Duration::from_secs(1);

/// How long what a probe found counts for those who ask after it: well, and not.
pub const HEALTH_KEPT: Duration = Duration::from_millis(250);
/// See [`HEALTH_KEPT`].
pub const HEALTH_FAILURE_KEPT: Duration = Duration::from_millis(100);

/// How often etcd is probed while somebody waits to be told of changes, and how many probes in a row
/// must fail until he is told so.
pub const HEALTH_LOOK: Duration = Duration::from_secs(1);
/// See [`HEALTH_LOOK`].
pub const HEALTH_FAILURES: u32 = 2;

/// Calls of `grpc.health.v1.Health/Watch` open at once, all workers together. A further one is refused
/// with RESOURCE_EXHAUSTED.
pub const HEALTH_FOLLOWERS: usize = 16_384;

/// Of these, those of one client connection: it cannot take the places of all others.
pub const HEALTH_FOLLOWERS_OF_ONE: usize = 2_048;

/// The largest request of `grpc.health.v1`: the name of a service.
pub const HEALTH_REQUEST_BYTES: u64 = 4 * 1024;

/// The longest profile of CPU time, and how long one is where nobody says.
pub const PROFILE_TIME: Duration = Duration::from_secs(300);
/// See [`PROFILE_TIME`].
pub const PROFILE_DEFAULT_TIME: Duration = Duration::from_secs(30);

/// CPU time between two samples of a profile.
pub const PROFILE_TICK: Duration = Duration::from_millis(10);

/// How often samples are gathered, and how many may lie there until then: those of 64 cores that are busy.
pub const PROFILE_GATHER: Duration = Duration::from_millis(100);
/// See [`PROFILE_GATHER`].
pub const PROFILE_PLACES: usize = 1_024;

/// Calls of a stack that a profile shows, the innermost.
pub const PROFILE_DEPTH: usize = 64;

/// Stacks of one profile that are told apart.
pub const PROFILE_STACKS: usize = 65_536;

/// Bytes of allocations of which one is noted where memory is profiled: Go's own.
pub const HEAP_RATE: usize = 512 * 1024;

/// Stacks of allocations that are told apart, about 1 KiB each, and allocations that are noted and not
/// freed: 32 GiB of them.
pub const HEAP_STACKS: usize = 8_192;
/// See [`HEAP_STACKS`].
pub const HEAP_LIVE: usize = 65_535;

/// Time for one dial: name lookup, connect, TLS, and etcd's HTTP/2 preface.
pub const DIAL_TIME: Duration = Duration::from_secs(3);

/// Time for one address of several during a dial.
pub const DIAL_ADDRESS_TIME: Duration = Duration::from_secs(1);

/// First and longest pause between two dials of one endpoint.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// See [`BACKOFF_FIRST`].
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(3);

/// Endpoints in the list at once, whatever flags, a name server or the cluster's member list say. A
/// further one is left out, with a line in the log.
pub const MAX_ENDPOINTS: usize = 256;

/// Times that endpoints began or ceased to serve which are remembered for people.
pub const SWITCHES: usize = 32;

/// Time limit of the questions to name servers at start.
pub const DISCOVERY_TIME: Duration = Duration::from_secs(30);

/// Least interval at which the cluster's member list is asked for.
pub const LEAST_SYNC: Duration = Duration::from_millis(100);

/// Time limit of one question for the member list.
pub const SYNC_TIME: Duration = Duration::from_secs(5);

/// How often endpoints that share calls are compared.
pub const OUTLIER_TICK: Duration = Duration::from_millis(500);

/// Ticks that count: what is older is forgotten.
pub const OUTLIER_TICKS: usize = 10;

/// Ticks in a row without an answer, with calls open, that count as silence.
pub const SILENT_TICKS: usize = 4;

/// Calls of an endpoint, and of the others together, below which nothing is concluded.
pub const OUTLIER_CALLS: u64 = 20;

/// Calls that fail, in per cent, from which an endpoint is left out.
pub const OUTLIER_ERRORS: u64 = 20;

/// So many times the others' rate of errors it must be besides.
pub const OUTLIER_TIMES: u64 = 3;

/// Half of its answers take longer than half of the others' by so many doublings.
pub const OUTLIER_STEPS: usize = 3;

/// Answers within this are never too slow.
pub const OUTLIER_LATENCY: Duration = Duration::from_millis(4);

/// How long an endpoint is left out at first, doubled each time in a row, and at the most.
pub const EJECTION_FIRST: Duration = Duration::from_secs(10);
/// See [`EJECTION_FIRST`].
pub const EJECTION_LONGEST: Duration = Duration::from_secs(300);

/// After so long without being left out again it is the first time once more.
pub const EJECTION_FORGOTTEN: Duration = Duration::from_secs(60);

/// How long an endpoint that comes back takes to its full part of the calls.
pub const SLOW_RETURN: Duration = Duration::from_secs(10);

/// How often the leader is asked whether it still leads, and while none is known, who does.
pub const LEADER_LOOK: Duration = Duration::from_secs(5);
/// See [`LEADER_LOOK`].
pub const LEADER_SEARCH: Duration = Duration::from_millis(500);

/// A connection that lived this long forgets earlier failures of its endpoint.
pub const STEADY_TIME: Duration = Duration::from_secs(10);

/// How late a call's timers may be: its deadline, and the moment a read counts as silent.
pub const TICK: Duration = Duration::from_millis(10);

/// How long a call waits for any endpoint, and a read for one that can answer (E4).
pub const WAIT_FOR_ENDPOINT: Duration = Duration::from_secs(30);

/// Longest that the shared read of a large crowd waits for more of it (R1).
pub const CROWD_PAUSE: Duration = Duration::from_millis(5);

/// It waits only while its worker is busy for this share of its time, in percent: then others' answers are
/// sent meanwhile.
pub const CROWD_LOAD: u32 = 25;

/// A read silent for this long is also sent to another endpoint (E5).
pub const SILENT_READ: Duration = Duration::from_secs(2);

/// Silence of the connection under a shared stream that has not told all it should, after which its endpoint
/// is asked whether it lives; as long again, and it is stalled (E5).
pub const SILENT_STREAM: Duration = Duration::from_secs(2);

/// Pause before a read goes through all endpoints once more.
pub const READ_ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Interval of pings to etcd while calls are open, when `--dial-keepalive-time` is 0. etcd
/// closes a connection that is pinged more often than every 5 s.
pub const UPSTREAM_PING: Duration = Duration::from_secs(10);

/// Stream id at which an upstream connection is replaced: ids end at 2^31.
pub const LAST_STREAM_ID: u32 = (1 << 31) / 4 * 3;

/// How often an upstream connection looks whether its peer is silent, and whether it is still
/// needed.
pub const UPSTREAM_LOOK: Duration = Duration::from_secs(5);

/// Shutdown of a stream-less connection after GOAWAY, and the last flush.
pub const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// Bytes read from a client that was told GOAWAY until its socket is closed: what a well-behaved
/// one may have on its way. A flood is not read to its end.
pub const LINGER_BYTES: usize = CONNECTION_WINDOW as usize;

/// Bytes that the logs of a hub hold where nobody says otherwise, as in tests: the program's come from
/// `--watch-log-bytes` (W9).
pub const WATCH_LOG_BYTES: usize = 64 * 1024 * 1024;

/// Catch-up watches one worker has open at etcd at once. Each is a stream there; a c-watcher beyond
/// them waits for its turn.
pub const WATCH_CATCH_UPS: usize = 256;

/// Time between two progress notices of a watch that asked for them: etcd's own default.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// Size at which an answer is cut for a watch that asked for `fragment`: etcd's own default,
/// 1.5 MiB for a request and 512 KiB for what is around it.
pub const WATCH_FRAGMENT_BYTES: usize = 2 * 1024 * 1024;

/// Requests of one watch stream that wait for their turn; beyond it none is read. A Go client sends
/// one create after the other.
pub const WATCH_REQUESTS: usize = 4_096;

/// c-watchers of one stream. A further create is refused in-band; etcd has no limit.
pub const WATCHERS_PER_STREAM: usize = 131_072;

/// c-watchers of one worker, as above: about 400 B each where every one has a range of its own.
pub const WATCHERS_PER_WORKER: usize = 1_048_576;

/// Bytes of keys in the ranges that one stream watches.
pub const WATCH_KEY_BYTES: usize = 64 * 1024 * 1024;

/// Keys in one stream's requests that wait for their turn, in bytes, beyond which none is read.
pub const WATCH_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// The part of all logs that one range may take: one in so many.
pub const WATCH_LOG_SHARE: usize = 4;

/// Revisions between a c-watcher's next and a catch-up's frontier up to which they share it.
pub const WATCH_NEAR: i64 = 1_000;

/// Events looked at for slow c-watchers before the worker does something else.
pub const WATCH_TURN: usize = 16_384;

/// Time after which a catch-up that nobody can take from is closed, and opened again when somebody
/// can: a client that stopped reading keeps none open at etcd.
pub const WATCH_PAUSED: Duration = Duration::from_secs(10);

/// Time after which a wide watch that only narrow c-watchers still use makes way for theirs, or one
/// with `prev_kv` that nobody wants any more for one without.
pub const WATCH_NARROW_AFTER: Duration = Duration::from_secs(10);

/// Most narrow ranges for which a wide watch makes way: more of them are better served by it.
pub const WATCH_NARROW_GROUPS: usize = 16;

/// Pause before a progress request is tried again that could not be answered soundly (W8).
pub const WATCH_BARRIER_PAUSE: Duration = Duration::from_millis(100);

/// Unanswered creates on one upstream watch stream; more wait here, so that an etcd that answers
/// none is not sent without end what clients open and close meanwhile.
pub const WATCH_CREATES: usize = 4_096;

/// How often the progress of an upstream watch stream is asked for while nobody waits for it: a
/// quiet range stays this far behind at most, so that it can be resumed before it is compacted.
pub const WATCH_PROBE: Duration = Duration::from_secs(10);

/// A progress request that is not answered is sent again after the first pause, which doubles up to
/// the longest: etcd drops one for good while any watch of the stream is behind.
pub const WATCH_PROGRESS_FIRST: Duration = Duration::from_millis(100);
/// See [`WATCH_PROGRESS_FIRST`].
pub const WATCH_PROGRESS_LONGEST: Duration = Duration::from_secs(1);

/// Age at which an unanswered progress request counts as dropped. Until then the next answer may be
/// its own, and does not count as one to a later request.
pub const WATCH_PROGRESS_DROPPED: Duration = Duration::from_secs(5);

/// Calls that are over and not yet told of in a log; more are counted and lost. Half a kilobyte each.
pub const RECORD_QUEUE: usize = 8_192;

/// Bytes of lines that are written to the access log at once.
pub const RECORD_BATCH_BYTES: usize = 64 * 1024;

/// Bytes of a call's path that are told.
pub const RECORD_PATH_BYTES: usize = 256;

/// The first bytes of a request, kept to tell at debug level what it asks.
pub const RECORD_REQUEST_BYTES: usize = 1024;

/// How often at most it is said that calls could not be told of, or spans not be sent.
pub const RECORD_TELL_PAUSE: Duration = Duration::from_secs(60);

/// Time at the end of the process for what is not written or sent yet.
pub const RECORD_FLUSH_TIME: Duration = Duration::from_secs(2);

/// Spans that wait to be sent; more are counted and lost.
pub const SPAN_QUEUE: usize = 4_096;

/// Spans that are sent at once, and how long the first of them waits for others.
pub const SPAN_BATCH: usize = 512;
/// See [`SPAN_BATCH`].
pub const SPAN_BATCH_TIME: Duration = Duration::from_secs(1);

/// Time for sending one batch, all tries together.
pub const SPAN_EXPORT_TIME: Duration = Duration::from_secs(5);

/// The largest answer of a collector.
pub const SPAN_ANSWER_BYTES: usize = 64 * 1024;

/// The largest request for a heartbeat: a few bytes, and what a later etcd may add.
pub const KEEP_ALIVE_BYTES: u64 = 4 * 1024;

/// Bytes of messages on streams that share, larger than half a window and not complete, on one worker;
/// with those that a namespace has to translate, beyond [`CONNECTION_WINDOW`] of a connection.
pub const LARGE_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of answers above [`HOLD_BYTES`], not complete, that a namespace has to translate, on one worker.
pub const LARGE_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Heartbeats of one client's stream that wait for their answers; beyond them it is not read. Streams
/// of a connection beyond [`ROOMY_STREAMS`] have [`LEASE_FEW_PENDING`]. Each costs about 150 B
/// where every one is for a lease of its own.
pub const LEASE_PENDING: u32 = 128;
/// See [`LEASE_PENDING`].
pub const LEASE_FEW_PENDING: u32 = 8;

/// Leases that are remembered, one identity's, while nothing is under way for them: about 60 B each.
/// One that is forgotten may wait behind others at its next heartbeat, where one blocks.
pub const LEASES_REMEMBERED: usize = 262_144;

/// Heartbeats sent on one stream to etcd before the first of them is answered: as many are sent again
/// when one of them blocks.
pub const LEASE_BATCH: usize = 256;

/// Heartbeats sent at once from which on more are waited for before the next are sent, and how long:
/// each writing and reading costs the same for many as for one, here and at etcd.
pub const LEASE_MANY: usize = 16;
/// See [`LEASE_MANY`].
pub const LEASE_GATHER: Duration = Duration::from_millis(1);

/// Time after which a heartbeat that etcd does not answer is taken to block the stream, when its lease
/// may have expired. A lease is renewed with two thirds of its time left, and none lives for less than
/// two seconds: half a second is not missed.
pub const LEASE_BLOCKED: Duration = Duration::from_millis(300);

/// The same when its lease can not have expired: the endpoint is at fault.
pub const LEASE_SILENT: Duration = Duration::from_secs(2);

/// Time for one that is alone on its stream, until another endpoint is asked. What blocks it is the
/// same there, so nothing is lost by it.
pub const LEASE_APART_TIME: Duration = Duration::from_secs(3);

/// How long leases that may have expired are kept apart after one of them was at fault.
pub const LEASE_TROUBLE: Duration = Duration::from_secs(10);

/// Leases that etcd is asked about at once, of an identity, before their heartbeats are sent.
pub const LEASE_EXAMS: usize = 64;

/// How often it is looked, at most, who has waited for too long.
pub const LEASE_LOOK: Duration = Duration::from_millis(500);

/// Streams to etcd for heartbeats that may block, all of an identity together, and of one client's
/// connection. Only leases that have expired go there.
pub const LEASE_APART_LANES: usize = 32;
/// See [`LEASE_APART_LANES`].
pub const LEASE_LANES_OF_ONE: usize = 4;

/// Streams to etcd that heartbeats of an identity share, and the time one waits to be sent until there
/// is one more: a follower asks the leader for each heartbeat, one after the other.
pub const LEASE_LANES: usize = 32;
/// See [`LEASE_LANES`].
pub const LEASE_CROWDED: Duration = Duration::from_millis(100);

/// Time that one waits until a further one of these streams takes it, rather than the first. Where the
/// first comes to all in less, the others have nothing to do, and close.
pub const LEASE_SPILL: Duration = Duration::from_millis(20);

/// Time without anything to do after which all streams but one to etcd are closed.
pub const LEASE_LANE_IDLE: Duration = Duration::from_secs(10);

/// The same for the last one, when no client's stream is left: who renews once comes again.
pub const LEASE_LINGER: Duration = Duration::from_secs(1);

/// Bytes of answers that are kept for serializable reads when no flag says otherwise (R6).
pub const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// How old a kept answer may be when no flag says otherwise (R2).
pub const CACHE_MAX_AGE: Duration = Duration::from_secs(1);

/// The largest answer that is kept, with what finds it. Larger ones are not held here whole either.
pub const CACHE_ENTRY_BYTES: usize = HOLD_BYTES;

/// Parts of the cache, each with a lock of its own.
pub const CACHE_SHARDS: usize = 16;

/// How often an answer must be asked for in each of some spans in a row to be hot: a watch then proves it
/// right, instead of a read a second.
pub const CACHE_HOT_ASKED: u32 = 32;
/// See [`CACHE_HOT_ASKED`].
pub const CACHE_HOT_SPANS: u32 = 3;
/// See [`CACHE_HOT_ASKED`].
pub const CACHE_HOT_SPAN: Duration = Duration::from_secs(1);

/// Answers that watches prove right, all workers together, and the time in which one must have been
/// asked for [`CACHE_HOT_ASKED`] times to stay so.
pub const CACHE_COVERS: usize = 1_024;
/// See [`CACHE_COVERS`].
pub const CACHE_COLD_AFTER: Duration = Duration::from_secs(10);

/// Answers of one worker that are held against etcd at the same time, at most.
pub const CACHE_AUDITS: usize = 8;

/// Ranges whose last writes are told apart, and the bytes of their keys; beyond them the older half
/// counts as a write to all keys.
pub const CACHE_FLOORS: usize = 16_384;
/// See [`CACHE_FLOORS`].
pub const CACHE_FLOOR_BYTES: usize = 4 * 1024 * 1024;

/// How long after a write whose outcome is not known its keys are read at etcd only: what is on its way
/// there may still be done.
pub const CACHE_UNSURE: Duration = Duration::from_secs(8);

/// Places in one request that a namespace changes, at most: keys, range ends, and lengths around them.
/// A transaction as large as etcd takes by default has a few thousand.
pub const TRANSLATED_PLACES: usize = 262_144;

/// How deep transactions nest in each other under a namespace. etcd's own bound, when it takes as
/// many operations in one as by default.
pub const TRANSACTION_DEPTH: u32 = 128;
/// Proxies under the prefix that MemberList tells of, and the size of a key or value among them, in
/// bytes: four million bytes in all at most.
pub const FLEET_MEMBERS: usize = 1_024;
/// See [`FLEET_MEMBERS`].
pub const FLEET_VALUE_BYTES: usize = 2 * 1024;

/// The largest answer to a read of what is under the prefix, and to a watch of it. Where more is there,
/// it is read anew after pauses, and MemberList tells of what was known before.
pub const FLEET_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Time for one step of a registration, until it counts as failed.
pub const FLEET_CALL_TIME: Duration = Duration::from_secs(5);

/// Time for its revocation at the end of the process.
pub const FLEET_REVOKE_TIME: Duration = Duration::from_secs(2);

/// Time for which the key of a registration must be seen to be gone until it is put again: a watch may
/// be behind.
pub const FLEET_ABSENT: Duration = Duration::from_secs(1);

/// Pause until a registration that keeps failing is logged again, when it fails of something else.
pub const FLEET_TELL_PAUSE: Duration = Duration::from_secs(60);

const _: () = {
    assert!(FLEET_MEMBERS * FLEET_VALUE_BYTES * 2 <= FLEET_ANSWER_BYTES);
    assert!(SPAN_BATCH <= SPAN_QUEUE);
    assert!(FLEET_REVOKE_TIME.as_millis() < FLEET_CALL_TIME.as_millis());
    assert!(PROFILE_DEFAULT_TIME.as_millis() < PROFILE_TIME.as_millis());
    // A count of all that is noted fits 16 bits.
    assert!(HEAP_LIVE <= u16::MAX as usize);
    assert!(HEALTH_FAILURE_KEPT.as_millis() <= HEALTH_KEPT.as_millis());
    assert!(HEALTH_KEPT.as_millis() < HEALTH_LOOK.as_millis());
    assert!(HEALTH_FOLLOWERS_OF_ONE < HEALTH_FOLLOWERS);
    assert!(CACHE_ENTRY_BYTES * CACHE_SHARDS <= CACHE_BYTES);
    assert!(LEASE_FEW_PENDING <= LEASE_PENDING);
    assert!(LEASE_LANES_OF_ONE < LEASE_APART_LANES);
    assert!(LEASE_GATHER.as_millis() < LEASE_SPILL.as_millis());
    assert!(LEASE_SPILL.as_millis() < LEASE_CROWDED.as_millis());
    assert!(LEASE_CROWDED.as_millis() < LEASE_BLOCKED.as_millis());
    assert!(LEASE_BLOCKED.as_millis() < LEASE_SILENT.as_millis());
    assert!(LEASE_APART_TIME.as_millis() < LEASE_TROUBLE.as_millis());
    assert!(LEASE_TROUBLE.as_millis() < WAIT_FOR_ENDPOINT.as_millis());
    assert!(WATCHERS_PER_STREAM <= WATCHERS_PER_WORKER);
    assert!(TLS_SETTLE_TIME.as_millis() < TLS_SUSPECT_TIME.as_millis());
    assert!(TLS_SUSPECT_TIME.as_millis() < TLS_LOOK.as_millis());
    assert!(STREAM_WINDOW <= CONNECTION_WINDOW);
    assert!(FREE_SEND_BYTES <= SEND_BUFFER_BYTES);
    assert!(SPARE_BUFFER_BYTES <= BATCH_BYTES);
    assert!(BATCH_BYTES.is_power_of_two());
    assert!(GATHER_BYTES <= STREAM_WINDOW as usize);
    // A held answer must fit the window, or it would wait for an update that never comes.
    assert!(HOLD_BYTES < UPSTREAM_STREAM_WINDOW as usize);
    assert!(HOLD_BYTES <= HOLD_BYTES_PER_CONNECTION);
    assert!(STREAM_ROOM * ROOMY_STREAMS * 4 <= MAX_STALLED_BYTES);
    assert!(FREE_SEND_BYTES * MAX_STREAMS as usize <= MAX_STALLED_BYTES);
    assert!(REPLAY_BYTES <= REPLAY_BYTES_PER_WORKER);
    assert!(PENDING_RESETS <= RESET_BURST as usize);
    assert!(STALL_LOOK.as_millis() <= STALLED_READER_TIME.as_millis());
    assert!(UPSTREAM_STREAM_WINDOW as usize <= MAX_STALLED_BYTES);
    assert!(DIAL_ADDRESS_TIME.as_millis() < DIAL_TIME.as_millis());
    assert!(BACKOFF_FIRST.as_millis() < BACKOFF_LONGEST.as_millis());
    assert!(UPSTREAM_LOOK.as_millis() <= UPSTREAM_PING.as_millis());
    assert!(SILENT_READ.as_millis() < WAIT_FOR_ENDPOINT.as_millis());
    assert!(WATCH_PROGRESS_FIRST.as_millis() < WATCH_PROGRESS_LONGEST.as_millis());
    assert!(WATCH_PROGRESS_LONGEST.as_millis() < WATCH_PROGRESS_DROPPED.as_millis());
    assert!(WATCH_PROGRESS_DROPPED.as_millis() < WATCH_PROBE.as_millis());
    assert!(DATA_FRAME_BUDGET >= CONNECTION_WINDOW as usize / 2);
};
