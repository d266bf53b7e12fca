//! The form of profiles that `go tool pprof` reads: `perftools.profiles.Profile`, not compressed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::profile::symbols::{self, At, Place};

/// What a profile shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Time.
    Cpu,
    /// Memory that is in use.
    InUse,
    /// The same, and shown first is all that ever was.
    Allocated,
}

impl Kind {
    /// Type and unit of each value of a sample.
    fn values(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::Cpu => &[("samples", "count"), ("cpu", "nanoseconds")],
            Kind::InUse | Kind::Allocated => &[
                ("alloc_objects", "count"),
                ("alloc_space", "bytes"),
                ("inuse_objects", "count"),
                ("inuse_space", "bytes"),
            ],
        }
    }

    fn period(self) -> (&'static str, &'static str) {
        match self {
            Kind::Cpu => ("cpu", "nanoseconds"),
            Kind::InUse | Kind::Allocated => ("space", "bytes"),
        }
    }

    fn shown_first(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::InUse => "inuse_space",
            Kind::Allocated => "alloc_space",
        }
    }
}

/// A stack, and what was counted of it.
#[derive(Debug)]
pub(super) struct Sample {
    /// Addresses, the innermost first.
    pub(super) frames: Vec<usize>,
    /// As [`Kind`] has them.
    pub(super) values: Vec<i64>,
}

/// A profile that is being made.
pub(super) struct Profile {
    message: pb::Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(String, String), u64>,
    /// By address: the location's number, and the name of its outermost function.
    locations: HashMap<(usize, At), (u64, String)>,
    /// Where the innermost frame stands.
    inner: At,
}

/// The one mapping, which says that all is named already.
const MAPPING: u64 = 1;

impl Profile {
    /// Without samples; one stands for so much of what the period is of.
    pub(super) fn new(kind: Kind, period: i64) -> Profile {
        let mut profile = Profile {
            message: pb::Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            inner: match kind {
                Kind::Cpu => At::Next,
                Kind::InUse | Kind::Allocated => At::Return,
            },
        };
        // By the form the first is empty.
        profile.string("");
        let types = kind.values().iter();
        profile.message.sample_type = types.map(|each| profile.value_type(*each)).collect();
        profile.message.period_type = Some(profile.value_type(kind.period()));
        profile.message.period = period;
        profile.message.default_sample_type = profile.string(kind.shown_first());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        profile.message.time_nanos = nanos(now.unwrap_or_default());
        let program = std::env::current_exe().unwrap_or_default();
        let filename = profile.string(&program.display().to_string());
        profile.message.mapping.push(pb::Mapping {
            id: MAPPING,
            filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
        profile
    }

    /// It was taken for so long.
    pub(super) fn took(&mut self, time: Duration) {
        self.message.duration_nanos = nanos(time);
    }

    /// One more sample.
    pub(super) fn add(&mut self, sample: &Sample) {
        let all = sample.frames.iter();
        let mut located: Vec<u64> = all.map(|at| self.location(*at, At::Return)).collect();
        let named = |at: &usize| &self.locations[&(*at, At::Return)].1[..];
        let own = symbols::own(&sample.frames.iter().map(named).collect::<Vec<_>>());
        if let Some(inner) = sample.frames.get(own) {
            located[own] = self.location(*inner, self.inner);
        }
        self.message.sample.push(pb::Sample {
            location_id: located.into_iter().skip(own).collect(),
            value: sample.values.clone(),
        });
    }

    /// As it is sent.
    pub(super) fn encode(self) -> Vec<u8> {
        symbols::forget();
        self.message.encode_to_vec()
    }

    fn location(&mut self, address: usize, at: At) -> u64 {
        if let Some((id, _)) = self.locations.get(&(address, at)) {
            return *id;
        }
        let places = symbols::places(address, at);
        let outermost = places.last().map(|place| place.name.clone());
        let line = |place: Place| pb::Line {
            line: place.line,
            function_id: self.function(place.name, place.file),
        };
        let line = places.into_iter().map(line).collect();
        let id = self.message.location.len() as u64 + 1;
        self.message.location.push(pb::Location {
            id,
            mapping_id: MAPPING,
            address: address as u64,
            line,
        });
        let named = (id, outermost.unwrap_or_default());
        self.locations.insert((address, at), named);
        id
    }

    fn function(&mut self, name: String, file: String) -> u64 {
        if let Some(id) = self.functions.get(&(name.clone(), file.clone())) {
            return *id;
        }
        let id = self.message.function.len() as u64 + 1;
        let (named, filename) = (self.string(&name), self.string(&file));
        self.message.function.push(pb::Function {
            id,
            name: named,
            system_name: named,
            filename,
        });
        self.functions.insert((name, file), id);
        id
    }

    fn value_type(&mut self, (kind, unit): (&str, &str)) -> pb::ValueType {
        pb::ValueType {
            r#type: self.string(kind),
            unit: self.string(unit),
        }
    }

    /// A string's number.
    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        // One per function and file of the program.
        let number = self.message.string_table.len() as i64;
        self.message.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// The messages, as far as they are used here. Numbers named after strings are places in the table of strings.
mod pb {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub(super) sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub(super) sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub(super) location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub(super) function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub(super) string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub(super) time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub(super) duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub(super) period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub(super) period: i64,
        #[prost(int64, tag = "14")]
        pub(super) default_sample_type: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ValueType {
        #[prost(int64, tag = "1")]
        pub(super) r#type: i64,
        #[prost(int64, tag = "2")]
        pub(super) unit: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub(super) location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub(super) value: Vec<i64>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Mapping {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(int64, tag = "5")]
        pub(super) filename: i64,
        #[prost(bool, tag = "7")]
        pub(super) has_functions: bool,
        #[prost(bool, tag = "8")]
        pub(super) has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub(super) has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub(super) has_inline_frames: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Location {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub(super) address: u64,
        #[prost(message, repeated, tag = "4")]
        pub(super) line: Vec<Line>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Line {
        #[prost(uint64, tag = "1")]
        pub(super) function_id: u64,
        #[prost(int64, tag = "2")]
        pub(super) line: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Function {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(int64, tag = "2")]
        pub(super) name: i64,
        #[prost(int64, tag = "3")]
        pub(super) system_name: i64,
        #[prost(int64, tag = "4")]
        pub(super) filename: i64,
    }
}
