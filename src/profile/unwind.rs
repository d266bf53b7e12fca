//! Walks the copied stack of a CPU sample with the unwind tables (`.eh_frame`) of the program, its
//! libraries and the vDSO.
//!
//! The walk runs on the thread of the profiler and reads only the copy, so a wrong table ends the
//! walk and has no other effect. The walk also ends at code without a table, and at the end of the
//! copy.

use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, NativeEndian, Register, RegisterRule,
    UnwindContext, UnwindSection,
};
use libc::{c_int, c_void, dl_phdr_info, size_t};

use crate::limits;
use crate::profile::registers::{PROGRAM_COUNTER, RETURN_ADDRESS, Registers, STACK_POINTER};
use crate::profile::sampler::Sample;

/// The unwind tables of the process.
pub(super) struct Unwinder {
    modules: Vec<Module>,
    context: UnwindContext<usize>,
}

/// A copy of the unwind tables of the program or of a library.
struct Module {
    code: Range<u64>,
    header: Section,
    frames: Section,
}

/// A section that was loaded at `address`.
struct Section {
    address: u64,
    bytes: Vec<u8>,
}

impl Unwinder {
    /// Copies the unwind tables of all loaded modules. A library that is loaded later is unknown.
    pub(super) fn new() -> Unwinder {
        let mut modules: Vec<Module> = Vec::new();
        let data: *mut Vec<Module> = &mut modules;
        #[expect(
            unsafe_code,
            reason = "the callback has the required type, and uses the pointer only in this call"
        )]
        unsafe {
            libc::dl_iterate_phdr(Some(add_module), data.cast());
        }
        Unwinder {
            modules,
            context: UnwindContext::new(),
        }
    }

    /// Returns the addresses of a stack, innermost first, at most [`limits::PROFILE_DEPTH`]. The
    /// first is the interrupted instruction, the others are return addresses.
    pub(super) fn frames(&mut self, sample: &Sample<'_>) -> Vec<usize> {
        let mut registers = sample.registers;
        let mut frames = Vec::new();
        while registers[PROGRAM_COUNTER] != 0 && frames.len() < limits::PROFILE_DEPTH {
            // A return address may be after the end of its function.
            let address = registers[PROGRAM_COUNTER] - u64::from(!frames.is_empty());
            // A pointer has 64 bits here.
            frames.push(registers[PROGRAM_COUNTER] as usize);
            match self.caller(address, &registers, sample) {
                // A stack grows downwards, otherwise a table is wrong. The innermost function may have
                // no frame yet.
                Some(caller)
                    if caller[STACK_POINTER] > registers[STACK_POINTER]
                        || (frames.len() == 1
                            && caller[STACK_POINTER] == registers[STACK_POINTER]) =>
                {
                    registers = caller;
                }
                _ => break,
            }
        }
        frames
    }

    /// Returns the registers in the caller of the function at `address`.
    fn caller(
        &mut self,
        address: u64,
        registers: &Registers,
        sample: &Sample<'_>,
    ) -> Option<Registers> {
        let module = self
            .modules
            .iter()
            .find(|module| module.code.contains(&address))?;
        let bases = BaseAddresses::default()
            .set_eh_frame_hdr(module.header.address)
            .set_eh_frame(module.frames.address);
        let header = EhFrameHdr::new(&module.header.bytes, NativeEndian);
        let header = header.parse(&bases, POINTER_BYTES).ok()?;
        let frames = EhFrame::new(&module.frames.bytes, NativeEndian);
        let row = header.table()?.unwind_info_for_address(
            &frames,
            &bases,
            &mut self.context,
            address,
            EhFrame::cie_from_offset,
        );
        let row = row.ok()?;

        let value = |register: Register| registers.get(usize::from(register.0)).copied();
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                value(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(_) => return None,
        };
        let mut caller = *registers;
        for (register, rule) in row.registers() {
            let Some(saved) = caller.get_mut(usize::from(register.0)) else {
                continue;
            };
            *saved = match rule {
                RegisterRule::SameValue => value(*register)?,
                RegisterRule::Offset(offset) => word(sample, cfa.wrapping_add_signed(*offset))?,
                RegisterRule::ValOffset(offset) => cfa.wrapping_add_signed(*offset),
                RegisterRule::Register(other) => value(*other)?,
                // The outermost function has no return address.
                _ if usize::from(register.0) == RETURN_ADDRESS => return None,
                _ => 0,
            };
        }
        caller[PROGRAM_COUNTER] = caller[RETURN_ADDRESS];
        caller[STACK_POINTER] = cfa;
        Some(caller)
    }
}

const POINTER_BYTES: u8 = size_of::<usize>() as u8;

