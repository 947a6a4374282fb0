//! A server with an API token: the page asks for the token once and keeps it for the browser tab only.

use super::browser::Browser;
use super::common::*;

#[test]
fn the_token_is_asked_for_once_and_kept_for_the_tab() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("api-token", "s3cret-t0ken").start();
    let api = server.with_token("s3cret-t0ken");
    let browser = Browser::open(&server, "/queues");
    browser.wait_for_text("API token required");
    assert!(!browser.run("document.body.innerText").to_string().contains("default"));
    browser.wait_for_focus("textbox", "API token");
    for wrong in ["wrong", "wröng", "€ and more"] {
        browser.write(wrong);
        browser.press("Enter");
        browser.wait_for_text("rejected this token");
        browser.run("document.getElementById('login-text').textContent = ''");
    }
    browser.press("Escape");
    browser.write("s3cret-t0ken");
    browser.press("Enter");
    browser.wait_until_drawn("Queues");
    browser.click("button", "Pause the queue default");
    browser.wait_for_text("is paused");
    assert_eq!(api.get("/queues").expect(200).json()["queues"][0]["paused"], true);
    browser.reload();
    browser.click("button", "Resume the queue default");
    browser.wait_for_text("running again");
    assert_eq!(
        browser.run("[localStorage.length, document.cookie, location.href.includes('t0ken')]"),
        json!([0, "", false])
    );

    let other = Browser::open(&server, "/queues");
    other.wait_for_text("API token required");
}
