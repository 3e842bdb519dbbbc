//! Whatever the bytes, reading them as a plan's sidecar neither panics nor takes memory out of proportion to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tickrt::untrusted::sidecar(bytes));
