//! The actions of the pages, with the mouse: an action that cannot be undone asks first and says how many jobs it
//! changes.

use super::browser::Browser;
use super::common::*;

fn is_paused(server: &Api) -> bool {
    server.get("/queues").expect(200).json()["queues"][0]["paused"] == true
}

#[test]
fn a_queue_is_paused_and_resumed() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let browser = Browser::open(&server, "/queues");
    browser.click("button", "Pause the queue default");
    browser.wait_for_text("The queue default is paused: its jobs wait.");
    assert!(is_paused(&server));
    let id = server.submit("echo", json!({}));
    browser.wait_until("it waits", "document.querySelector('tbody tr').cells[1].innerText === '1'");
    browser.click("button", "Resume the queue default");
    browser.wait_for_text("The queue default is running again.");
    server.wait_for_status(id, "completed");
}

#[test]
fn a_job_is_cancelled_sent_back_and_deleted() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let browser = Browser::open(&server, &format!("/jobs/{id}"));
    browser.click("button", "Cancel");
    browser.click("button", "Change nothing");
    browser.wait_until_answered();
    assert_eq!(server.job(id)["status"], "scheduled");
    browser.click("button", "Cancel");
    browser.click("button", "Cancel this job");
    browser.wait_for_text(&format!("Job {id} is cancelled."));
    assert_eq!(server.job(id)["status"], "cancelled");
    browser.click("button", "Retry");
    browser.wait_for_text(&format!("Job {id} is back in its queue."));
    server.wait_for_status(id, "completed");
    browser.click("button", "Delete");
    browser.click("button", "Delete this job");
    browser.wait_for_text(&format!("Job {id} is deleted."));
    browser.wait_until_drawn("Jobs");
    server.get(&format!("/jobs/{id}")).expect(404);
}

#[test]
fn a_job_that_runs_is_asked_to_stop() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit("sleep", json!({"ms": 600_000}));
    server.wait_for_status(id, "processing");
    let browser = Browser::open(&server, &format!("/jobs/{id}"));
    browser.click("button", "Cancel");
    browser.click("button", "Cancel this job");
    server.wait_for_status(id, "cancelled");
    browser.wait_until("it is shown", "document.querySelector('.status').innerText === 'cancelled'");
}

#[test]
fn an_action_that_is_refused_says_why() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let browser = Browser::open(&server, &format!("/jobs/{id}"));
    browser.click("button", "Cancel");
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    browser.click("button", "Cancel this job");
    browser.wait_for_text("the job cannot be cancelled: it has ended");
}

/// Makes this number of failed jobs of a type, in a paused queue.
fn with_dead_letters(server: &TestServer, kinds: &[(&str, usize)]) -> Vec<u64> {
    let jobs = kinds.iter().flat_map(|(kind, number)| {
        vec![json!({"type": kind, "payload": {"message": "no disk"}, "max_attempts": 1}); *number]
    });
    let ids = server.submit_batch(&jobs.collect::<Vec<_>>());
    for id in &ids {
        server.wait_for_status(*id, "failed");
    }
    server.act("/queues/default/pause").expect(200);
    ids
}

#[test]
fn dead_letters_of_a_type_are_sent_back() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    with_dead_letters(&server, &[("fail", 30), ("panic", 2)]);
    let browser = Browser::open(&server, "/dead");
    browser.wait_for_text("page 1 of 2, 32 jobs");
    browser.click("combobox", "Type");
    browser.write("fail");
    browser.click("button", "Show");
    browser.wait_for_text("page 1 of 2, 30 jobs");
    browser.click("button", "Retry all of type fail");
    browser.wait_for_text("Retry: all dead letters of type fail");
    browser.wait_for_text("Retry 30 dead letters?");
    assert_eq!(server.count("failed"), 32, "it has only asked");
    browser.click("button", "Change nothing");
    browser.wait_until_answered();
    assert_eq!(server.count("failed"), 32);
    browser.click("button", "Retry all of type fail");
    browser.click("button", "Retry 30");
    browser.wait_for_text("30 dead letters retried.");
    browser.click("button", "Close");
    assert_eq!((server.count("failed"), server.count("queued")), (2, 30));
    browser.wait_for_text("No dead letter is of type fail.");
}

#[test]
fn dead_letters_are_selected_sent_back_and_deleted() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    let ids = with_dead_letters(&server, &[("fail", 5)]);
    let browser = Browser::open(&server, "/dead");
    browser.wait_for_text("Retry selected (0)");
    for id in &ids[..2] {
        browser.click("checkbox", &format!("Select job {id}"));
    }
    browser.click("button", "Retry selected (2)");
    browser.click("button", "Retry 2");
    browser.wait_for_text("2 dead letters retried.");
    browser.click("button", "Close");
    for (place, id) in ids.iter().enumerate() {
        assert_eq!(server.job(*id)["status"], if place < 2 { "queued" } else { "failed" });
    }
    browser.click("checkbox", &format!("Select job {}", ids[2]));
    browser.click("button", "Delete selected (1)");
    browser.wait_for_text("Delete 1 dead letter?");
    browser.click("button", "Delete 1");
    browser.wait_for_text("1 dead letter deleted.");
    browser.click("button", "Close");
    server.get(&format!("/jobs/{}", ids[2])).expect(404);
    browser.click("checkbox", "Select all of this page");
    browser.wait_for_text("Delete selected (2)");
    browser.click("checkbox", "Select all of this page");
    browser.wait_for_text("Delete selected (0)");
    browser.click("button", "Delete all");
    browser.wait_for_text("Delete 2 dead letters?");
    browser.click("button", "Delete 2");
    browser.wait_for_text("2 dead letters deleted.");
    browser.click("button", "Close");
    assert_eq!((server.count("failed"), server.count("queued")), (0, 2));
}

#[test]
fn what_has_the_focus_stays_the_same_when_a_list_grows() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    let old = with_dead_letters(&server, &[("fail", 3)]);
    let browser = Browser::open(&server, "/dead");
    let focused = ("checkbox".to_owned(), format!("Select job {}", old[1]));
    browser.tab_to(&focused.0, &focused.1);
    server.act("/queues/default/resume").expect(200);
    let new = with_dead_letters(&server, &[("panic", 1)]);
    browser.wait_for_text("↑ 1 newer");
    assert_eq!(browser.focus(), focused);
    browser.wait_until_gone(&new[0].to_string());
    browser.press("Space");
    browser.wait_for_text("Retry selected (1)");
    let checked = "document.querySelector('tbody :checked').dataset.select";
    assert_eq!(browser.run(checked), old[1].to_string());
}
