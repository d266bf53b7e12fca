//! The registers of an interrupted thread, by their DWARF numbers.

use libc::ucontext_t;

pub(super) use arch::{COUNT, PROGRAM_COUNTER, RETURN_ADDRESS, STACK_POINTER};

/// Values of registers. The index is the DWARF number, except for [`PROGRAM_COUNTER`].
pub(super) type Registers = [u64; COUNT];

/// Returns the registers that the kernel saved for a signal handler. Async-signal-safe.
pub(super) fn read(context: &ucontext_t) -> Registers {
    arch::read(context)
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use libc::{
        REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX, REG_RBP,
        REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP, ucontext_t,
    };

    /// Number of registers.
    pub(in crate::profile) const COUNT: usize = 17;
    /// Index of the stack pointer.
    pub(in crate::profile) const STACK_POINTER: usize = 7;
    /// Index of the program counter.
    pub(in crate::profile) const PROGRAM_COUNTER: usize = 16;
    /// DWARF number of the column of the return address.
    pub(in crate::profile) const RETURN_ADDRESS: usize = 16;

    pub(super) fn read(context: &ucontext_t) -> [u64; COUNT] {
        let numbers = [
            REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8, REG_R9,
            REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP,
        ];
        // The values are bit patterns.
        numbers.map(|number| context.uc_mcontext.gregs[number as usize] as u64)
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use libc::ucontext_t;

    /// Number of registers.
    pub(in crate::profile) const COUNT: usize = 33;
    /// Index of the stack pointer.
    pub(in crate::profile) const STACK_POINTER: usize = 31;
    /// Index of the program counter, which has no DWARF number.
    pub(in crate::profile) const PROGRAM_COUNTER: usize = 32;
    /// DWARF number of the column of the return address: the link register.
    pub(in crate::profile) const RETURN_ADDRESS: usize = 30;

    pub(super) fn read(context: &ucontext_t) -> [u64; COUNT] {
        let mut registers = [0; COUNT];
        registers[..31].copy_from_slice(&context.uc_mcontext.regs);
        registers[STACK_POINTER] = context.uc_mcontext.sp;
        registers[PROGRAM_COUNTER] = context.uc_mcontext.pc;
        registers
    }
}

/// An unknown architecture. Samples have no frames.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    use libc::ucontext_t;

    pub(in crate::profile) const COUNT: usize = 1;
    pub(in crate::profile) const STACK_POINTER: usize = 0;
    pub(in crate::profile) const PROGRAM_COUNTER: usize = 0;
    pub(in crate::profile) const RETURN_ADDRESS: usize = 0;

    pub(super) fn read(_: &ucontext_t) -> [u64; COUNT] {
        [0; COUNT]
    }
}
