//! The dashboard: what is served, and what a real browser makes of it.

mod common;
use common::*;

use std::process::Command;

const FILES: [(&str, &str); 4] = [
    ("/", "text/html; charset=utf-8"),
    ("/ui/app.js", "text/javascript; charset=utf-8"),
    ("/ui/style.css", "text/css; charset=utf-8"),
    ("/ui/icon.svg", "image/svg+xml"),
];

/// The page at this address behind the `#`, as it stands in a browser once its script has run.
fn rendered(server: &TestServer, hash: &str) -> String {
    let profile = TempDir::new();
    let page = until_some(LIMIT, "the browser gives the page", || {
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{}/#{hash}", server.addr()))
            .output()
            .expect("chromium is on PATH: script/setup installs it");
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        // A busy machine may not have come to the answers; a page that asks for the token waits for them.
        (page.contains("<h1") && (!page.contains("aria-busy") || page.contains("open=\"\""))).then_some(page)
    });
    assert!(!page.contains("role=\"alert\""), "{page}");
    page
}

#[test]
fn its_files_are_small_and_need_nothing_from_elsewhere() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut size = 0;
    for (path, kind) in FILES {
        let reply = server.get(path).expect(200);
        assert_eq!(reply.header("Content-Type"), Some(kind), "{path}");
        let policy = reply.header("Content-Security-Policy").unwrap_or_else(|| panic!("{path}: no policy"));
        for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.split("; ").any(|given| given == rule), "{path}: {rule}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = reply.text();
        size += text.len();
        for part in text.split("http").skip(1) {
            // The names of XML's languages are no places to load from.
            let is_name = part.starts_with("://www.w3.org/2000/svg");
            assert!(
                is_name || !(part.starts_with("://") || part.starts_with("s://")),
                "{path}: http{part:.60}"
            );
        }
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "<style",
            " style=",
            "onclick=",
        ] {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
        for script in text.split("<script").skip(1) {
            assert!(script.starts_with(" src=\"/ui/"), "{path}: an inline script: {script:.60}");
        }
    }
    assert!(size < 100_000, "{size} bytes");
}

#[test]
fn it_is_there_without_the_token_that_its_data_needs() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("api-token", "s3cret-t0ken").start();
    for (path, _) in FILES {
        server.get(path).expect(200);
    }
    for path in ["/stats", "/stats/history", "/jobs", "/dlq", "/queues", "/ui/other", "/ui"] {
        server.get(path).expect_error(401, "unauthorized", path);
    }
    let page = rendered(&server, "/");
    assert!(page.contains("<dialog id=\"login\" aria-labelledby=\"login-title\" open=\"\""), "{page}");
    assert!(!page.contains("class=\"tiles\""), "{page}");
}

#[test]
fn a_browser_shows_what_is_there_and_runs_none_of_it() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    let script = "<script>document.title='it ran'</script><img src=x onerror=\"document.title='it ran'\">";
    let done = server.complete("echo", json!({"page": script, "digits": 1}));
    let done = done["id"].as_u64().expect("an id");
    let failed = server.submit_job(
        json!({"type": "fail", "payload": {"message": format!("no disk {script}")}, "max_attempts": 2}),
    );
    server.wait_for_status(failed, "failed");
    server.submit_job(json!({"type": "echo", "queue": "emails"}));
    server.act("/queues/emails/pause").expect(200);
    eventually(LIMIT, "the figures of the hour are written", || {
        let minutes = server.get("/stats/history").expect(200).json();
        minutes["minutes"].as_array().expect("minutes").iter().any(|minute| minute["failed"] == 1)
    });

    let page = rendered(&server, "/");
    for part in [
        "<title>Overview · threadq</title>",
        "Jobs ended per minute",
        "completed: ",
        "1 queue paused",
        "of 30",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(page.contains(&server.server_id()), "{page}");
    assert!(page.contains("rect class=\"failed\""), "the failed job has its bar: {page}");

    let page = rendered(&server, &format!("/jobs/{done}"));
    assert!(page.contains(&format!("<title>Job {done} · threadq</title>")), "{page}");
    assert!(page.contains("&lt;script&gt;document.title='it ran'&lt;/script&gt;&lt;img"), "{page}");
    assert!(page.contains("\"digits\": 1") && page.contains(">Result</h2>"), "{page}");
    assert!(page.contains("data-do=\"delete\"") && !page.contains("data-do=\"cancel\""), "{page}");

    let page = rendered(&server, &format!("/jobs/{failed}"));
    assert!(page.contains("Attempt 1 failed") && page.contains("Attempt 2 failed"), "{page}");
    assert!(page.contains("data-do=\"retry\"") && !page.contains("<img"), "{page}");

    let page = rendered(&server, "/dead?type=fail");
    assert!(page.contains(&failed.to_string()) && page.contains("no disk &lt;script&gt;"), "{page}");
    assert!(page.contains("Retry all of type fail") && !page.contains("it ran · "), "{page}");
    assert!(!page.contains("<img") && !page.contains("<title>it ran"), "{page}");

    let page = rendered(&server, "/queues");
    assert!(page.contains("Resume the queue emails") && page.contains("Pause the queue default"), "{page}");
    let page = rendered(&server, "/jobs?status=failed");
    assert!(page.contains(&failed.to_string()) && !page.contains(&done.to_string()), "{page}");
}

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
    assert_eq!(minutes[59]["depth"]["scheduled"], 1, "{}", minutes[59]);
    let run = minutes.iter().find_map(|minute| minute["run_ms"].as_f64()).expect("a mean");
    assert!((20.0..60_000.0).contains(&run), "{run}");
    // Whoever writes while nothing happens would write the key of this minute again.
    for key in redis.query::<Vec<String>>(&["KEYS", "{threadq}:history:*"]) {
        assert!((1..=7200).contains(&redis.query::<i64>(&["TTL", &key])), "{key} goes away by itself");
        redis.query::<u64>(&["DEL", &key]);
    }
    holds_for(secs(5), "nothing is written", || {
        redis.query::<Vec<String>>(&["KEYS", "{threadq}:history:*"]).is_empty()
    });
}
