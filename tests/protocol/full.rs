//! At its `maxmemory` Redis refuses new jobs; the jobs in it go on.

use std::time::Duration;

use threadq::internals::queue::{Changed, Error, Quarantine, Settled, SubmitError};
use threadq::job::{NewJob, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;

#[test]
fn everything_but_a_submission_goes_on_while_redis_is_full() {
    let place = Place::alone();
    let (a, b) = (place.server(), place.server());
    let submitted = place.submit_many(9);
    let delayed = place.submit_delayed();
    place.make_due(delayed);
    let of_b = place.fetch(&b);
    // Redis also loads scripts that it does not know yet.
    let _: () = place.run(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"));

    assert!(matches!(
        place.queue.submit(&[NewJob::new("t")], None, NO_LIMIT),
        Err(SubmitError::Queue(Error::Full))
    ));
    assert!(matches!(place.queue.check_ready(), Err(Error::Full)));
    assert!(matches!(place.queue.wait_for_job(&a, "default"), Err(Error::Full)));

    let c = place.server();
    place.queue.heartbeat(&c, 0, 8, &[]).unwrap();
    assert_eq!(place.try_take(&b, 1, Quarantine::Start, Some(&of_b)).unwrap().jobs.len(), 1);
    let mut leases = place.take(&a, 7).into_iter().map(|(lease, _)| lease);
    let mut again = leases.next().unwrap();
    assert_eq!(
        place.queue.retry_inline(&a, &mut again, "no", Duration::ZERO).unwrap(),
        Settled::Now(Status::Processing)
    );
    assert_eq!(place.settle(&a, &completed(again)), Settled::Now(Status::Completed));
    assert_eq!(place.settle(&a, &retried(leases.next().unwrap())), Settled::Now(Status::Retrying));
    assert_eq!(place.settle(&a, &buried(leases.next().unwrap())), Settled::Now(Status::Failed));
    assert_eq!(place.settle(&a, &released(leases.next().unwrap())), Settled::Now(Status::Queued));
    let lost = leases.next().unwrap().id();
    assert_eq!(place.queue.recover(&a, &[lost.to_string().into()]).unwrap(), 1);
    let asked = leases.next().unwrap();
    assert_eq!(place.cancel(asked.id()), Changed::Requested(a.to_string()));
    assert_eq!(place.settle(&a, &released(asked)), Settled::Now(Status::Cancelled));
    assert_eq!(place.cancel(submitted[8]), Changed::Done);
    assert_eq!(place.queue.retry(&[submitted[8]], &[]).unwrap(), [Changed::Done]);
    assert_eq!(place.queue.work_off_due(3).unwrap().moved, 1);
    assert_eq!(place.dies(&a).crashed.len(), 1);
    assert_eq!(place.queue.leave(&b).unwrap().unwrap().moved, 1);
    place.queue.set_paused("default", true).unwrap();
    assert!(place.take(&c, 9).is_empty());
    place.queue.set_paused("default", false).unwrap();
    assert_eq!(place.queue.delete(&[submitted[1]], &[]).unwrap(), [Changed::Done]);
    assert!(place.queue.delete_old_jobs(false, Duration::ZERO, 0).unwrap());
    assert_sound(&place);

    let _: () = place.run(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0"));
    place.submit();
}
