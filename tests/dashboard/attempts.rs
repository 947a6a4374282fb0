//! What attempts say of themselves: progress, log, checkpoint, and the pull worker that has a job.

use super::browser::Browser;
use super::common::*;

/// A program that reports, waits for a file, reports again and then fails, unless it began with a checkpoint.
const CONFIG: &str = r#"
[handlers.encode]
exec = ["/bin/sh", "-c", '''
exec 3<> "$THREADQ_REPORT"
if [ -n "$THREADQ_CHECKPOINT" ]; then echo "\"began with $(echo "$THREADQ_CHECKPOINT" | tr -d '\"')\""; exit 0; fi
for n in $(seq 1 60); do echo "log frame $n is done" >&3; done
echo 'checkpoint {"frame": 60}' >&3
echo 'progress 0.25 encoded frame 60' >&3
while [ ! -e go ]; do sleep 0.1; done
echo 'log the last frame is done' >&3
echo 'progress 0.75 encoded frame 61' >&3
exit 1
''']
max_attempts = 1
"#;

/// The log of a job. Its scroll position is 0 at the newest line, and negative above it.
const LOG: &str = "document.querySelector('[aria-label=Log]')";

#[test]
fn a_running_job_shows_its_progress_and_its_newest_log_lines() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(CONFIG).start();
    let id = server.submit("encode", json!({}));
    server.wait_for(id, LIMIT, "it has reported", |job| job["progress"]["value"] == 0.25);

    let browser = Browser::open(&server, "/jobs");
    browser.wait_for_text("25 % encoded frame 60");
    let bar = "document.querySelector('tbody progress')";
    assert_eq!(browser.run(&format!("{bar}.value")), 0.25);
    browser.click("link", &id.to_string());
    for text in ["25 % encoded frame 60", "frame 60 is done", "Checkpoint", "\"frame\": 60"] {
        browser.wait_for_text(text);
    }
    let is_at_end = format!("Math.abs({LOG}.scrollTop) < 2 && {LOG}.scrollHeight > {LOG}.clientHeight + 100");
    assert_eq!(browser.run(&is_at_end), true, "the newest line is in sight");
    assert!(browser.everything().contains(&("region".to_owned(), "Log".to_owned())));

    // New lines do not move the older lines that a user reads.
    browser.run(&format!("{LOG}.scrollTop = -200"));
    let first = format!(
        "{LOG}.querySelector('[data-key=\"1\"]').getBoundingClientRect().y - {LOG}.getBoundingClientRect().y"
    );
    let before = browser.run(&first).as_f64().expect("a number");
    std::fs::write(server.dir().join("go"), "").expect("a file");
    browser.wait_until("the new line is there", &format!("{LOG}.innerText.includes('the last frame')"));
    let after = browser.run(&first).as_f64().expect("a number");
    assert!((after - before).abs() < 1.0, "{before} {after}");
    browser.run(&format!("{LOG}.scrollTop = 0"));

    // The log of an ended job is not read again.
    browser.wait_until("it has failed", "document.querySelector('.status').innerText === 'failed'");
    browser.wait_for_text("75 % encoded frame 61");
    browser.note_requests();
    browser.wait_until(
        "it has looked again",
        "window.asked.filter((path) => path.includes('/jobs')).length >= 3",
    );
    assert_eq!(browser.run("window.asked.filter((path) => path.includes('/log'))"), json!([]));
}

#[test]
fn a_failed_job_goes_on_at_its_checkpoint_or_begins_again() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(CONFIG).start();
    std::fs::write(server.dir().join("go"), "").expect("a file");
    let id = server.submit("encode", json!({}));
    server.wait_for_status(id, "failed");
    let browser = Browser::open(&server, &format!("/jobs/{id}"));
    browser.click("button", "Retry from the start");
    browser.wait_for_text("back in its queue, without its checkpoint");
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["errors"].as_array().map(Vec::len), Some(2), "it has begun again: {job}");
    browser.wait_for_text("Attempt 1 failed, after a retry");
    browser.click("button", "Retry");
    browser.wait_for_text(&format!("Job {id} is back in its queue."));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["result"], "began with {frame: 60}");
}

#[test]
fn pull_workers_stand_beside_the_servers() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let browser = Browser::open(&server, "/workers");
    browser.wait_until_drawn("Workers");
    browser.wait_for_text(&server.server_id());
    assert_eq!(browser.run("document.body.innerText.includes('Pull workers')"), false);

    let id = server.submit_job(json!({"type": "train", "queue": "gpu"}));
    let pull = json!({"queues": ["gpu"], "worker": "gpu-1.example.com", "lease_ms": 600_000});
    let pulled = server.post("/pull", &pull).expect(200).json();
    let token = pulled["jobs"][0]["token"].as_str().expect("a token").to_owned();
    for text in ["Pull workers", "gpu-1.example.com", &id.to_string(), "train, lease ends in 4 min"] {
        browser.wait_for_text(text);
    }
    browser.click("link", &id.to_string());
    browser.wait_until_drawn("Job");
    browser.wait_for_text("Pull worker");
    browser.wait_for_text("gpu-1.example.com");
    server.post(&format!("/attempts/{token}/complete"), &json!({"result": 1})).expect(200);
    browser.wait_for_text("completed");
    browser.click("link", "Workers");
    browser.wait_for_text("gpu-1.example.com");
    browser.wait_until_gone("lease ends");
    // Addresses of older versions lead here too.
    browser.go(&server, "/servers");
    browser.wait_until_drawn("Workers");
}
