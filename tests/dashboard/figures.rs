//! The figures of the last hour from which the charts are drawn.

use super::common::*;

#[test]
fn the_figures_of_the_hour_are_summed_over_servers_and_idle_servers_write_none() {
    let redis = TestRedis::start();
    let one = TestServer::start(&redis);
    let two = TestServer::builder().redis(&redis).flag("queues", "other").start();
    for queue in ["default", "other"] {
        for id in one.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 20}, "queue": queue}); 5])
        {
            one.wait_for_status(id, "completed");
        }
    }
    two.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let sum = |name: &str| -> u64 {
        let answer = two.get("/stats/history").expect(200).json();
        let minutes = answer["minutes"].as_array().expect("minutes").clone();
        assert_eq!(minutes.len(), 60);
        time_ms(&minutes[0]["at"]);
        minutes.iter().filter_map(|minute| minute[name].as_u64()).sum()
    };
    eventually(LIMIT, "both have written", || (sum("completed"), sum("submitted")) == (10, 11));
    let answer = one.get("/stats/history").expect(200).json();
    let minutes = answer["minutes"].as_array().expect("minutes");
    // A minute that has just begun has no depth yet.
    let depth = minutes.iter().rev().find_map(|minute| minute["depth"]["scheduled"].as_u64());
    assert_eq!(depth, Some(1), "{answer}");
    let run = minutes.iter().find_map(|minute| minute["run_ms"].as_f64()).expect("a mean");
    assert!((20.0..60_000.0).contains(&run), "{run}");
    // A job may start in one minute and end in the next.
    for (name, least) in [("run", 10.0), ("wait", 0.0)] {
        let known: Vec<&Value> =
            minutes.iter().filter(|minute| !minute[format!("{name}_ms")].is_null()).collect();
        assert!(!known.is_empty(), "{name}: {answer}");
        for minute in known {
            let [half, most] = ["p50", "p95"].map(|part| minute[format!("{name}_{part}_ms")].as_f64());
            assert!(half.is_some_and(|half| half > least) && half <= most, "{name}: {minute}");
        }
    }
    // Whoever writes while nothing happens would write the key of this minute again.
    for key in redis.query::<Vec<String>>(&["KEYS", "{threadq}:history:*"]) {
        assert!((1..=7200).contains(&redis.query::<i64>(&["TTL", &key])), "{key} goes away by itself");
        redis.query::<u64>(&["DEL", &key]);
    }
    holds_for(secs(5), "nothing is written", || {
        redis.query::<Vec<String>>(&["KEYS", "{threadq}:history:*"]).is_empty()
    });
}
