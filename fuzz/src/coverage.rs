//! What the instrumented crates tell while they run: which edges were passed, and what they compared with what.
//!
//! LLVM's pass adds one counter of a byte for each edge and calls these functions; their names and shapes are its own
//! (SanitizerCoverage). Only this process's own statics are touched, and one thread runs targets.
#![allow(unsafe_code, reason = "the compiler's hooks are raw functions")]

use std::cell::RefCell;
use std::sync::Mutex;

/// Where the counters of each instrumented module are.
static COUNTERS: Mutex<Vec<Section>> = Mutex::new(Vec::new());
/// How many compared values are kept for the next mutations.
const COMPARED_MAX: usize = 64;

struct Section {
    start: *mut u8,
    len: usize,
}

// SAFETY: the section is a static of this program; only the thread that fuzzes reads and clears it.
unsafe impl Send for Section {}

thread_local! {
    static COMPARED: RefCell<Compared> = const { RefCell::new(Compared { values: Vec::new(), next: 0 }) };
}

struct Compared {
    values: Vec<(u64, u8)>,
    next: usize,
}

/// # Safety
/// Called by the compiler's own start-up code, once for each module, with the bounds of its counters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let len = (stop as usize).saturating_sub(start as usize);
    let mut all = COUNTERS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if len > 0 && !all.iter().any(|section| section.start == start) {
        all.push(Section { start, len });
    }
}

/// How many edges there are.
pub fn edges() -> usize {
    let all = COUNTERS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    all.iter().map(|section| section.len).sum()
}

/// Calls `see` for each edge that was passed, with how often, and sets all counters to zero.
pub fn take(mut see: impl FnMut(usize, u8)) {
    let all = COUNTERS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut base = 0;
    for section in all.iter() {
        // SAFETY: the bounds came from the compiler; nothing else touches the counters while no target runs.
        let counters = unsafe { std::slice::from_raw_parts_mut(section.start, section.len) };
        for (chunk_index, chunk) in counters.chunks_mut(64).enumerate() {
            if chunk.iter().all(|counter| *counter == 0) {
                continue;
            }
            for (index, counter) in chunk.iter_mut().enumerate() {
                if *counter != 0 {
                    see(base + chunk_index * 64 + index, *counter);
                    *counter = 0;
                }
            }
        }
        base += section.len;
    }
}

/// Values that the target compared its input with, newest kept; with their size in bytes.
pub fn compared() -> Vec<(u64, u8)> {
    COMPARED.with_borrow(|compared| compared.values.clone())
}

fn note(a: u64, b: u64, size: u8) {
    if a == b {
        return;
    }
    // A hook may run while a thread is ending; then there is nobody to tell.
    let _ = COMPARED.try_with(|compared| {
        if let Ok(mut compared) = compared.try_borrow_mut() {
            for value in [a, b] {
                if value < 2 || compared.values.contains(&(value, size)) {
                    continue;
                }
                if compared.values.len() < COMPARED_MAX {
                    compared.values.push((value, size));
                } else {
                    let next = compared.next % COMPARED_MAX;
                    compared.values[next] = (value, size);
                    compared.next = next + 1;
                }
            }
        }
    });
}

macro_rules! hooks {
    ($($name:ident $type:ty, $size:literal;)*) => {
        $(#[unsafe(no_mangle)]
        pub extern "C" fn $name(a: $type, b: $type) {
            note(u64::from(a), u64::from(b), $size);
        })*
    };
}

hooks! {
    __sanitizer_cov_trace_cmp1 u8, 1;
    __sanitizer_cov_trace_cmp2 u16, 2;
    __sanitizer_cov_trace_cmp4 u32, 4;
    __sanitizer_cov_trace_cmp8 u64, 8;
    __sanitizer_cov_trace_const_cmp1 u8, 1;
    __sanitizer_cov_trace_const_cmp2 u16, 2;
    __sanitizer_cov_trace_const_cmp4 u32, 4;
    __sanitizer_cov_trace_const_cmp8 u64, 8;
}

/// Switches are seen by the edges that they lead to.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_trace_switch(_value: u64, _cases: *mut u64) {}
