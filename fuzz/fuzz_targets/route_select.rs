//! libFuzzer target: see `fuzz::route_select`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::route_select(bytes));
