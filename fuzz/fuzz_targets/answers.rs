//! The queue: the bytes of an answer of Redis.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadq::internals::fuzzing::answers(data));
