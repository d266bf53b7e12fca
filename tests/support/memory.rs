//! Peak memory of a process.

use super::process::Process;

/// Returns the peak resident memory since the start or the last [`reset_peak`], in KiB.
pub fn peak_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("a live process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.expect("VmHWM in the process status")
}

/// Resets the peak to the current resident memory.
pub fn reset_peak(process: &Process) {
    let path = format!("/proc/{}/clear_refs", process.pid());
    std::fs::write(&path, "5").unwrap_or_else(|error| panic!("{path}: {error}"));
}
