//! A process's memory over time: the most it ever had.

use super::process::Process;

/// The most resident memory since its start or [`forget_peak`], in KiB.
pub fn peak_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("a live process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.expect("the kernel keeps the peak")
}

/// The peak counts from now on.
pub fn forget_peak(process: &Process) {
    let path = format!("/proc/{}/clear_refs", process.pid());
    std::fs::write(&path, "5").unwrap_or_else(|error| panic!("{path}: {error}"));
}
