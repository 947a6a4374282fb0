//! The content of each page. What clients send is shown as text, never as HTML.

use super::browser::Browser;
use super::common::*;

/// A text that changes the page if the browser runs any part of it.
const HOSTILE: &str = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><b>bold</b>";

/// The same for a tag, which has at most 64 characters.
const HOSTILE_TAG: &str = "<img src=x onerror='window.ran = 1'><b>bold</b>";

/// Asserts that the page shows this text, and that no part of it has become an element.
#[track_caller]
fn assert_shown_and_not_run(browser: &Browser) {
    browser.wait_for_text(HOSTILE);
    let made = "[window.ran, document.scripts.length, document.images.length, document.querySelectorAll('b').length]";
    assert_eq!(browser.run(made), json!([null, 1, 0, 0]));
}

#[test]
fn nothing_that_a_client_sends_is_run() {
    let redis = TestRedis::start();
    let config = format!("{QUICK_BACKOFF}\n[handlers.{HOSTILE:?}]\nexec = [\"sleep\", \"600\"]\n");
    let server = TestServer::builder().redis(&redis).config(&config).start();
    let payload = json!({"message": HOSTILE, "list": [HOSTILE], HOSTILE: HOSTILE});
    let failed = server.submit_job(
        json!({"type": "fail", "payload": payload, "max_attempts": 1, "tags": [HOSTILE_TAG], "meta": {"a": HOSTILE}}),
    );
    server.wait_for_status(failed, "failed");
    let done = server.complete("echo", payload)["id"].clone();
    let running = server.submit_job(json!({"type": HOSTILE, "unique_key": HOSTILE}));
    server.wait_for_status(running, "processing");

    let browser = Browser::open(&server, "/");
    for page in [
        "/".to_owned(),
        "/jobs".to_owned(),
        format!("/jobs?type={HOSTILE}"),
        format!("/jobs/{running}"),
        format!("/jobs/{failed}"),
        format!("/jobs/{done}"),
        "/dead".to_owned(),
    ] {
        browser.go(&server, &page);
        assert_shown_and_not_run(&browser);
    }
    // In an address that somebody is given, too.
    browser.go(&server, &format!("/dead?type={}", HOSTILE.replace(' ', "%20")));
    browser.wait_for_text("No dead letter is of type");
    assert_shown_and_not_run(&browser);
}

#[test]
fn the_overview_shows_what_goes_on_and_what_went_on_after_a_reload_too() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).flag("workers", "4").start();
    let other = TestServer::builder().redis(&redis).flag("queues", "other").flag("workers", "3").start();
    for id in other.submit_batch(&vec![json!({"type": "echo"}); 5]) {
        server.wait_for_status(id, "completed");
    }
    let there = other.submit_job(json!({"type": "echo", "queue": "other"}));
    server.wait_for_status(there, "completed");
    let failed = server.submit_job(json!({"type": "fail", "max_attempts": 1}));
    server.wait_for_status(failed, "failed");
    let running = server.submit_job(json!({"type": "sleep", "payload": {"ms": 600_000}}));
    server.submit_job(json!({"type": "echo", "queue": "emails"}));
    server.act("/queues/emails/pause").expect(200);

    let browser = Browser::open(&server, "/");
    for round in ["at first", "after a reload"] {
        for part in ["1 of 7", "1 queue paused", &running.to_string(), "sleep, "] {
            browser.wait_for_text(part);
        }
        for id in server.server_ids() {
            browser.wait_for_text(&id);
        }
        // Sums over both servers: six jobs, perhaps in two minutes.
        let counted = "(() => {
            const marks = document.querySelector('figure').querySelectorAll('svg title');
            const sum = (name) => [...marks].reduce((sum, mark) => sum + Number(mark.textContent.match(`${name} (\\\\d+)`)[1]), 0);
            return sum('completed') === 6 && sum('failed') === 1;
        })()";
        browser.wait_until(&format!("all jobs are in the chart {round}"), counted);
        browser.reload();
    }
    // It follows by itself.
    server.act(&format!("/jobs/{running}/cancel")).expect(202);
    browser.wait_for_text("0 of 7");
    browser.click("link", "1 failed");
    browser.wait_for_text(&failed.to_string());
}

