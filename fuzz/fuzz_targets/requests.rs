//! The bytes of a client connection, which the gate parses.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadq::internals::fuzzing::requests(data));
