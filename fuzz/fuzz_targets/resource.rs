//! libFuzzer target: see `fuzz::resource`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::resource(bytes));
