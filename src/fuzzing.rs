//! What the fuzz targets in `fuzz/` call, one function per target: each takes any bytes and panics where a promise is
//! broken. Compiled for fuzzing and for tests alone.
//!
//! Each part of the crate that reads what others write has a module `fuzzing` of its own, which reaches its private
//! parts. The tests here feed them what the fuzzers have found worth keeping, so that every run of the tests replays it.

pub use crate::api::fuzzing::check as bodies;
pub use crate::config::fuzzing::check as config;
pub use crate::gate::fuzzing::check as requests;
pub use crate::queue::fuzzing::check as answers;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Everything that is kept for this target.
    fn replay(target: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            if let Err(panic) = std::panic::catch_unwind(|| check(&data)) {
                eprintln!("the input is {}", path.display());
                std::panic::resume_unwind(panic);
            }
            inputs += 1;
        }
        assert!(inputs > 10, "only {inputs} inputs in {}", folder.display());
    }

    #[test]
    fn requests() {
        replay("requests", super::requests);
    }

    #[test]
    fn bodies() {
        replay("bodies", super::bodies);
    }

    #[test]
    fn answers() {
        replay("answers", super::answers);
    }

    #[test]
    fn config() {
        replay("config", super::config);
    }
}
