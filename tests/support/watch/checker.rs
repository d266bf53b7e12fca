//! The judgement: what a client was told on each of its streams against the truth.
//!
//! It is a walk over the messages of a stream in their order. For each watcher it knows which event
//! of the truth comes next, so an event that is dropped, doubled, out of order, of another range or
//! with another value is found at once, and so is a revision in two pieces or a progress answer that
//! is ahead of the events.

use std::collections::{BTreeMap, VecDeque};

use super::client::{Asked, Ending, Expect, Record, Session};
use super::messages::{Event, Response};
use super::truth::History;

/// What may differ between servers.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A watcher from now on is told exactly what comes after its `created`, whose revision is not
    /// below anything the server has told before (W4). etcd itself may tell an event at or below it
    /// again, a member that lags answers with its own revision, and an answer to a create or a
    /// cancel may overtake the one to an earlier progress request (W8).
    pub exact: bool,
    /// The server is there all the time: its streams do not end.
    pub lasting: bool,
}

/// Everything in a record that is not as it must be, in words.
pub fn check(history: &History, rules: Rules, record: &Record) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, session) in record.sessions.iter().enumerate() {
        let mut walk = Walk {
            history,
            rules,
            session,
            pending: session.asked.iter().collect(),
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            highest: 0,
            progress: 0,
            at: 0,
            parts: None,
            wrong: Vec::new(),
        };
        walk.run(record.through);
        let place = format!("{}, stream {number}", record.name);
        wrong.extend(walk.wrong.iter().map(|what| format!("{place}: {what}")));
    }
    wrong
}

struct Walk<'a> {
    history: &'a History,
    rules: Rules,
    session: &'a Session,
    /// Creates without an answer yet.
    pending: VecDeque<&'a Asked>,
    live: BTreeMap<i64, Live<'a>>,
    /// Ids whose `canceled` has come; whether by compaction, after which a second may come.
    gone: BTreeMap<i64, bool>,
    /// Nothing told so far is above it.
    highest: i64,
    /// Answers to progress requests.
    progress: usize,
    /// How many messages came before the one that is looked at.
    at: usize,
    /// The id whose response is not complete yet.
    parts: Option<i64>,
    wrong: Vec<String>,
}

/// A watcher that was created.
struct Live<'a> {
    asked: &'a Asked,
    /// What it is to be told, from its first event on.
    expected: Vec<&'a Event>,
    next: usize,
    /// It may begin with an event that is not yet in `expected`: etcd from now on.
    may_begin_earlier: bool,
    created: i64,
    /// It has been told all its events up to here.
    through: i64,
    /// Nothing was told yet.
    first: bool,
    /// Something is wrong already; what follows from it is not told too.
    spoilt: bool,
}

impl<'a> Walk<'a> {
    fn run(&mut self, through: i64) {
        for (at, response) in self.session.received.iter().enumerate() {
            self.at = at;
            let before = self.wrong.len();
            self.step(response);
            for what in &mut self.wrong[before..] {
                *what += &format!("\n      message {at}: {}", response.brief());
            }
        }
        match &self.session.ending {
            Ending::Lost(why) => {
                if self.rules.lasting || !is_resumable(why) {
                    self.wrong.push(format!("the stream ended: {why}"));
                }
            }
            Ending::Late(why) => {
                self.wrong.push(format!("not all was told in time: {why}"));
                self.all_told(through);
            }
            Ending::Done => self.all_told(through),
        }
    }