#[test]
fn a_queue_that_no_server_takes_from_is_not_running() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.submit_job(json!({"type": "echo", "queue": "nowhere"}));
    let browser = Browser::open(&server, "/");
    browser.click("link", "1 queue that no server takes jobs from");
    browser.wait_until_drawn("Queues");
    let states =
        "[...document.querySelectorAll('tbody .status')].map((state) => state.innerText).sort().join()";
    assert_eq!(browser.run(states), "no server takes jobs from it,running");
    browser.click("button", "Pause the queue nowhere");
    browser.wait_for_text("paused, no server takes jobs from it");
    let _other = TestServer::builder().redis(&redis).flag("queues", "nowhere").start();
    browser.click("button", "Resume the queue nowhere");
    browser.wait_until("it runs", &format!("{states} === 'running,running'"));
    browser.go(&server, "/");
    browser.wait_until_drawn("Overview");
    browser.wait_until_gone("no server takes jobs from");
}

#[test]
fn a_jobs_page_tells_its_whole_story() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    let digits = "[1234567890123456789012345678901234567890,1.50,{\"a\":\"x, {y}: [z]\"}]";
    let body = format!("{{\"type\": \"echo\", \"payload\": {digits}}}");
    let id = server.post_text("/jobs", &body).expect(202).json()["job_id"].as_u64().expect("an id");
    server.wait_for_status(id, "completed");
    let browser = Browser::open(&server, &format!("/jobs/{id}"));
    browser.wait_until_drawn("Job");
    // Once in the payload and once in the result, with all their digits.
    for part in ["1234567890123456789012345678901234567890", "1.50", "\"x, {y}: [z]\""] {
        let count = format!("document.body.innerText.split({}).length - 1", json!(part));
        assert_eq!(browser.run(&count), 2, "{part}");
    }

    let failed =
        server.submit_job(json!({"type": "fail", "payload": {"message": "no disk"}, "max_attempts": 3}));
    server.wait_for_status(failed, "failed");
    browser.go(&server, &format!("/jobs/{failed}"));
    for part in
        ["Submitted", "Attempt 1 failed", "Attempt 2 failed", "Attempt 3 failed", "Failed for good", "3 of 3"]
    {
        browser.wait_for_text(part);
    }
    assert_eq!(
        browser.run("document.body.innerText.split('no disk').length - 1"),
        5,
        "payload, last, and each"
    );

    server.act(&format!("/jobs/{failed}/retry")).expect(202);
    browser.wait_for_text("Attempt 3 failed, after a retry");
    browser.wait_for_text("2, after a retry");

    let parked = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000, "unique_key": "k-1"}));
    browser.go(&server, &format!("/jobs/{parked}"));
    for part in ["Due", "in 59 min", "k-1"] {
        browser.wait_for_text(part);
    }
    for (path, message) in [("/jobs/12345", "no job with this id"), ("/jobs/x", "a job id is a whole number")]
    {
        browser.go(&server, path);
        browser.wait_for_text(message);
    }
}

