//! Checks what a client received on each of its streams against the reference history.
//!
//! The checker processes the messages of a stream in order. For each watcher it knows the next
//! event of the history. So it detects an event that is dropped, duplicated, out of order, outside
//! the range, or with another value. It also detects a revision split over two responses, and
//! progress ahead of the events.

use std::collections::{BTreeMap, VecDeque};

use super::client::{ClientRecord, Expect, SentCreate, Session, StreamEnd};
use super::history::History;
use super::messages::{Event, Response};

/// Requirements that differ between servers.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A watcher without a start revision receives exactly the events after its `created`, whose
    /// revision is not below anything that the server has sent before (W4). etcd itself does not
    /// guarantee this: it may send an event at or below that revision again, and a member that lags
    /// responds with its own revision. Its response to a create or a cancel may overtake an earlier
    /// progress response (W8).
    pub exact: bool,
    /// The server is available all the time, so its streams do not end.
    pub lasting: bool,
}

/// Returns all violations in a record, as text.
pub fn check(history: &History, rules: Rules, record: &ClientRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, session) in record.sessions.iter().enumerate() {
        let mut check = SessionCheck {
            history,
            rules,
            session,
            pending: session.creates.iter().collect(),
            live: BTreeMap::new(),
            ended: BTreeMap::new(),
            highest: 0,
            progress: 0,
            at: 0,
            parts: None,
            wrong: Vec::new(),
        };
        check.run(record.through);
        let place = format!("{}, stream {number}", record.name);
        wrong.extend(check.wrong.iter().map(|what| format!("{place}: {what}")));
    }
    wrong
}

/// The check of one stream.
struct SessionCheck<'a> {
    history: &'a History,
    rules: Rules,
    session: &'a Session,
    /// Creates without a response yet.
    pending: VecDeque<&'a SentCreate>,
    live: BTreeMap<i64, LiveWatcher<'a>>,
    /// Ids that received `canceled`. True after a compaction: a second `canceled` may follow.
    ended: BTreeMap<i64, bool>,
    /// Highest revision received so far.
    highest: i64,
    /// Number of progress responses for the whole stream.
    progress: usize,
    /// Index of the current message.
    at: usize,
    /// The watch id of an incomplete response.
    parts: Option<i64>,
    wrong: Vec<String>,
}

/// A watcher that was created and has not ended.
struct LiveWatcher<'a> {
    sent: &'a SentCreate,
    /// Events that the watcher must receive, from its first one on.
    expected: Vec<&'a Event>,
    /// Index of the next event in `expected`.
    next: usize,
    /// The first event may be before `expected`: etcd allows this without a start revision.
    may_begin_earlier: bool,
    created: i64,
    /// Revision up to which the watcher has received all its events.
    through: i64,
    /// Whether the watcher has received nothing yet.
    first: bool,
    /// A violation was found. Its consequences are not reported.
    failed: bool,
}

impl<'a> SessionCheck<'a> {
    fn run(&mut self, through: i64) {
        for (at, response) in self.session.received.iter().enumerate() {
            self.at = at;
            let before = self.wrong.len();
            self.step(response);
            for what in &mut self.wrong[before..] {
                *what += &format!("\n      message {at}: {}", response.brief());
            }
        }
        match &self.session.end {
            StreamEnd::Lost(why) => {
                if self.rules.lasting || !is_resumable(why) {
                    self.wrong.push(format!("the stream ended: {why}"));
                }
            }
            StreamEnd::Late(why) => {
                self.wrong
                    .push(format!("not all events arrived in time: {why}"));
                self.check_complete(through);
            }
            StreamEnd::Done => self.check_complete(through),
        }
    }

    fn check_complete(&mut self, through: i64) {
        for sent in std::mem::take(&mut self.pending) {
            self.wrong.push(format!("no response to {sent:?}"));
        }
        if let Some(id) = self.parts {
            self.wrong
                .push(format!("the last part for {id} is missing"));
        }
        for (id, live) in &self.live {
            if self.session.cancelled.contains_key(&live.sent.watcher) {
                self.wrong
                    .push(format!("{} was not canceled", live.name(*id)));
            }
            if let Some(next) = live.expects(through)
                && !live.failed
            {
                let missing = live.expected[live.next..]
                    .iter()
                    .filter(|event| event.revision() <= through)
                    .count();
                self.wrong.push(format!(
                    "{} never received {missing} events\n      expected {}\n      got nothing",
                    live.name(*id),
                    next.brief()
                ));
            }
        }
    }

    fn step(&mut self, response: &Response) {
        self.header(response);
        if let Some(id) = self.parts
            && id != response.id
        {
            self.wrong.push(format!("between two parts for {id}"));
        }
        if response.created {
            self.created(response);
        } else if response.id == -1 {
            self.progress(response);
        } else if !self.live.contains_key(&response.id) {
            self.stray(response);
        } else if response.canceled {
            self.canceled(response);
        } else if response.is_progress() {
            self.own_progress(response);
        } else {
            self.events(response);
        }
        if self.rules.exact || !(response.created || response.canceled) {
            self.highest = self.highest.max(response.revision);
        }
    }

