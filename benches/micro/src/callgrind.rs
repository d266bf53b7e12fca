//! Runs a case under callgrind and reads its counts.
//!
//! Each case runs twice, with few and with many rounds, each time in a process of its own. The
//! difference is the cost of the operations, without the start of the program. Allocations are the
//! calls of the allocator in the same profile.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use crate::cases::{Case, Threads};
use crate::figures::Count;

/// First argument of a process that runs one case under callgrind.
pub(crate) const RUN: &str = "--run";

/// Restricts the C library to the copy loops of the x86-64 baseline, so that counts are the same on
/// all machines. By default the C library selects loops by the features of the processor.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-ERMS,-FSRM,-SSSE3,\
    -SSE4_1,-SSE4_2,-BMI2,-AVX_Fast_Unaligned_Load,-Fast_Unaligned_Copy";

/// Returns the tools that counts depend on: compiler, valgrind, machine and allocator.
pub(crate) fn toolchain() -> Result<String, String> {
    let rustc = stdout_of(Command::new("rustc").arg("--version"))?;
    let rustc: Vec<&str> = rustc.split_whitespace().take(2).collect();
    let valgrind = stdout_of(Command::new("valgrind").arg("--version"))?;
    Ok(format!(
        "{}, {valgrind}, {}, mimalloc",
        rustc.join(" "),
        env::consts::ARCH
    ))
}

fn stdout_of(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Counts the cost of one operation of the case.
pub(crate) fn count(case: &Case) -> Result<Count, String> {
    let (few, many) = case.rounds;
    // In parallel: counts do not depend on other processes.
    let (short, long) = thread::scope(|scope| {
        let short = scope.spawn(|| totals(case, few));
        let long = totals(case, many);
        (short.join(), long)
    });
    let short = short.map_err(|_| format!("{}: counting panicked", case.name))??;
    let long = long?;
    if short.instructions >= long.instructions {
        // The counted threads are not the threads that do the work.
        return Err(format!(
            "{}: more rounds did not take more instructions",
            case.name
        ));
    }
    // Far below 2^53, so the conversion is exact.
    let operations = ((many - few) * case.per_round) as f64;
    let each = |short: u64, long: u64| (long as f64 - short as f64) / operations;
    Ok(Count {
        instructions: each(short.instructions, long.instructions),
        allocations: each(short.allocations, long.allocations),
    })
}

/// Returns the path of the profile of the longer run, for `callgrind_annotate`.
pub(crate) fn profile(case: &Case) -> String {
    let path = out(case, case.rounds.1).display().to_string();
    match case.threads {
        Threads::Main => path + "-01",
        // The acceptor is the second thread, and its worker the third.
        Threads::Others => path + "-03",
    }
}

fn out(case: &Case, rounds: u64) -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let folder = program.with_file_name("callgrind");
    folder.join(format!("{}.{rounds}", case.name))
}

#[derive(Default)]
struct Totals {
    instructions: u64,
    allocations: u64,
}

fn totals(case: &Case, rounds: u64) -> Result<Totals, String> {
    let program = env::current_exe().map_err(|e| e.to_string())?;
    let out = out(case, rounds);
    let folder = out.parent().unwrap_or(&out);
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    // Each thread writes one file. Their numbers begin at 01.
    let files: Vec<PathBuf> = (1..10)
        .map(|thread| format!("{}-{thread:02}", out.display()).into())
        .collect();
    for file in &files {
        // An earlier run may have had more threads.
        let _ = fs::remove_file(file);
    }
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "-q"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([RUN, case.name, &rounds.to_string()])
        // Inherited variables would shift the stack, which changes the work of the copy loops.
        .env_clear()
        .env("GLIBC_TUNABLES", TUNABLES)
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    if !ran.status.success() {
        let stderr = String::from_utf8_lossy(&ran.stderr);
        return Err(format!(
            "{} under valgrind: {}\n{stderr}",
            case.name, ran.status
        ));
    }
    let counted = match case.threads {
        Threads::Main => &files[..1],
        Threads::Others => &files[1..],
    };
    let mut sum = Totals::default();
    for file in counted.iter().filter(|file| file.exists()) {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let thread = read(&text).ok_or_else(|| format!("{} has no totals", file.display()))?;
        sum.instructions += thread.instructions;
        sum.allocations += thread.allocations;
    }
    Ok(sum)
}

/// Reads the totals of one thread's profile. `None` if the profile is cut off before its totals.
fn read(profile: &str) -> Option<Totals> {
    let mut totals = Totals::default();
    // A name is written once with its number, later only the number: `cfn=(7) name`, `cfn=(7)`.
    let mut allocates = HashMap::new();
    let mut callee = "";
    for line in profile.lines() {
        if let Some(called) = line.strip_prefix("cfn=").or(line.strip_prefix("fn=")) {
            let (number, name) = called.split_once(' ').unwrap_or((called, ""));
            if !name.is_empty() {
                allocates.insert(number, is_allocation(name));
            }
            callee = number;
        } else if let Some(calls) = line.strip_prefix("calls=")
            && allocates.get(callee).is_some_and(|it| *it)
        {
            totals.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
        } else if let Some(instructions) = line.strip_prefix("totals: ") {
            totals.instructions = instructions.trim().parse().ok()?;
            return Some(totals);
        }
    }
    None
}

/// Whether a function is an entry point of the allocator that returns new memory. A recursive call
/// has a suffix in its name.
fn is_allocation(function: &str) -> bool {
    let name = function.split('\'').next().unwrap_or(function);
    matches!(
        name,
        "mi_malloc_aligned" | "mi_zalloc_aligned" | "mi_realloc_aligned"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
# callgrind format
events: Ir

fn=(1) main
16 3
cfn=(2) mi_malloc_aligned
calls=5 10
16 100
fn=(2)
10 100

fn=(3) mi_free
cfn=(2)
calls=2 10
16 40
cfn=(4) mi_malloc_aligned_at
calls=9 10
16 40

totals: 143
";

    #[test]
    fn allocations_of_a_profile_are_summed() {
        let totals = read(PROFILE).unwrap();
        assert_eq!((totals.instructions, totals.allocations), (143, 7));
    }

    #[test]
    fn a_cut_profile_is_none() {
        assert!(read(&PROFILE.replace("totals: 143\n", "")).is_none());
        assert!(read(&PROFILE.replace("143\n", "\n")).is_none());
    }
}
