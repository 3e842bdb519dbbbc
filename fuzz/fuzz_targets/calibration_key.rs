//! Whatever the bytes, reading them as a calibration cache's origin neither panics nor takes memory out of proportion to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tickrt::untrusted::calibration_key(bytes));