#[test]
fn a_jobs_page_shows_its_fields_and_why_it_does_not_run_and_changes_it() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({
        "type": "echo", "payload": {"big": 1}, "delay_ms": 3_600_000, "tags": ["customer/42", "b"],
        "meta": {"traceparent": "00-4bf9"}, "expires_in_ms": 7_200_000, "retain_ms": 604_800_000,
    }));
    let browser = Browser::open(&server, &format!("/jobs/{id}"));
    for part in ["Tags", "traceparent=00-4bf9", "in 1 h", "for 7 d after its end", "Why it does not run"] {
        browser.wait_for_text(part);
    }
    browser.wait_until("a sentence says why", "document.querySelector('.why li').innerText.length > 10");

    // Changed without a mouse. What is not changed in the form is not sent.
    browser.choose("link", "Change");
    browser.wait_until_drawn("Change job");
    browser.choose("button", "Change");
    browser.wait_for_text("Nothing was changed in this form.");
    browser.click("textbox", "Payload");
    browser.run("document.activeElement.select()");
    browser.write("{\"big\": 12345678901234567890123}");
    browser.tab_to("textbox", "Queue");
    browser.write("slow");
    browser.tab_to("textbox", "Tags");
    browser.run("document.activeElement.select()");
    browser.write("a\nb");
    browser.choose("button", "Change");
    browser.wait_until_drawn("Job");
    browser.wait_for_text("12345678901234567890123");
    let job = server.job(id);
    assert_eq!(json!([job["queue"], job["tags"], job["status"]]), json!(["slow", ["a", "b"], "scheduled"]));
    browser.click("link", "Change");
    browser.wait_until_drawn("Change job");
    browser.click("textbox", "Max attempts");
    browser.run("document.activeElement.select()");
    browser.write("1000");
    browser.click("button", "Change");
    browser.wait_until(
        "the API names it",
        "document.getElementById('f-max_attempts-error').innerText.includes('max_attempts')",
    );
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    browser.click("button", "Change");
    browser.wait_until_drawn("Change job");

    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000, "tags": ["a"]}));
    browser.go(&server, &format!("/jobs/{id}"));
    browser.click("button", "Run now");
    browser.wait_for_text(&format!("Job {id} no longer waits for its time."));
    server.wait_for_status(id, "completed");
    browser.wait_until("it is shown", "document.querySelector('.status').innerText === 'completed'");
    browser.wait_until_gone("Why it does not run");
    browser.go(&server, &format!("/jobs/{id}/change"));
    browser.wait_for_text("cannot be changed any more");
    browser.click("link", "Back to the job");
    browser.click("link", "a");
    browser.wait_until_drawn("Jobs");
    browser.wait_for_text("page 1 of 1, 2 jobs");
}

#[test]
fn lists_are_filtered_paged_and_searched() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    let echoes = server.submit_batch(&vec![json!({"type": "echo"}); 30]);
    let failed = server.submit_job(json!({"type": "fail", "max_attempts": 1}));
    server.wait_for_status(failed, "failed");
    for id in &echoes {
        server.wait_for_status(*id, "completed");
    }
    let browser = Browser::open(&server, "/jobs");
    browser.wait_for_text("page 1 of 2, 31 jobs");
    browser.click("link", "Older →");
    browser.wait_for_text("page 2 of 2, 31 jobs");
    assert_eq!(browser.run("document.querySelectorAll('tbody tr').length"), 6);
    browser.wait_for_text(&echoes[0].to_string());
    browser.run("document.querySelector('select[name=status]').value = 'failed'");
    browser.click("button", "Show");
    browser.wait_for_text("page 1 of 1, 1 job");
    browser.wait_for_text(&failed.to_string());
    browser.run("document.querySelector('select[name=status]').value = ''");
    browser.click("combobox", "Type");
    browser.write("echo");
    browser.press("Enter");
    browser.wait_for_text("page 1 of 2, 30 jobs");
    browser.wait_until_gone(&failed.to_string());
    browser.click("textbox", "Job id");
    browser.write(&failed.to_string());
    browser.press("Enter");
    browser.wait_for_text("Failed for good");
}

