//! Whatever the bytes, reading them as a resident engine's file or sidecar neither panics nor takes memory out of proportion to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tickrt::untrusted::resident(bytes));