    fn header(&mut self, response: &Response) {
        // etcd sends a cancel after a compaction without a revision.
        let complete = response.cluster != 0 && response.member != 0 && response.term != 0;
        let dated = response.revision > 0 || response.compact_revision > 0;
        if !(complete && dated) {
            self.wrong.push("the header is not complete".to_owned());
        }
    }

    fn created(&mut self, response: &Response) {
        let Some(sent) = self.pending.pop_front() else {
            self.wrong
                .push("an unrequested created response".to_owned());
            return;
        };
        let SentCreate { create, expect, .. } = sent;
        match (expect, response.canceled) {
            (Expect::Created, false) => {}
            (Expect::Refused(reason), true) => {
                if response.id != -1 || !response.reason.contains(reason) {
                    self.wrong
                        .push(format!("not refused with {reason:?}: {sent:?}"));
                }
                return;
            }
            _ => {
                self.wrong.push(format!("not {expect:?}: {sent:?}"));
                if response.canceled {
                    return;
                }
            }
        }
        if self.live.contains_key(&response.id)
            || create.id != 0 && create.id != response.id
            || create.id == 0 && response.id < 0
        {
            self.wrong.push(format!("invalid id for {create:?}"));
        }
        if self.rules.exact && response.revision < sent.known {
            self.wrong.push(format!(
                "created below {}, which was known before {sent:?}",
                sent.known
            ));
        }
        self.ended.remove(&response.id);
        let begins = match create.start {
            0 => response.revision.saturating_add(1),
            start => start,
        };
        if begins < self.history.from {
            self.wrong.push(format!(
                "the test starts a watch at {begins}, before its history at {}",
                self.history.from
            ));
        }
        let expected = self.history.events.iter();
        let expected = expected.filter(|event| event.revision() >= begins && create.wants(event));
        let live = LiveWatcher {
            sent,
            expected: expected.collect(),
            next: 0,
            may_begin_earlier: create.start == 0 && !self.rules.exact,
            created: response.revision,
            through: begins - 1,
            first: true,
            failed: false,
        };
        self.live.insert(response.id, live);
    }

    fn progress(&mut self, response: &Response) {
        if !response.is_progress() {
            self.wrong.push("neither created nor progress".to_owned());
            return;
        }
        self.progress += 1;
        if self.progress > self.session.progress {
            self.wrong.push("unrequested progress".to_owned());
        }
        // etcd's progress response may overtake the `created` it waited for, or a cancel may
        // overtake it.
        if self.live.is_empty() && self.rules.exact {
            self.wrong
                .push("progress of a stream without watchers".to_owned());
        }
        if response.revision < self.highest {
            self.wrong
                .push(format!("progress below {}, sent before", self.highest));
        }
        for (id, live) in &mut self.live {
            // The response to a cancel may follow progress that ignores the watcher. etcd's
            // response to a create may precede such progress.
            if is_cancelled(self.session, live, self.at)
                || !self.rules.exact && live.first && live.created >= response.revision
            {
                continue;
            }
            if live.sent.create.start > response.revision {
                self.wrong
                    .push(format!("progress before the start of {}", live.name(*id)));
            }
            self.wrong.extend(live.ahead(*id, response.revision));
        }
    }

    fn own_progress(&mut self, response: &Response) {
        let Some(live) = self.live.get_mut(&response.id) else {
            return;
        };
        if !live.sent.create.progress_notify {
            self.wrong
                .push(format!("{} did not request it", live.name(response.id)));
        }
        self.wrong
            .extend(live.ahead(response.id, response.revision));
    }

    fn stray(&mut self, response: &Response) {
        match self.ended.get_mut(&response.id) {
            // The response to the client's own cancel after a compaction ended the watcher.
            Some(again @ true) if response.canceled && response.events.is_empty() => *again = false,
            Some(_) => self.wrong.push("after its canceled".to_owned()),
            None => self.wrong.push("no watcher has this id".to_owned()),
        }
    }

    fn canceled(&mut self, response: &Response) {
        let Some(live) = self.live.remove(&response.id) else {
            return;
        };
        let compacted = response.compact_revision;
        self.ended.insert(response.id, compacted > 0);
        if !response.events.is_empty() || self.parts.is_some() {
            self.wrong.push("canceled amid events".to_owned());
        }
        let name = live.name(response.id);
        if compacted == 0 {
            if !self.session.cancelled.contains_key(&live.sent.watcher) {
                self.wrong
                    .push(format!("{name} was canceled without a request"));
            }
            return;
        }
        if !self.history.compactions.contains(&compacted) {
            self.wrong.push(format!("no compaction at {compacted}"));
        }
        if live.through >= compacted {
            self.wrong.push(format!(
                "{name} had reached {}, beyond that compaction",
                live.through
            ));
        }
    }

