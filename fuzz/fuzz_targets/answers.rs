//! The bytes of a reply of Redis, which the queue parses.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadq::internals::fuzzing::answers(data));
