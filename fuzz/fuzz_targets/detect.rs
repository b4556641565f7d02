//! libFuzzer target: see `fuzz::detect`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::detect(bytes));