/// Returns the word at an address of the copied stack.
fn word(sample: &Sample<'_>, address: u64) -> Option<u64> {
    let offset = address.checked_sub(sample.registers[STACK_POINTER])?;
    let bytes = sample.stack.get(usize::try_from(offset).ok()?..)?;
    bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// Copies the tables of one module. The loader keeps it loaded during the call.
extern "C" fn add_module(info: *mut dl_phdr_info, _: size_t, modules: *mut c_void) -> c_int {
    #[expect(
        unsafe_code,
        reason = "the loader passes a valid description with all its headers, and the pointer \
                  that its caller passed"
    )]
    let (info, headers, modules) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info, headers, &mut *modules.cast::<Vec<Module>>())
    };
    let range = |header: &libc::Elf64_Phdr| {
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
        start..start.wrapping_add(header.p_memsz)
    };
    let loaded: Vec<_> = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD)
        .collect();
    let code = loaded
        .iter()
        .filter(|header| header.p_flags & libc::PF_X != 0);
    let code = code
        .map(|header| range(header))
        .reduce(|one, other| one.start..other.end);
    let table = headers
        .iter()
        .find(|header| header.p_type == libc::PT_GNU_EH_FRAME);
    let (Some(code), Some(table)) = (code, table.map(range)) else {
        return 0;
    };
    let segment = |address: u64| {
        let is_constant = |flags: u32| flags & (libc::PF_R | libc::PF_W) == libc::PF_R;
        let segments = loaded.iter().filter(|header| is_constant(header.p_flags));
        segments
            .map(|header| range(header))
            .find(|range| range.contains(&address))
    };
    let Some(segment_of_table) = segment(table.start) else {
        return 0;
    };
    let header = copy(table.start..table.end.min(segment_of_table.end));
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.address);
    let parsed = EhFrameHdr::new(&header.bytes, NativeEndian).parse(&bases, POINTER_BYTES);
    let start = parsed
        .ok()
        .and_then(|parsed| parsed.eh_frame_ptr().direct().ok());
    // The section ends with an empty entry. Its length is in no header.
    let frames = start.and_then(|start| Some(start..segment(start)?.end));
    if let Some(frames) = frames {
        modules.push(Module {
            code,
            header,
            frames: copy(frames),
        });
    }
    0
}

/// Copies memory of a loaded read-only segment.
fn copy(range: Range<u64>) -> Section {
    // A pointer has 64 bits here.
    let length = (range.end - range.start) as usize;
    let start: *const u8 = std::ptr::with_exposed_provenance(range.start as usize);
    #[expect(
        unsafe_code,
        reason = "the range is within a read-only segment, and the loader keeps it loaded"
    )]
    let bytes = unsafe { std::slice::from_raw_parts(start, length) };
    Section {
        address: range.start,
        bytes: bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use parking_lot::Mutex;

    use super::Unwinder;
    use crate::profile::sampler::Sampler;
    use crate::profile::symbols::{AddressKind, source_frames};

    /// The slots are shared.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[inline(never)]
    fn recursive(depth: usize) -> usize {
        if depth > 0 {
            return std::hint::black_box(recursive(depth - 1)) + 1;
        }
        #[expect(unsafe_code, reason = "the signal has a handler")]
        let result = unsafe { libc::raise(libc::SIGPROF) };
        usize::from(result != 0)
    }

    fn names(stack: &[usize]) -> Vec<String> {
        let functions = |address: &usize| source_frames(*address, AddressKind::Return);
        let functions = stack.iter().flat_map(functions);
        functions.map(|function| function.name).collect()
    }

    #[test]
    fn the_stack_of_an_interrupted_thread_is_complete() {
        let _guard = ONE_AT_A_TIME.lock();
        let sampler = Sampler::install().unwrap();
        assert_eq!(std::hint::black_box(recursive(3)), 3);
        let mut unwinder = Unwinder::new();
        let mut stacks = Vec::new();
        sampler.collect(|sample| stacks.push(unwinder.frames(sample)));
        assert_eq!(stacks.len(), 1);
        let names = names(&stacks[0]);
        let calls = names.iter().filter(|name| name.ends_with("::recursive"));
        assert_eq!(calls.count(), 4, "{names:#?}");
        let is_outermost = |name: &String| name.contains("thread_start");
        assert!(names.iter().any(is_outermost), "{names:#?}");
        sampler.collect(|_| panic!("the sample is collected once"));
    }

    /// Interrupts threads in the allocator, the loader and the unwinder, and while they start and
    /// end. Nothing blocks, and errno is unchanged.
    #[test]
    fn samples_of_busy_threads_disturb_nothing() {
        const SAMPLES: usize = 3_000;
        let _guard = ONE_AT_A_TIME.lock();
        let sampler = Sampler::install().unwrap();
        let mut unwinder = Unwinder::new();
        let stop = AtomicBool::new(false);
        let work = &|| {
            while !stop.load(Ordering::Relaxed) {
                let unwound = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7)));
                assert!(unwound.is_err());
                let mut depth = 0;
                backtrace::trace(|_| {
                    depth += 1;
                    true
                });
                assert!(depth > 3);
                let missing = std::fs::File::open("/no/such/file").unwrap_err();
                assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
                thread::scope(|scope| drop(scope.spawn(|| vec![1; 4_000])));
            }
        };
        let (mut samples, mut frames) = (0, 0);
        thread::scope(|scope| {
            // A scoped handle cannot be the target of a signal, so each thread reports itself.
            let (sender, receiver) = std::sync::mpsc::channel();
            for _ in 0..2 {
                let sender = sender.clone();
                scope.spawn(move || {
                    #[expect(unsafe_code, reason = "the call has no conditions")]
                    let this = unsafe { libc::pthread_self() };
                    sender.send(this).unwrap();
                    work();
                });
            }
            let threads = [receiver.recv().unwrap(), receiver.recv().unwrap()];
            let end = Instant::now() + Duration::from_secs(30);
            while samples < SAMPLES {
                assert!(Instant::now() < end, "{samples} samples");
                for thread in threads {
                    #[expect(unsafe_code, reason = "the thread runs, and the signal has a handler")]
                    let result = unsafe { libc::pthread_kill(thread, libc::SIGPROF) };
                    assert_eq!(result, 0);
                }
                thread::sleep(Duration::from_micros(50));
                sampler.collect(|sample| {
                    samples += 1;
                    frames += unwinder.frames(sample).len();
                });
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(frames / samples > 5, "{frames} frames of {samples} samples");
    }
}
