//! Lists of jobs: filters, the actions on all jobs of a list, and what waits in a queue.

use super::browser::Browser;
use super::common::*;

/// Jobs that wait for an hour, each with its tag.
fn with_tagged_jobs(server: &TestServer, tags: &[(&str, usize)]) -> Vec<u64> {
    let jobs = tags.iter().flat_map(|(tag, number)| {
        vec![json!({"type": "echo", "tags": [tag], "delay_ms": 3_600_000}); *number]
    });
    server.submit_batch(&jobs.collect::<Vec<_>>())
}

/// The ids of the rows, in their order.
const ROWS: &str = "[...document.querySelectorAll('tbody tr')].map((row) => Number(row.dataset.key))";

/// Closes the dialog that shows the result.
#[track_caller]
fn close(browser: &Browser) {
    browser.click("button", "Close");
    browser.wait_until_answered();
}

#[test]
fn a_list_is_filtered_by_tag_and_time_and_its_address_keeps_the_filter() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let ids = with_tagged_jobs(&server, &[("customer/42", 3), ("customer/7", 2)]);
    let browser = Browser::open(&server, "/jobs");
    browser.ask("Emulation.setTimezoneOverride", json!({"timezoneId": "Asia/Kolkata"}));
    browser.go(&server, "/jobs");
    browser.wait_for_text("page 1 of 1, 5 jobs");
    browser.click("textbox", "Tag");
    browser.write("customer/42");
    browser.click("button", "Show");
    browser.wait_for_text("page 1 of 1, 3 jobs");
    assert_eq!(browser.run(ROWS), json!([ids[2], ids[1], ids[0]]));
    browser.reload();
    browser.wait_for_text("page 1 of 1, 3 jobs");
    assert_eq!(browser.run("document.querySelector('[name=tag]').value"), "customer/42");

    // A tag leads to the jobs with this tag.
    browser.go(&server, "/jobs");
    browser.click("link", "customer/7");
    browser.wait_for_text("page 1 of 1, 2 jobs");

    browser.go(&server, "/jobs");
    browser.click("DisclosureTriangle", "Time of submission");
    browser.run("document.querySelector('[name=created_after]').value = '2999-12-31T05:30:07'");
    browser.click("button", "Show");
    browser.wait_for_text("No job matches.");
    let address = "decodeURIComponent(location.hash).includes('created_after=2999-12-31T00:00:07.000Z')";
    assert_eq!(browser.run(address), true, "the address has the time in UTC");
    browser.reload();
    browser.wait_for_text("No job matches.");
    assert_eq!(browser.run("document.querySelector('[name=created_after]').value"), "2999-12-31T05:30:07");
    browser.run("document.querySelector('[name=created_after]').value = ''");
    browser.run("document.querySelector('[name=created_before]').value = '2999-12-31T05:30:07'");
    browser.click("button", "Show");
    browser.wait_for_text("page 1 of 1, 5 jobs");
    browser.go(&server, "/jobs?type=echo&tag=customer/7");
    browser.wait_for_text("type");
    browser.wait_until("it says what is wrong", "document.querySelector('[role=alert]').innerText !== ''");
}

#[test]
fn all_jobs_of_a_list_are_cancelled_after_a_question_that_says_how_many() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let ids = with_tagged_jobs(&server, &[("customer/42", 30), ("customer/7", 2)]);
    server.act(&format!("/jobs/{}/cancel", ids[0])).expect(200);
    let browser = Browser::open(&server, "/jobs?tag=customer%2F42");
    browser.wait_for_text("All 30 of this list:");
    // Without a mouse.
    browser.choose("button", "Cancel …");
    browser.wait_for_text("Cancel: all jobs with the tag customer/42");
    browser.wait_for_text("Cancel 29 jobs?");
    browser.wait_for_text("1 job will be left alone, because of their status.");
    browser.wait_for_focus("button", "Change nothing");
    browser.press("Escape");
    browser.wait_until_answered();
    browser.wait_for_focus("button", "Cancel …");
    assert_eq!(server.count("cancelled"), 1);

    browser.press("Enter");
    browser.wait_for_text("Cancel 29 jobs?");
    // What is submitted meanwhile was not counted.
    let later = with_tagged_jobs(&server, &[("customer/42", 1)]);
    browser.choose("button", "Cancel 29");
    browser.wait_for_text("29 jobs cancelled.");
    browser.wait_for_focus("button", "Close");
    browser.press("Enter");
    browser.wait_until_answered();
    assert_eq!((server.count("cancelled"), server.count("scheduled")), (30, 3));
    assert_eq!(server.job(later[0])["status"], "scheduled");
}

