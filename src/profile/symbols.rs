//! What stands at an address: functions, files and lines, from what the program's own file says.

/// One function that is open at an address; several where some were inlined.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Without the hash that makes it unique; the address where there is no name.
    pub(super) name: String,
    /// Its file, or nothing.
    pub(super) file: String,
    /// The line in it, or 0.
    pub(super) line: i64,
}

/// What the address of a frame is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// What comes after a call, which may stand behind the function's end.
    Return,
    /// What comes next, where it was interrupted: it may be the function's first.
    Next,
}

/// What was read of the program's file is kept no longer.
pub(super) fn forget() {
    backtrace::clear_symbol_cache();
}

/// The functions at an address, the innermost first.
pub(super) fn places(address: usize, at: At) -> Vec<Place> {
    let mut places = Vec::new();
    // Looked up is what stands before.
    let behind = address + usize::from(at == At::Next);
    backtrace::resolve(std::ptr::without_provenance_mut(behind), |symbol| {
        let file = symbol.filename();
        let file = file.map(|file| file.display().to_string());
        let file = file.unwrap_or_default();
        // The alternate form leaves the hash out.
        let name = symbol.name().map(|name| format!("{name:#}"));
        places.push(Place {
            name: name.map_or(format!("{address:#x}"), |name| qualified(name, &file)),
            file,
            line: symbol.lineno().map_or(0, i64::from),
        });
    });
    if places.is_empty() {
        places.push(Place {
            name: format!("{address:#x}"),
            file: String::new(),
            line: 0,
        });
    }
    places
}

/// Of a function that was inlined, line tables have the name without what it stands in: its file has that.
fn qualified(name: String, file: &str) -> String {
    let own = name.split(['<', '{']).next().unwrap_or_default();
    let is_whole = own.contains("::") || name.starts_with("<");
    match module(file) {
        Some(module) if !is_whole => format!("{module}::{name}"),
        _ => name,
    }
}

/// The module that a file of Rust is, by its path: `…/NAME-1.2.3/src/a/mod.rs` is `NAME::a`, what is no
/// dependency is the program's own.
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

/// Functions that take a profile begin so.
const OWN: [&str; 5] = [
    "backtrace::",
    "etcd_edge::profile::stacks::",
    "etcd_edge::profile::heap::",
    "etcd_edge::profile::cpu::note",
    "<etcd_edge::profile::heap::",
];

/// Those that hand on a signal.
const SIGNAL: &str = "signal_hook_registry::";

/// What takes a profile is at the inner end of each stack: how many frames that is. `names` are those of
/// each frame's outermost function, the innermost frame first.
pub(super) fn own(names: &[&str]) -> usize {
    let is_own = |name: &&str| OWN.iter().any(|own| name.starts_with(own)) || name.contains(SIGNAL);
    let Some(last) = names.iter().rposition(is_own) else {
        return 0;
    };
    // A signal's handler was called by a frame that is nobody's, without a name or with libc's.
    let is_signal = names[last].contains(SIGNAL);
    last + 1 + usize::from(is_signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_gets_the_module_of_its_file() {
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
    fn who_takes_the_profile_is_not_in_it() {
        let taker = "etcd_edge::profile::heap::note";
        assert_eq!(own(&["backtrace::trace", taker, "alloc::alloc", "main"]), 2);
        let signal = [
            "etcd_edge::profile::cpu::note",
            "signal_hook_registry::handler",
            "__restore_rt",
        ];
        assert_eq!(own(&[&signal[..], &["poll", "main"]].concat()), 3);
        let outer = [
            "poll",
            "std::sys::backtrace::__rust_begin_short_backtrace",
            "clone",
        ];
        assert_eq!(own(&outer), 0);
        assert_eq!(own(&[]), 0);
    }
}