#[test]
fn a_page_that_is_not_there_says_so_and_leads_on() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let ids = server.submit_batch(&vec![json!({"type": "echo"}); 30]);
    server.wait_for_status(ids[29], "completed");
    let browser = Browser::open(&server, "/jobs?page=9999");
    browser.wait_for_text("There is no page 9,999: the list has 2 pages.");
    assert_eq!(browser.run("document.body.innerText.includes('There is no job yet')"), false);
    browser.click("link", "last page");
    browser.wait_for_text("page 2 of 2, 30 jobs");
    browser.go(&server, "/dead?page=2");
    browser.wait_for_text("There is no page 2: the list has 1 page.");
    browser.click("link", "first page");
    browser.wait_for_text("No job has failed for good.");
    for path in ["/nonsense", "/servers/x", "/jobs/1/2", "/toString", "/%E4"] {
        browser.go(&server, path);
        browser.wait_for_text(&format!("There is no page at #{path}"));
        browser.wait_until_drawn("No such page");
    }
    browser.click("link", "overview");
    browser.wait_until_drawn("Overview");
}

#[test]
fn an_overview_without_a_job_says_how_to_submit_the_first_one() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let browser = Browser::open(&server, "/");
    browser.wait_for_text("There is no job yet");
    for command in
        [format!("--server http://{}", server.addr()), format!("curl http://{}/jobs", server.addr())]
    {
        browser.wait_for_text(&command);
    }
    // As it is shown, by a shell.
    let commands =
        "[...document.querySelectorAll('pre')].map((pre) => pre.innerText.replaceAll('TYPE', 'echo'))";
    let commands: Vec<String> = serde_json::from_value(browser.run(commands)).expect("texts");
    let program = env!("CARGO_BIN_EXE_threadq");
    for (number, command) in commands.iter().enumerate() {
        let script = format!("threadq() {{ {program} \"$@\"; }}; {command}");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        eventually(LIMIT, "the job completes", || server.count("completed") == number as u64 + 1);
    }
    browser.wait_until_gone("There is no job yet");
    browser.wait_for_text("Jobs ended per minute");
}

#[test]
fn every_time_is_in_the_zone_of_the_browser_which_is_named() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.complete("echo", json!({}))["id"].clone();
    let browser = Browser::open(&server, "/");
    // Without summer time, and half an hour beside all others: what is UTC by mistake is seen.
    browser.ask("Emulation.setTimezoneOverride", json!({"timezoneId": "Asia/Kolkata"}));
    browser.go(&server, &format!("/jobs/{id}"));
    browser.wait_for_text("times in Asia/");
    let submitted = time_ms(&server.job(id.as_u64().expect("an id"))["created_at"]);
    let there = format!("new Date({submitted} + 19800e3).toISOString().replace('T', ' ').replace('Z', '')");
    browser.wait_until(
        "it is submitted",
        &format!("document.querySelector('.timeline').innerText.includes({there})"),
    );
}

#[test]
fn figures_that_are_not_of_now_say_how_old_they_are_and_why() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("echo", json!({}));
    let browser = Browser::open(&server, "/queues");
    browser.wait_for_text("live");
    redis.pause();
    let why = server.get("/queues").expect(503).json()["error"].as_str().expect("a sentence").to_owned();
    let why = why.split(':').next().expect("a beginning");
    browser.wait_for_text(&format!("s old: {why}"));
    browser.wait_for_text("default");
    browser.go(&server, "/queues");
    browser.wait_for_text(why);
    redis.resume();
    browser.wait_for_text("live");
    browser.wait_for_text("default");
    assert_eq!(browser.run("document.querySelectorAll('.stale').length"), 0);

    server.sigstop();
    browser.wait_for_text("s old: no response yet");
    server.sigcont();
    browser.wait_for_text("live");
}

#[test]
fn it_says_when_the_server_is_gone_and_when_it_is_back() {
    let redis = TestRedis::start();
    let builder = TestServer::builder().redis(&redis).listen(&format!("127.0.0.1:{}", node::free_port()));
    let mut server = builder.start();
    server.complete("echo", json!({}));
    let browser = Browser::open(&server, "/jobs");
    browser.wait_for_text("live");
    server.kill9();
    browser.wait_for_text("no response");
    browser.wait_for_text("completed");
    let _again = builder.start();
    browser.wait_for_text("live");
}