#[test]
fn jobs_of_a_list_are_moved_run_now_retried_and_deleted() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    with_tagged_jobs(&server, &[("a", 3)]);
    let browser = Browser::open(&server, "/jobs?tag=a");
    browser.click("button", "Move to queue …");
    browser.wait_for_focus("textbox", "Queue");
    browser.write("not a queue");
    browser.click("button", "Continue");
    browser.wait_for_text("queue must be");
    close(&browser);
    browser.click("button", "Move to queue …");
    browser.wait_for_focus("textbox", "Queue");
    browser.write("slow");
    browser.press("Enter");
    browser.wait_for_text("Move 3 jobs to the queue slow?");
    browser.click("button", "Move 3");
    browser.wait_for_text("3 jobs moved.");
    close(&browser);

    // No server takes jobs from that queue.
    browser.click("button", "Run now …");
    browser.click("button", "Run now 3");
    browser.wait_for_text("3 jobs put into their queues.");
    close(&browser);
    browser.go(&server, "/queues/slow");
    browser.wait_for_text("3 jobs queued");

    browser.go(&server, "/jobs?tag=a");
    browser.click("button", "Cancel …");
    browser.click("button", "Cancel 3");
    browser.wait_for_text("3 jobs cancelled.");
    close(&browser);
    browser.click("button", "Retry …");
    browser.click("button", "Retry 3");
    browser.wait_for_text("3 jobs retried.");
    close(&browser);
    browser.click("button", "Delete …");
    browser.wait_for_text("There is no job to act on. 3 jobs will be left alone, because of their status.");
    close(&browser);
    assert_eq!(server.count("queued"), 3);
}

/// Responses to bulk requests: a dry run finds 5,000 jobs, and each further request changes 1,000 of them once the test
/// allows it.
const SLOW_BULK: &str = "(() => {
    const ask = window.fetch;
    window.waiting = [];
    window.fetch = (path, options) => {
        if (path !== '/jobs/bulk') return ask(path, options);
        const { dry_run, cursor } = JSON.parse(options.body), step = Number(cursor ?? 0) + 1;
        const answer = dry_run ? { matched: 5000, changed: 0, skipped: 0, more: false, cursor: null }
            : { matched: 1000, changed: 990, skipped: 10, more: step < 5, cursor: step < 5 ? String(step) : null };
        const response = () => new Response(JSON.stringify(answer), { headers: { 'Content-Type': 'application/json' } });
        return dry_run ? Promise.resolve(response()) : new Promise((resolve) => window.waiting.push(() => resolve(response())));
    };
})()";

#[test]
fn a_long_operation_shows_its_progress_and_can_be_stopped() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    with_tagged_jobs(&server, &[("a", 1)]);
    let browser = Browser::open(&server, "/jobs");
    browser.wait_for_text("All 1 of this list:");
    browser.run(SLOW_BULK);
    browser.click("button", "Delete …");
    // A deletion of many jobs is confirmed by typing their number.
    browser.wait_for_focus("textbox", "Type 5000 to confirm");
    assert_eq!(browser.run("document.querySelector('menu .danger').disabled"), true);
    browser.write("500");
    browser.press("Enter");
    assert_eq!(browser.run("document.querySelector('menu .danger').disabled"), true);
    browser.write("0");
    browser.click("button", "Delete 5,000");
    browser.wait_for_text("0 of 5,000 deleted.");
    browser.run("window.waiting[0]()");
    browser.wait_for_text("990 of 5,000 deleted.");
    assert_eq!(browser.run("document.querySelector('progress').value"), 1000);
    browser.wait_for_focus("button", "Stop");
    browser.press("Enter");
    browser.wait_for_text("Stopping");
    browser.run("window.waiting[1]()");
    browser.wait_for_text(
        "Stopped before its end. 1,980 jobs deleted. 20 jobs skipped: their status has changed meanwhile.",
    );
    close(&browser);
    assert_eq!(browser.run("window.waiting.length"), 2);
}

#[test]
fn the_page_of_a_queue_lists_what_waits_and_keeps_its_rows() {
    let redis = TestRedis::start();
    let server =
        TestServer::builder().redis(&redis).flag("queues", "default!,low").flag("workers", "1").start();
    server.act("/queues/default/pause").expect(200);
    let ids: Vec<u64> = (0..3).map(|_| server.submit("echo", json!({}))).collect();
    let browser = Browser::open(&server, "/queues");
    browser.wait_for_text("strict");
    browser.click("link", "default");
    browser.wait_until_drawn("Queue");
    browser.wait_for_text("3 jobs queued");
    assert_eq!(browser.run(ROWS), json!(ids), "the next one is first");
    server.act(&format!("/jobs/{}/cancel", ids[0])).expect(200);
    browser.wait_for_text("moved on");
    assert_eq!(browser.run(ROWS), json!(ids));
    browser.click("button", "Show what waits now");
    browser.wait_until("the job is gone", &format!("JSON.stringify({ROWS}) === '[{},{}]'", ids[1], ids[2]));
    browser.click("button", "Resume the queue default");
    server.wait_for_status(ids[2], "completed");
    browser.wait_for_text("0 jobs queued");
    browser.go(&server, "/queues/nowhere");
    browser.wait_for_text("Nothing waits in this queue.");
}
