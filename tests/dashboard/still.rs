//! That the page holds still under a person's hand: an action under way, a question, a selection, a press.

use super::browser::Browser;
use super::common::*;

/// From now on requests of the page that change something, or ask how much a change would be, get their answers when
/// the test lets them.
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

/// Counts the answers to what the page reads, so that a test can wait for a few refreshes.
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
fn a_button_is_busy_until_its_action_is_done_and_no_question_replaces_another() {
    let redis = TestRedis::start();
    let server = with_dead_letters(&redis, 3);
    let browser = Browser::open(&server, "/dead");
    browser.wait_until_drawn("Dead letters");
    browser.run(COUNT_READS);
    browser.run(HOLD_ANSWERS);
    browser.click("button", "Retry all");
    let busy = "[...document.querySelectorAll('button[aria-busy]')].map((button) => button.innerText).join()";
    assert_eq!(browser.run(busy), "Retry all");
    wait_for_reads(&browser, 2);
    assert_eq!(browser.run(busy), "Retry all", "after the page was drawn again");
    browser.click("button", "Retry all");
    assert_eq!(browser.run("window.letGo.length"), 1, "a second click asks nothing");
    browser.click("button", "Delete all");
    assert_eq!(browser.run("window.letGo.length"), 2, "another action does");

    browser.run("window.letGo[0]()");
    browser.wait_for_text("Retry 3 dead letters?");
    browser.run("window.letGo[1]()");
    browser.wait_for_text("could not be asked, since another question was open");
    browser.wait_for_text("Retry 3 dead letters?");
    assert_eq!(browser.run(busy), "Retry all", "one is asked, the other one is over");
    // The page below the question is not drawn: what the mouse would come to is still there afterwards.
    browser.run("document.querySelector('tbody tr').title = 'the same row'");
    wait_for_reads(&browser, 2);
    assert_eq!(browser.run("document.querySelector('tbody tr').title"), "the same row");
    browser.click("button", "Keep as it is");
    browser.wait_until("no button is busy", &format!("({busy}) === ''"));
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
    browser.wait_for_text("on hold while text is selected");
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
