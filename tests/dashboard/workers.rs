//! The current work of worker threads: servers report it only while a page shows it.

use super::browser::Browser;
use super::common::*;

/// The busy worker threads of all servers: job type and state.
fn doing(server: &Api) -> Vec<(String, String)> {
    let answer = server.get("/stats/workers").expect(200).json();
    let servers = answer["servers"].as_array().expect("servers").clone();
    let threads = servers.iter().filter_map(|server| server["threads"].as_array()).flatten();
    let mut doing: Vec<(String, String)> = threads
        .map(|thread| {
            let text = |name: &str| thread[name].as_str().unwrap_or_default().to_owned();
            assert!(text("state") == "starting" || text("thread").starts_with("worker-"), "{thread}");
            (text("type"), text("state"))
        })
        .collect();
    doing.sort();
    doing
}

fn told(redis: &TestRedis) -> usize {
    redis.query::<Vec<String>>(&["KEYS", "{threadq}:activity:*"]).len()
}

#[test]
fn all_servers_tell_what_their_threads_do_while_somebody_looks() {
    let redis = TestRedis::start();
    // Every wait before the next attempt is slept on the worker's own thread.
    let config = "inline-backoff = \"60s\"\n[handlers.fail]\nbackoff = { base = \"20s\", cap = \"20s\" }\n";
    let one = TestServer::builder().redis(&redis).config(config).flag("workers", "3").start();
    let two = TestServer::builder().redis(&redis).flag("queues", "other").flag("workers", "2").start();
    let running = one.submit("sleep", json!({"ms": 600_000}));
    let stopping = two.submit_job(json!({"type": "hang", "queue": "other"}));
    one.submit_job(json!({"type": "fail", "max_attempts": 100}));
    one.wait_for_status(running, "processing");
    one.wait_for_status(stopping, "processing");
    holds_for(secs(3), "nobody looks, so nobody tells", || told(&redis) == 0);

    let expected = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(kind, state)| ((*kind).to_owned(), (*state).to_owned())).collect()
    };
    let wanted = expected(&[("fail", "backing_off"), ("hang", "running"), ("sleep", "running")]);
    eventually(LIMIT, "both tell it to one", || doing(&one) == wanted);
    one.act(&format!("/jobs/{stopping}/cancel")).expect(202);
    eventually(LIMIT, "the handler was told to stop", || {
        doing(&two).contains(&("hang".to_owned(), "stopping".to_owned()))
    });
    let answer = one.get("/stats/workers").expect(200).json();
    let threads =
        answer["servers"].as_array().expect("servers").iter().filter_map(|s| s["threads"].as_array());
    let sleep = threads.flatten().find(|thread| thread["type"] == "sleep").cloned().expect("it runs");
    assert_eq!((&sleep["job"], &sleep["attempt"]), (&json!(running), &json!(1)));
    assert!(sleep["for_ms"].as_u64().is_some_and(|time| time >= 3000), "{sleep}");
    eventually(LIMIT, "they stop when nobody looks", || told(&redis) == 0);
}

#[test]
fn the_page_shows_each_thread() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "4").start();
    let id = server.submit("sleep", json!({"ms": 600_000}));
    server.wait_for_status(id, "processing");
    let browser = Browser::open(&server, "/workers");
    for part in [
        &server.server_id(),
        "1 of 4 workers busy",
        "worker-",
        &id.to_string(),
        "sleep",
        "running",
        "3 threads are idle",
    ] {
        browser.wait_for_text(part);
    }
    server.act(&format!("/jobs/{id}/cancel")).expect(202);
    browser.wait_for_text("4 threads are idle");
}
