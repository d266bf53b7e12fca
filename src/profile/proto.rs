//! Encoding of profiles for `go tool pprof`: an uncompressed `perftools.profiles.Profile`.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::profile::symbols::{self, AddressKind, SourceFrame};

/// The content of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileKind {
    /// CPU time.
    Cpu,
    /// Memory in use, with the values of [`Allocated`](ProfileKind::Allocated) in addition.
    InUse,
    /// All memory allocated since the start. The default value to show differs from that of
    /// [`InUse`](ProfileKind::InUse).
    Allocated,
}

impl ProfileKind {
    /// Returns type and unit of each value of a sample.
    fn values(self) -> &'static [(&'static str, &'static str)] {
        match self {
            ProfileKind::Cpu => &[("samples", "count"), ("cpu", "nanoseconds")],
            ProfileKind::InUse | ProfileKind::Allocated => &[
                ("alloc_objects", "count"),
                ("alloc_space", "bytes"),
                ("inuse_objects", "count"),
                ("inuse_space", "bytes"),
            ],
        }
    }

    fn period(self) -> (&'static str, &'static str) {
        match self {
            ProfileKind::Cpu => ("cpu", "nanoseconds"),
            ProfileKind::InUse | ProfileKind::Allocated => ("space", "bytes"),
        }
    }

    fn default_type(self) -> &'static str {
        match self {
            ProfileKind::Cpu => "cpu",
            ProfileKind::InUse => "inuse_space",
            ProfileKind::Allocated => "alloc_space",
        }
    }
}

/// A stack with its values.
#[derive(Debug)]
pub(super) struct StackSample {
    /// Addresses, innermost first.
    pub(super) frames: Vec<usize>,
    /// The values of the [`ProfileKind`], in its order.
    pub(super) values: Vec<i64>,
}

/// Builds a profile.
pub(super) struct Profile {
    message: pb::Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(String, String), u64>,
    /// By address: the id of the location, and the name of its outermost function.
    locations: HashMap<(usize, AddressKind), (u64, String)>,
    kind: ProfileKind,
}

/// The id of the only mapping, which declares that all symbols are resolved.
const MAPPING: u64 = 1;

impl Profile {
    /// Returns a profile without samples. `period` is the CPU time in nanoseconds, or the bytes,
    /// per sample.
    pub(super) fn new(kind: ProfileKind, period: i64) -> Profile {
        let mut profile = Profile {
            message: pb::Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            kind,
        };
        // The first string must be empty.
        profile.string("");
        let types = kind.values().iter();
        profile.message.sample_type = types.map(|each| profile.value_type(*each)).collect();
        profile.message.period_type = Some(profile.value_type(kind.period()));
        profile.message.period = period;
        profile.message.default_sample_type = profile.string(kind.default_type());
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

    /// Sets the duration of the profile.
    pub(super) fn set_duration(&mut self, time: Duration) {
        self.message.duration_nanos = nanos(time);
    }

    /// Adds a sample. Samples of memory lose the frames of the profiler itself.
    pub(super) fn add(&mut self, sample: &StackSample) {
        let kind = |index| match (self.kind, index) {
            (ProfileKind::Cpu, 0) => AddressKind::Interrupted,
            _ => AddressKind::Return,
        };
        let frames = sample.frames.iter().enumerate();
        let frames: Vec<_> = frames.map(|(index, at)| (*at, kind(index))).collect();
        let located = frames.iter().map(|(at, kind)| self.location(*at, *kind));
        let located: Vec<u64> = located.collect();
        // The CPU time of the memory profiler counts for the function that allocates.
        let names = frames.iter().map(|frame| &self.locations[frame].1[..]);
        let own = symbols::profiler_frames(&names.collect::<Vec<_>>());
        self.message.sample.push(pb::Sample {
            location_id: located.into_iter().skip(own).collect(),
            value: sample.values.clone(),
        });
    }

    /// Returns the encoded profile, and frees the symbol tables.
    pub(super) fn encode(self) -> Vec<u8> {
        symbols::free();
        self.message.encode_to_vec()
    }

    fn location(&mut self, address: usize, kind: AddressKind) -> u64 {
        if let Some((id, _)) = self.locations.get(&(address, kind)) {
            return *id;
        }
        let frames = symbols::source_frames(address, kind);
        let outermost = frames.last().map(|frame| frame.name.clone());
        let line = |frame: SourceFrame| pb::Line {
            line: frame.line,
            function_id: self.function(frame.name, frame.file),
        };
        let line = frames.into_iter().map(line).collect();
        let id = self.message.location.len() as u64 + 1;
        self.message.location.push(pb::Location {
            id,
            mapping_id: MAPPING,
            address: address as u64,
            line,
        });
        let named = (id, outermost.unwrap_or_default());
        self.locations.insert((address, kind), named);
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

    /// Returns the index of a string in the string table.
    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        // Cannot overflow: one entry per function and file of the program.
        let number = self.message.string_table.len() as i64;
        self.message.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// The used parts of the protobuf messages. Fields such as `name` are indexes into the string
/// table.
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
