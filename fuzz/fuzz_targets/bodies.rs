//! The API: bodies, paths and queries of requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadq::internals::fuzzing::bodies(data));
