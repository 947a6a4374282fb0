//! A refresh of a page disturbs no action under way, question, selection or press of a button.

use super::browser::Browser;
use super::common::*;

/// From now on requests of the page that change something, or ask for the size of a change, get their responses when
/// the test allows it.
const HOLD_ANSWERS: &str = "(() => {
    const ask = window.fetch;
    window.letGo = [];
    window.fetch = (path, options) => options.method === 'GET' ? ask(path, options)
        : new Promise((resolve) => window.letGo.push(() => resolve(ask(path, options))));
})()";

fn with_dead_letters(redis: &TestRedis, number: usize) -> TestServer {
    let server = TestServer::builder().redis(redis).config(QUICK_BACKOFF).start();
    for id in server.submit_batch(&vec![json!({"type": "fail", "max_attempts": 1}); number]) {
        server.wait_for_status(id, "failed");
    }
    server
}

/// Counts the responses to the reads of the page, so that a test can wait for a few refreshes.
const COUNT_READS: &str = "(() => {
    const ask = window.fetch;
    window.reads = 0;
    window.fetch = async (path, options) => {
        const answer = await ask(path, options);
        if (options.method === 'GET') window.reads += 1;
        return answer;
    };
})()";

fn wait_for_reads(browser: &Browser, number: u64) {
    let before = browser.run("window.reads").as_u64().expect("they are counted");
    browser.wait_until("the page has read again", &format!("window.reads >= {}", before + number));
}

#[test]
fn a_button_is_busy_until_its_action_is_done() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let browser = Browser::open(&server, "/queues");
    browser.wait_until_drawn("Queues");
    browser.run(COUNT_READS);
    browser.run(HOLD_ANSWERS);
    browser.click("button", "Pause the queue default");
    let busy = "[...document.querySelectorAll('button[aria-busy]')].map((button) => button.innerText).join()";
    assert_eq!(browser.run(busy), "Pause");
    wait_for_reads(&browser, 2);
    assert_eq!(browser.run(busy), "Pause", "after the page was drawn again");
    browser.click("button", "Pause the queue default");
    assert_eq!(browser.run("window.letGo.length"), 1, "a second click asks nothing");
    browser.run("window.letGo[0]()");
    browser.wait_for_text("The queue default is paused");
    browser.wait_until("no button is busy", &format!("({busy}) === ''"));
}

#[test]
fn the_page_below_a_question_is_not_drawn() {
    let redis = TestRedis::start();
    let server = with_dead_letters(&redis, 3);
    let browser = Browser::open(&server, "/dead");
    browser.wait_until_drawn("Dead letters");
    browser.run(COUNT_READS);
    browser.click("button", "Retry all");
    browser.wait_for_text("Retry 3 dead letters?");
    // What the mouse would come to is still there afterwards.
    browser.run("document.querySelector('tbody tr').title = 'the same row'");
    wait_for_reads(&browser, 2);
    assert_eq!(browser.run("document.querySelector('tbody tr').title"), "the same row");
    browser.click("button", "Change nothing");
    browser.wait_until_answered();
    assert_eq!(server.count("failed"), 3);
}

#[test]
fn nothing_is_drawn_while_text_is_selected_or_a_button_is_held_down() {
    let redis = TestRedis::start();
    let server = with_dead_letters(&redis, 1);
    let browser = Browser::open(&server, "/");
    browser.wait_for_text("1\nfailed");
    browser.run(COUNT_READS);
    let hold = "document.querySelector('.tiles').title = 'not drawn'";
    let is_held = "document.querySelector('.tiles').title === 'not drawn'";

    browser.run("getSelection().selectAllChildren(document.querySelector('.now'))");
    browser.run(hold);
    wait_for_reads(&browser, 6);
    assert_eq!(browser.run(is_held), true, "text is selected");
    browser.wait_for_text("paused while text is selected");
    browser.run("getSelection().removeAllRanges()");
    browser.wait_until("it is drawn again", &format!("!({is_held})"));
    browser.wait_for_text("live");

    let press = |kind: &str| {
        let mouse = json!({"type": kind, "x": 5, "y": 400, "button": "left", "clickCount": 1});
        browser.ask("Input.dispatchMouseEvent", mouse);
    };
    press("mousePressed");
    browser.run(hold);
    wait_for_reads(&browser, 6);
    assert_eq!(browser.run(is_held), true, "the button of the mouse is down");
    press("mouseReleased");
    browser.wait_until("it is drawn again", &format!("!({is_held})"));
}

/// The ids of the rows, in their order.
const ROWS: &str = "[...document.querySelectorAll('tbody tr')].map((row) => Number(row.dataset.key))";
/// The vertical position of each row.
const PLACES: &str = "[...document.querySelectorAll('tbody tr')].map((row) => row.getBoundingClientRect().y)";