    fn events(&mut self, response: &Response) {
        let compacted = self.history.compactions.last().copied().unwrap_or(0);
        let (session, at) = (self.session, self.at);
        let Some(live) = self.live.get_mut(&response.id) else {
            return;
        };
        let first_part = self.parts.is_none();
        self.parts = Some(response.id).filter(|_| response.fragment);
        if response.fragment && !live.sent.create.fragment {
            self.wrong.push("an unrequested part".to_owned());
        }
        let last = response.events.last().map_or(0, Event::revision);
        if response.revision < last {
            self.wrong.push("a header older than its events".to_owned());
        }
        if let (true, true, Some(first)) = (
            std::mem::take(&mut live.may_begin_earlier),
            first_part,
            response.events.first(),
        ) && first.revision() <= live.created
        {
            live.begin_at(self.history, first.revision());
        }
        for event in &response.events {
            if live.failed {
                return;
            }
            let expected = live.expected.get(live.next).copied();
            if expected
                .is_some_and(|expected| expected.kv == event.kv && expected.delete == event.delete)
            {
                live.next += 1;
            } else {
                live.failed = true;
                let what = live.misplaced(event);
                let name = live.name(response.id);
                self.wrong.push(format!(
                    "{name} {what}\n      expected {}\n      got {}",
                    expected.map_or("nothing more".to_owned(), Event::brief),
                    event.brief()
                ));
                return;
            }
            let name = live.name(response.id);
            let prev = expected.and_then(|expected| expected.prev.as_ref());
            match &event.prev {
                _ if !live.sent.create.prev_kv => {
                    if event.prev.is_some() {
                        self.wrong.push(format!(
                            "{name} did not request the previous value of {}",
                            event.brief()
                        ));
                    }
                }
                // etcd reads the previous value when it sends the event. It may be compacted by
                // then.
                None if prev.is_none() || event.revision() <= compacted => {}
                // etcd drops the `prev_kv` option with the cancel, before it sends the last events.
                // It may also apply the option only after the first events.
                None if is_cancelled(session, live, at) || live.first => {}
                found if found.as_ref() == prev => {}
                found => {
                    live.failed = true;
                    self.wrong.push(format!(
                        "{name}: the previous value of {} is not {prev:?} but {found:?}",
                        event.brief()
                    ));
                }
            }
        }
        live.first &= response.fragment;
        if !response.fragment {
            live.through = live.through.max(last);
        }
        if let Some(next) = live.expects(last)
            && !response.fragment
        {
            live.failed = true;
            self.wrong.push(format!(
                "{}: revision {last} is split\n      expected {}\n      got the end of the response",
                live.name(response.id),
                next.brief()
            ));
        }
    }
}

impl<'a> LiveWatcher<'a> {
    fn name(&self, id: i64) -> String {
        let SentCreate {
            watcher, create, ..
        } = self.sent;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut name = format!(
            "watcher {watcher} (id {id}, [{:?}, {:?}), from {}, created at {}",
            text(&create.key),
            text(&create.range_end),
            create.start,
            self.created
        );
        for (yes, option) in [
            (create.no_put, ", no puts"),
            (create.no_delete, ", no deletes"),
            (create.prev_kv, ", with previous values"),
            (create.fragment, ", in parts"),
            (self.sent.resumed, ", resumed"),
        ] {
            if yes {
                name += option;
            }
        }
        name + ")"
    }

    /// Returns the next expected event if it is at or below a revision.
    fn expects(&self, revision: i64) -> Option<&'a Event> {
        let next = self.expected.get(self.next).copied();
        next.filter(|event| event.revision() <= revision)
    }

    /// Returns the violation if progress at `revision` is ahead of an expected event.
    fn ahead(&mut self, id: i64, revision: i64) -> Option<String> {
        let Some(next) = self.expects(revision).filter(|_| !self.failed) else {
            self.through = self.through.max(revision);
            return None;
        };
        self.failed = true;
        Some(format!(
            "progress ahead of {}\n      expected {}\n      got progress at {revision}",
            self.name(id),
            next.brief()
        ))
    }

    /// Extends the expected events: etcd sent events at or below its `created` revision.
    fn begin_at(&mut self, history: &'a History, revision: i64) {
        let wanted = history
            .events
            .iter()
            .filter(|event| event.revision() >= revision && self.sent.create.wants(event));
        self.expected = wanted.collect();
    }

    /// Describes the violation when `event` arrives in place of the expected event.
    fn misplaced(&self, event: &Event) -> String {
        let same = |other: &&Event| other.kv == event.kv && other.delete == event.delete;
        let place = self.expected.iter().position(same);
        match place {
            Some(place) if place < self.next => "received an event again".to_owned(),
            Some(place) => format!("missed {} events", place - self.next),
            None => "received an event that is not its own".to_owned(),
        }
    }
}

/// Returns whether a watcher's cancel was sent before message `at` arrived.
fn is_cancelled(session: &Session, live: &LiveWatcher<'_>, at: usize) -> bool {
    let received = session.cancelled.get(&live.sent.watcher);
    received.is_some_and(|received| *received <= at)
}

/// Returns whether etcd's own client resumes its watches after such an end.
fn is_resumable(end: &str) -> bool {
    let ended = end.strip_prefix("status ");
    ended.is_none_or(|status| status.starts_with("14 "))
}
