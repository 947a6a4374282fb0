//! Many types, names with special signs, and the list of completed jobs behind a job that is kept for long.

use threadq::internals::queue::{SCRIPT_NAMES, script_text};
use threadq::job::{NewJob, Status};

use crate::fixture::*;

#[test]
fn a_namespace_may_have_the_names_of_constants() {
    let place = Place::new();
    for namespace in ["SERVERS", "JOB.READY-TYPES", "SET"] {
        for name in SCRIPT_NAMES {
            let text = script_text(name, namespace, |_, text| text.to_owned());
            let loaded = place.try_run(redis::cmd("SCRIPT").arg("LOAD").arg(text));
            assert!(loaded.is_ok(), "{name} in the namespace {namespace}: {loaded:?}");
        }
        let queue = open_queue(place.wire.url(), namespace);
        let id = queue.submit(&[NewJob::new("t")], None, NO_LIMIT).unwrap().first;
        assert_eq!(queue.get(id).unwrap().unwrap().status, Status::Queued);
    }
}
