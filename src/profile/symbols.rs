//! Functions, files and lines of an address, from the debug information of the program.

/// One function at an address. An address in inlined code has several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SourceFrame {
    /// Name without the hash suffix. The address if there is no name.
    pub(super) name: String,
    /// Source file. Empty if unknown.
    pub(super) file: String,
    /// Line in the file. 0 if unknown.
    pub(super) line: i64,
}

/// The meaning of the address of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AddressKind {
    /// A return address: the instruction after a call, possibly after the end of the function.
    Return,
    /// The next instruction of interrupted code, possibly the first one of the function.
    Interrupted,
}

/// Frees the cached debug information.
pub(super) fn free() {
    backtrace::clear_symbol_cache();
}

/// Returns the functions at an address, innermost first. Never empty.
pub(super) fn source_frames(address: usize, kind: AddressKind) -> Vec<SourceFrame> {
    let mut frames = Vec::new();
    // `resolve` looks up the instruction before the address.
    let after = address + usize::from(kind == AddressKind::Interrupted);
    backtrace::resolve(std::ptr::without_provenance_mut(after), |symbol| {
        let file = symbol.filename();
        let file = file.map(|file| file.display().to_string());
        let file = file.unwrap_or_default();
        // The alternate format omits the hash.
        let name = symbol.name().map(|name| format!("{name:#}"));
        frames.push(SourceFrame {
            name: name.map_or(format!("{address:#x}"), |name| qualified(name, &file)),
            file,
            line: symbol.lineno().map_or(0, i64::from),
        });
    });
    if frames.is_empty() {
        frames.push(SourceFrame {
            name: format!("{address:#x}"),
            file: String::new(),
            line: 0,
        });
    }
    frames
}

/// Adds the module to the name of an inlined function. Debug information has only its last part, so
/// the module comes from the path of the source file.
fn qualified(name: String, file: &str) -> String {
    let path = name.split(['<', '{']).next().unwrap_or_default();
    let is_qualified = path.contains("::") || name.starts_with("<");
    match module(file) {
        Some(module) if !is_qualified => format!("{module}::{name}"),
        _ => name,
    }
}

/// Returns the module of a Rust source file by its path: `…/NAME-1.2.3/src/a/mod.rs` is `NAME::a`.
/// A file that is not in a dependency belongs to this program.
fn module(file: &str) -> Option<String> {
    let (folder, inside) = file.rsplit_once("src/")?;
    let inside = inside.strip_suffix(".rs")?;
    let mut folders = folder.trim_end_matches('/').rsplit('/');
    let folder = folders.next()?;
    let name = match folder.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ if folders.next() == Some("library") => folder,
        _ => env!("CARGO_CRATE_NAME"),
    };
    let parts = inside
        .split('/')
        .filter(|part| !matches!(*part, "lib" | "mod" | "main"));
    let all: Vec<&str> = std::iter::once(name).chain(parts).collect();
    Some(all.join("::").replace('-', "_"))
}

/// Name prefixes of the functions that record an allocation.
const PROFILER: [&str; 4] = [
    "backtrace::",
    "etcd_edge::profile::stacks::",
    "etcd_edge::profile::heap::",
    "<etcd_edge::profile::heap::",
];

/// Returns the number of innermost frames that belong to the memory profiler. `names` are the names
/// of the outermost function of each frame, innermost frame first.
pub(super) fn profiler_frames(names: &[&str]) -> usize {
    let is_profiler = |name: &&str| PROFILER.iter().any(|prefix| name.starts_with(prefix));
    names
        .iter()
        .rposition(is_profiler)
        .map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unqualified_name_gets_the_module_of_its_file() {
        let registry = "/r/src/index-1/tokio-util-0.7.20/src/codec/mod.rs";
        for (name, file, full) in [
            ("poll", registry, "tokio_util::codec::poll"),
            ("poll", "src/net/io.rs", "etcd_edge::net::io::poll"),
            ("poll", "./src/net/io.rs", "etcd_edge::net::io::poll"),
            (
                "{closure#0}<a::B>",
                "/rustc/5/library/core/src/lib.rs",
                "core::{closure#0}<a::B>",
            ),
            (
                "new<a::B>",
                "/x/etcd-edge/src/app.rs",
                "etcd_edge::app::new<a::B>",
            ),
            ("a::b::new<C>", registry, "a::b::new<C>"),
            ("<a::B as c::D>::e", registry, "<a::B as c::D>::e"),
            ("malloc", "/b/malloc.c", "malloc"),
            ("main", "", "main"),
        ] {
            assert_eq!(qualified(name.to_owned(), file), full, "{name} {file}");
        }
    }

    #[test]
    fn frames_of_the_profiler_are_counted() {
        let profiler = "etcd_edge::profile::heap::note";
        assert_eq!(
            profiler_frames(&["backtrace::trace", profiler, "alloc::alloc", "main"]),
            2
        );
        let outer = [
            "poll",
            "std::sys::backtrace::__rust_begin_short_backtrace",
            "clone",
        ];
        assert_eq!(profiler_frames(&outer), 0);
        assert_eq!(profiler_frames(&[]), 0);
    }
}