    fn all_told(&mut self, through: i64) {
        for asked in std::mem::take(&mut self.pending) {
            self.wrong.push(format!("no answer to {asked:?}"));
        }
        if let Some(id) = self.parts {
            self.wrong
                .push(format!("the last part for {id} never came"));
        }
        for (id, live) in &self.live {
            if self.session.cancelled.contains_key(&live.asked.watcher) {
                self.wrong
                    .push(format!("{} was not canceled", live.name(*id)));
            }
            if let Some(next) = live.expects(through)
                && !live.spoilt
            {
                let missing = live.expected[live.next..]
                    .iter()
                    .filter(|event| event.revision() <= through)
                    .count();
                self.wrong.push(format!(
                    "{} was never told {missing} events\n      expected {}\n      got nothing",
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
        // A cancel by compaction comes from etcd without a revision.
        let complete = response.cluster != 0 && response.member != 0 && response.term != 0;
        let dated = response.revision > 0 || response.compact_revision > 0;
        if !(complete && dated) {
            self.wrong.push("the header is not complete".to_owned());
        }
    }

    fn created(&mut self, response: &Response) {
        let Some(asked) = self.pending.pop_front() else {
            self.wrong.push("a created nobody asked for".to_owned());
            return;
        };
        let Asked { create, expect, .. } = asked;
        match (expect, response.canceled) {
            (Expect::Created, false) => {}
            (Expect::Refused(words), true) => {
                if response.id != -1 || !response.reason.contains(words) {
                    self.wrong
                        .push(format!("not refused by {words:?}: {asked:?}"));
                }
                return;
            }
            _ => {
                self.wrong.push(format!("not {expect:?}: {asked:?}"));
                if response.canceled {
                    return;
                }
            }
        }
        if self.live.contains_key(&response.id)
            || create.id != 0 && create.id != response.id
            || create.id == 0 && response.id < 0
        {
            self.wrong.push(format!("not an id for {create:?}"));
        }
        if self.rules.exact && response.revision < asked.known {
            self.wrong.push(format!(
                "created below {}, which was known before {asked:?}",
                asked.known
            ));
        }
        self.gone.remove(&response.id);
        let begins = match create.start {
            0 => response.revision.saturating_add(1),
            start => start,
        };
        if begins < self.history.from {
            self.wrong.push(format!(
                "the test asks for {begins}, before its truth begins at {}",
                self.history.from
            ));
        }
        let expected = self.history.events.iter();
        let expected = expected.filter(|event| event.revision() >= begins && create.wants(event));
        let live = Live {
            asked,
            expected: expected.collect(),
            next: 0,
            may_begin_earlier: create.start == 0 && !self.rules.exact,
            created: response.revision,
            through: begins - 1,
            first: true,
            spoilt: false,
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
            self.wrong.push("progress nobody asked for".to_owned());
        }
        // With etcd it may overtake the `created` that it waited for, or be overtaken by a cancel.
        if self.live.is_empty() && self.rules.exact {
            self.wrong
                .push("progress of a stream without watchers".to_owned());
        }
        if response.revision < self.highest {
            self.wrong
                .push(format!("progress below {}, told before", self.highest));
        }
        for (id, live) in &mut self.live {
            // The answer to a cancel may come behind progress that does not count the watcher, and
            // etcd's answer to a create may come before it.
            if is_cancelled(self.session, live, self.at)
                || !self.rules.exact && live.first && live.created >= response.revision
            {
                continue;
            }
            if live.asked.create.start > response.revision {
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
        if !live.asked.create.progress_notify {
            self.wrong
                .push(format!("{} did not ask for it", live.name(response.id)));
        }
        self.wrong
            .extend(live.ahead(response.id, response.revision));
    }

    fn stray(&mut self, response: &Response) {
        match self.gone.get_mut(&response.id) {
            // The client's own cancel of what a compaction had canceled.
            Some(again @ true) if response.canceled && response.events.is_empty() => *again = false,
            Some(_) => self.wrong.push("after its canceled".to_owned()),
            None => self.wrong.push("nobody has this id".to_owned()),
        }
    }

    fn canceled(&mut self, response: &Response) {
        let Some(live) = self.live.remove(&response.id) else {
            return;
        };
        let compacted = response.compact_revision;
        self.gone.insert(response.id, compacted > 0);
        if !response.events.is_empty() || self.parts.is_some() {
            self.wrong.push("canceled amid events".to_owned());
        }
        let name = live.name(response.id);
        if compacted == 0 {
            if !self.session.cancelled.contains_key(&live.asked.watcher) {
                self.wrong.push(format!("{name} was canceled by nobody"));
            }
            return;
        }
        if !self.history.compactions.contains(&compacted) {
            self.wrong.push(format!("nobody compacted {compacted}"));
        }
        if live.through >= compacted {
            self.wrong.push(format!(
                "{name} had come to {}, beyond that compaction",
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
        if response.fragment && !live.asked.create.fragment {
            self.wrong.push("a part nobody asked for".to_owned());
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
            if live.spoilt {
                return;
            }
            let expected = live.expected.get(live.next).copied();
            if expected
                .is_some_and(|expected| expected.kv == event.kv && expected.delete == event.delete)
            {
                live.next += 1;
            } else {
                live.spoilt = true;
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
                _ if !live.asked.create.prev_kv => {
                    if event.prev.is_some() {
                        self.wrong
                            .push(format!("{name} did not ask for {}", event.brief()));
                    }
                }
                // It is read when the event is sent, and by then it may be compacted.
                None if prev.is_none() || event.revision() <= compacted => {}
                // etcd forgets the wish with the cancel, before the last events are sent, and may
                // not know it yet when it sends the first.
                None if is_cancelled(session, live, at) || live.first => {}
                found if found.as_ref() == prev => {}
                found => {
                    live.spoilt = true;
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
            live.spoilt = true;
            self.wrong.push(format!(
                "{}: revision {last} is split\n      expected {}\n      got the end of the response",
                live.name(response.id),
                next.brief()
            ));
        }
    }
}

impl<'a> Live<'a> {
    fn name(&self, id: i64) -> String {
        let Asked {
            watcher, create, ..
        } = self.asked;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut name = format!(
            "watcher {watcher} (id {id}, [{:?}, {:?}), from {}, created at {}",
            text(&create.key),
            text(&create.range_end),
            create.start,
            self.created
        );
        for (yes, word) in [
            (create.no_put, ", no puts"),
            (create.no_delete, ", no deletes"),
            (create.prev_kv, ", with previous values"),
            (create.fragment, ", in parts"),
            (self.asked.resumed, ", resumed"),
        ] {
            if yes {
                name += word;
            }
        }
        name + ")"
    }

    /// The next event, when it is at or below a revision.
    fn expects(&self, revision: i64) -> Option<&'a Event> {
        let next = self.expected.get(self.next).copied();
        next.filter(|event| event.revision() <= revision)
    }

    /// Progress at a revision whose events were not all told.
    fn ahead(&mut self, id: i64, revision: i64) -> Option<String> {
        let Some(next) = self.expects(revision).filter(|_| !self.spoilt) else {
            self.through = self.through.max(revision);
            return None;
        };
        self.spoilt = true;
        Some(format!(
            "progress ahead of {}\n      expected {}\n      got progress at {revision}",
            self.name(id),
            next.brief()
        ))
    }

    /// etcd had more to tell from now on than the header of its answer says.
    fn begin_at(&mut self, history: &'a History, revision: i64) {
        let wanted = history
            .events
            .iter()
            .filter(|event| event.revision() >= revision && self.asked.create.wants(event));
        self.expected = wanted.collect();
    }

    /// What went wrong when this came instead of the expected.
    fn misplaced(&self, event: &Event) -> String {
        let same = |other: &&Event| other.kv == event.kv && other.delete == event.delete;
        let place = self.expected.iter().position(same);
        match place {
            Some(place) if place < self.next => "was told again".to_owned(),
            Some(place) => format!("was not told {} events", place - self.next),
            None => "was told what is not its own".to_owned(),
        }
    }
}

/// Whether a watcher's cancel had been sent before so many messages came.
fn is_cancelled(session: &Session, live: &Live<'_>, at: usize) -> bool {
    let heard = session.cancelled.get(&live.asked.watcher);
    heard.is_some_and(|heard| *heard <= at)
}

/// etcd's own client goes on after such an end.
fn is_resumable(ending: &str) -> bool {
    let ended = ending.strip_prefix("status ");
    ended.is_none_or(|status| status.starts_with("14 "))
}
