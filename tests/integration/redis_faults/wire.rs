//! The connection to Redis is slow or breaks, or Redis is too old.

use super::fixture::{Scene, assert_away, durable_redis};
use super::proxy::{Does, Proxy};
use crate::common::*;

fn over_a_wire() -> (Proxy, Scene) {
    let redis = durable_redis();
    let proxy = Proxy::to(&redis);
    let fixture = Scene::on(redis, &proxy.url());
    (proxy, fixture)
}

#[test]
fn slow_but_within_the_limit() {
    let (proxy, fixture) = over_a_wire();
    proxy.set(Does { delay: ms(80), ..Does::default() });
    fixture.server.wait_until_ready();
    let begin = Instant::now();
    fixture.server.submit_job(json!({"type": "echo", "queue": "maybe"}));
    fixture.server.get("/jobs").expect(200);
    assert!(begin.elapsed() < secs(6), "two answers took {:?}", begin.elapsed());
    fixture.running_jobs_end();
    for id in &fixture.running {
        fixture.server.wait_for_status(*id, "completed");
    }
    proxy.set(Does::default());
    fixture.all_is_well_again(true);
    fixture.assert_said(&[]);
}

#[test]
fn slower_than_the_limit() {
    let (proxy, fixture) = over_a_wire();
    proxy.set(Does { delay: ms(2500), ..Does::default() });
    assert_away(&fixture.server, "Redis is unavailable");
    fixture.running_jobs_end();
    assert_away(&fixture.server, "Redis is unavailable");
    proxy.set(Does::default());
    fixture.all_is_well_again(true);
    fixture.assert_said(&["ERROR Redis is unavailable: ", "INFO  Redis is available again after "]);
}

#[test]
fn replies_cut_in_the_middle() {
    let (proxy, fixture) = over_a_wire();
    for round in 0..8 {
        // The cuts affect the next replies, to a fetcher, the committer, a heartbeat or a client's request.
        proxy.set(Does { cuts: 1 + round % 3, ..Does::default() });
        let body = json!({"type": "echo", "queue": "maybe", "payload": round});
        let key = round.to_string();
        eventually(LIMIT, "a job is accepted", || {
            let reply = fixture.server.post_with("/jobs", &[("Idempotency-Key", &key)], &body);
            assert!(matches!(reply.status, 200 | 202 | 503), "{}", reply.text());
            reply.status != 503
        });
    }
    eventually(LIMIT, "all cuts are made", || {
        fixture.server.get("/readyz");
        proxy.cuts_left() == 0
    });
    fixture.all_is_well_again(true);
    assert_eq!(fixture.server.total("?status=completed"), fixture.server.total(""));
    let said = fixture.said();
    let about = |part: &str| said.iter().filter(|line| line.contains(part)).count();
    assert!(about("ERROR Redis is unavailable") <= 15, "{said:#?}");
    assert_eq!(about("ERROR Redis is unavailable"), about("Redis is available again"), "{said:#?}");
    assert_eq!(about("ERROR"), about("ERROR Redis is unavailable"), "{said:#?}");
}

#[test]
fn connections_closed_by_a_persons_hand() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut ids = Vec::new();
    for round in 0..10 {
        redis.query::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let key = format!("round-{round}");
        let body = json!({"jobs": vec![json!({"type": "echo"}); 10]});
        ids.extend(until_some(LIMIT, "a batch is accepted", || {
            let reply = server.post_with("/jobs/batch", &[("Idempotency-Key", &key)], &body);
            matches!(reply.status, 200 | 202).then(|| {
                let ids = reply.json()["job_ids"].as_array().cloned().unwrap_or_default();
                ids.iter().filter_map(Value::as_u64).collect::<Vec<u64>>()
            })
        }));
    }
    wait_until_quiet(&server, LIMIT);
    audit(&redis, &server, &ids);
}

#[test]
fn an_old_redis_is_refused_at_the_start() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(&redis);
    proxy.set(Does { is_old: true, ..Does::default() });
    for command in ["serve", "check"] {
        let finished = TestServer::builder().flag("redis-url", &proxy.url()).without_demo().run(command);
        assert_eq!(finished.code, Some(2), "{command}: {finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{command}: {finished:?}");
        for part in ["redis-url", " 6.", "7.0"] {
            assert!(finished.stderr.contains(part), "{command}: {part}: {finished:?}");
        }
    }
}

#[test]
fn an_old_redis_in_the_place_of_the_right_one_is_waited_out() {
    let (proxy, fixture) = over_a_wire();
    fixture.redis.kill9();
    fixture.running_jobs_end();
    proxy.set(Does { is_old: true, ..Does::default() });
    fixture.redis.restart();
    eventually(LIMIT, "it is there", || fixture.server.get("/readyz").text().contains("7.0"));
    for path in ["/jobs", "/stats", "/readyz"] {
        let sentence = fixture.server.get(path).expect_error(503, "store_unavailable", path);
        assert!(sentence.contains("7.0"), "{path}: {sentence}");
    }
    fixture.server.get("/healthz").expect(200);
    proxy.set(Does::default());
    fixture.all_is_well_again(false);
    fixture.assert_said(&[
        "ERROR Redis is unavailable: ",
        "INFO  Redis is available again after ",
        "ERROR Redis refuses writes: ",
        "INFO  Redis accepts writes again after ",
    ]);
}
