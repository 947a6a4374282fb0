//! apalis with apalis-redis: `peer-apalis worker|producer`.

mod common;

use std::time::Duration;

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use common::{Payload, variable};

async fn no_op(payload: Payload) -> Result<Payload, BoxDynError> {
    payload.report();
    Ok(payload)
}

#[tokio::main]
async fn main() {
    let connection = apalis_redis::connect(variable("PEERS_REDIS")).await.expect("Redis answers");
    // Reliable by default: jobs taken are in a set of their worker, under a lease, until they are acknowledged.
    let mut storage = RedisStorage::new(connection).with_config(Config::default().queue("bench"));
    if common::is_worker() {
        // Without a polling strategy an idle worker polls for jobs only at its heartbeat, every 30 s.
        let worker = WorkerBuilder::new("bench")
            .backend(storage.poll_with_interval(Duration::from_millis(100)))
            .concurrency(common::workers())
            .parallelize(tokio::spawn)
            .build(no_op);
        worker.run().await.expect("the worker runs");
        return;
    }
    let payload = Payload::no_op();
    common::produce(async |way, numbers| match (way, numbers) {
        ("one", &[jobs]) => {
            for _ in 0..jobs {
                storage.push(payload.clone()).await.expect("pushed");
            }
        }
        ("concurrent", &[jobs, callers]) => {
            let callers = (0..callers).map(|caller| {
                let (mut storage, payload) = (storage.clone(), payload.clone());
                tokio::spawn(async move {
                    for _ in (caller..jobs).step_by(callers) {
                        storage.push(payload.clone()).await.expect("pushed");
                    }
                })
            });
            futures::future::try_join_all(callers).await.expect("no caller panics");
        }
        ("bulk", &[jobs, size]) => {
            for first in (0..jobs).step_by(size) {
                let payloads = vec![payload.clone(); size.min(jobs - first)];
                storage.push_bulk(payloads).await.expect("pushed");
            }
        }
        ("lone", []) => storage.push(Payload::lone()).await.expect("pushed"),
        _ => panic!("{way} {numbers:?}"),
    })
    .await;
}
