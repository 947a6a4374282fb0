//! The gate: the bytes of a connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadq::internals::fuzzing::requests(data));