/// The ids, the newest first.
fn reversed(ids: &[u64]) -> Value {
    json!(ids.iter().rev().collect::<Vec<_>>())
}

#[test]
fn rows_stay_where_they_are_and_newer_jobs_wait_behind_a_button() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let old = server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 3_600_000}); 30]);
    let browser = Browser::open(&server, "/jobs");
    browser.wait_for_text("page 1 of 2, 30 jobs");
    let places = browser.run(PLACES);
    let new = server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 3_600_000}); 7]);
    server.act(&format!("/jobs/{}/cancel", old[20])).expect(200);
    browser.wait_for_text("↑ 7 newer");
    let row = format!("document.querySelector('[data-key=\"{}\"]').innerText", old[20]);
    browser.wait_until("its status changes in its place", &format!("{row}.includes('cancelled')"));
    assert_eq!(browser.run(ROWS), reversed(&old[5..]));
    assert_eq!(browser.run(PLACES), places, "nothing has moved");

    // What comes next is what follows on the rows that are shown.
    browser.click("link", "Older →");
    browser.wait_for_text("page 2 of 2, 37 jobs");
    assert_eq!(browser.run(ROWS), reversed(&old[..5]));
    browser.click("link", "← Newer");
    let all = [&old[12..], &new[..]].concat();
    browser.wait_until(
        "the first page is the newest",
        &format!("JSON.stringify({ROWS}) === '{}'", reversed(&all)),
    );

    let newest = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    browser.click("button", "↑ 1 newer");
    browser.wait_until("it is shown", &format!("{ROWS}[0] === {newest}"));
    browser.wait_for_focus("heading", "Jobs");
    browser.wait_until_gone("newer");
}

#[test]
fn jobs_that_leave_a_list_stay_in_their_place_with_what_they_are_now() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let ids: Vec<u64> = (0..3).map(|_| server.submit("sleep", json!({"ms": 600_000}))).collect();
    for id in &ids {
        server.wait_for_status(*id, "processing");
    }
    let browser = Browser::open(&server, "/jobs?status=processing");
    browser.wait_for_text("page 1 of 1, 3 jobs");
    browser.wait_for_text("1 of 5");
    server.act(&format!("/jobs/{}/cancel", ids[1])).expect(202);
    browser.wait_for_text("page 1 of 1, 2 jobs");
    let states = "[...document.querySelectorAll('tbody .status')].map((status) => status.innerText).join()";
    browser.wait_until("it is shown", &format!("{states} === 'processing,cancelled,processing'"));
    assert_eq!(browser.run(ROWS), reversed(&ids));

    let dead =
        server.submit_batch(&vec![json!({"type": "fail", "max_attempts": 1, "payload": {"times": 1}}); 3]);
    for id in &dead {
        server.wait_for_status(*id, "failed");
    }
    browser.go(&server, "/dead");
    browser.click("checkbox", &format!("Select job {}", dead[1]));
    browser.wait_for_text("Retry selected (1)");
    server.act("/queues/default/pause").expect(200);
    server.act(&format!("/jobs/{}/retry", dead[1])).expect(202);
    server.delete(&format!("/jobs/{}", dead[2])).expect(204);
    browser.wait_until("both are shown", &format!("{states} === 'deleted,queued'"));
    assert_eq!(browser.run(ROWS), reversed(&dead));
    browser.wait_for_text("Retry selected (0)");
    assert_eq!(browser.run("document.querySelectorAll('tbody input:enabled').length"), 1);
}

#[test]
fn large_texts_are_loaded_once_and_shown_within_bounds() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let text = format!("begin {} end", "x".repeat(300_000));
    let id = server.submit_job(json!({"type": "echo", "payload": {"text": text}, "delay_ms": 3_600_000}));
    let browser = Browser::open(&server, "/jobs");
    browser.wait_for_text(&id.to_string());
    browser.note_requests();
    browser.click("link", &id.to_string());
    browser.wait_for_text("begin xxx");
    browser.wait_for_text(&format!("threadq show {id} --server http://{}", server.addr()));
    assert_eq!(browser.run("document.body.innerText.includes(' end')"), false);
    assert_eq!(
        browser.run("document.body.innerText.length > 100000 && document.body.innerText.length < 110000"),
        true
    );
    browser.wait_until(
        "it looked a few times",
        "window.asked.filter((path) => path.includes('before=')).length >= 3",
    );
    let whole = format!("window.asked.filter((path) => path === '/jobs/{id}').length");
    assert_eq!(browser.run(&whole), 1);
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    browser.wait_until("the change is shown", "document.querySelector('.status').innerText === 'cancelled'");
    assert_eq!(browser.run(&whole), 2);
}
