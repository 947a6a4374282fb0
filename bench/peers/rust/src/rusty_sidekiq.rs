//! rusty-sidekiq: `peer-rusty-sidekiq worker|producer`.

mod common;

use async_trait::async_trait;
use bb8::Pool;
use common::{Payload, variable};
use sidekiq::{Processor, ProcessorConfig, RedisConnectionManager, RedisPool, Worker};

/// The worker removes a job from Redis before the job runs (BRPOP), so a crash loses running jobs. There is no other
/// mode.
#[derive(Clone)]
struct NoOp;

#[async_trait]
impl Worker<Payload> for NoOp {
    async fn perform(&self, payload: Payload) -> sidekiq::Result<()> {
        payload.report();
        Ok(())
    }
}

/// Each worker blocks on its own connection: the default of 10 would make the others wait.
async fn pool(connections: usize) -> RedisPool {
    let manager = RedisConnectionManager::new(variable("PEERS_REDIS")).expect("a URL");
    Pool::builder().max_size(connections as u32).build(manager).await.expect("Redis answers")
}

#[tokio::main]
async fn main() {
    if common::is_worker() {
        let workers = common::workers();
        let mut processor = Processor::new(pool(workers + 10).await, vec!["default".to_owned()])
            .with_config(ProcessorConfig::default().num_workers(workers));
        processor.register(NoOp);
        processor.run().await;
        return;
    }
    let pool = pool(32).await;
    let payload = Payload::no_op();
    common::produce(async |way, numbers| match (way, numbers) {
        ("one", &[jobs]) => {
            for _ in 0..jobs {
                NoOp::perform_async(&pool, payload.clone()).await.expect("enqueued");
            }
        }
        ("concurrent", &[jobs, callers]) => {
            let callers = (0..callers).map(|caller| {
                let (pool, payload) = (pool.clone(), payload.clone());
                tokio::spawn(async move {
                    for _ in (caller..jobs).step_by(callers) {
                        NoOp::perform_async(&pool, payload.clone()).await.expect("enqueued");
                    }
                })
            });
            futures::future::try_join_all(callers).await.expect("no caller panics");
        }
        ("lone", []) => NoOp::perform_async(&pool, Payload::lone()).await.expect("enqueued"),
        _ => panic!("{way} {numbers:?}"),
    })
    .await;
}
