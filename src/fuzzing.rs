//! The functions that the fuzz targets in `fuzz/` call, one per target. Each takes any bytes and panics where a promise is
//! broken. Compiled only for fuzzing and for tests.
//!
//! Each part of the crate that parses foreign bytes has a module `fuzzing`, which reaches its private items. The tests here
//! replay the inputs in `fuzz/corpus`, which are named by what they show.

pub use crate::api::fuzzing::check as bodies;
pub use crate::config::fuzzing::check as config;
pub use crate::gate::fuzzing::check as requests;
pub use crate::queue::fuzzing::check as answers;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Checks all inputs of a target, and that each has a name that says what it shows.
    fn replay(target: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.len() < 40, "{name}: name it by what it shows");
            let data = fs::read(&path).unwrap();
            if let Err(panic) = std::panic::catch_unwind(|| check(&data)) {
                eprintln!("input: {}", path.display());
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
