//! Bodies, paths and queries of requests, which the API parses.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadq::internals::fuzzing::bodies(data));
