//! All connections of a server are in use: the server does not report an outage of Redis.

use threadq::internals::queue::{Error, Queue, Settings};

use crate::common::*;

#[test]
fn waiting_for_ones_own_connections_is_no_absence_of_redis() {
    let redis = TestRedis::start();
    let settings = Settings::new(redis.url(), "threadq");
    let queue = Queue::new(&settings).expect("a queue");
    queue.check_ready().expect("it is ready");
    // Longer than a call waits for a connection, and shorter than it waits for a reply.
    redis.query::<()>(&["CLIENT", "PAUSE", "1400", "ALL"]);
    let outcomes: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| queue.check_ready())).collect();
        calls.into_iter().map(|call| call.join().expect("no panic")).collect()
    });
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Busy(1)))).count();
    assert!(busy > 0, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Error::Busy(1)))), "{outcomes:?}");
    assert!(!queue.is_unavailable());
    queue.check_ready().expect("it is ready");
}
