//! A server that runs out of memory ends at once, and other servers run its jobs. The memory of a burst is given back.

use std::process::Command;

use crate::common::process::{memory, peak_memory};
use crate::common::*;

/// The limit in MB above idle. It is 8 for a release; a debug build has more pages of code.
const MOST_ABOVE_IDLE: u64 = 12;

#[test]
fn eight_listings_of_large_jobs_cost_little_and_the_memory_comes_back() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("echo", json!(1));
    let idle = memory(server.pid());
    let payload = json!("x".repeat(900_000));
    for _ in 0..100 {
        server.submit("echo", payload.clone());
    }
    eventually(LIMIT, "all are done", || server.count("completed") == 101);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let page = server.get("/jobs?limit=100").expect(200);
                assert!(page.text().len() < 4 << 20);
            });
        }
    });
    assert!(peak_memory(server.pid()) < 100, "{} MB at most", peak_memory(server.pid()));
    eventually(LIMIT, "the memory comes back", || memory(server.pid()) <= idle + MOST_ABOVE_IDLE);
}

#[test]
fn a_server_without_memory_dies_and_its_jobs_are_taken_over() {
    let redis = TestRedis::start();
    let builder = TestServer::builder().redis(&redis).flag("lease-timeout", "1s").flag("workers", "4");
    // With one malloc arena the limit applies to all memory.
    let mut server = builder.clone().env("MALLOC_ARENA_MAX", "1").start();
    let observer =
        TestServer::builder().redis(&redis).flag("lease-timeout", "1s").flag("queues", "nobody").start();
    let running = observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 60_000}}); 2]);
    for id in &running {
        observer.wait_for_status(*id, "processing");
    }
    let pid = format!("--pid={}", server.pid());
    let done = Command::new("prlimit").args([&pid, "--as=1:"]).status();
    assert!(done.is_ok_and(|status| status.success()), "prlimit");
    let large = observer.submit("echo", json!("x".repeat(900_000)));
    assert_eq!(server.wait_exit(LIMIT), None, "a signal ended it");
    assert!(server.log_text().contains("memory allocation of"), "{}", server.log_tail());

    let other = builder.start();
    for id in &running {
        let job = other.wait_for(*id, LIMIT, "been taken over", |job| job["crashes"] == 1);
        let kinds: Vec<_> =
            job["errors"].as_array().into_iter().flatten().map(|error| &error["kind"]).collect();
        assert_eq!(kinds, [&json!("crash")], "a crash is not an attempt: {}", api::show(&job));
    }
    // The server may have died before the large job started, at another allocation.
    let job = other.wait_for_status(large, "completed");
    assert_eq!(job["attempts"], 1, "{}", api::show(&job));
    for id in &running {
        other.wait_for_status(*id, "processing");
        other.act(&format!("/jobs/{id}/cancel")).expect(202);
        other.wait_for_status(*id, "cancelled");
    }
    let all = [running, vec![large]].concat();
    let after = other.submit("echo", json!({}));
    assert_eq!(other.wait_for_status(after, "completed")["crashes"], 0);
    audit(&redis, &other, &[all, vec![after]].concat());
}
