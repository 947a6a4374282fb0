//! The form that submits a job: what it sends, and errors beside the fields that they name.

use super::browser::Browser;
use super::common::*;

/// The error beside a field.
fn error_of(field: &str) -> String {
    format!("document.getElementById('f-{field}-error').innerText")
}

/// Writes a text into a field in place of what it has.
fn fill(browser: &Browser, name: &str, text: &str) {
    browser.click("textbox", name);
    browser.run("document.activeElement.select()");
    browser.write(text);
}

#[test]
fn a_job_is_submitted_without_a_mouse() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("echo", json!({}));
    let browser = Browser::open(&server, "/jobs");
    browser.wait_until_drawn("Jobs");
    browser.choose("link", "Submit a job");
    browser.wait_until_drawn("Submit a job");
    browser.wait_for_focus("heading", "Submit a job");
    let suggested = "[...document.querySelectorAll('#types option')].map((option) => option.value).join()";
    assert_eq!(browser.run(suggested), "echo", "the types of the newest jobs");
    browser.tab_to("combobox", "Type");
    browser.write("echo");
    browser.tab_to("textbox", "Payload");
    browser.run("document.activeElement.select()");
    browser.write(r#"{"order": 12345678901234567890123, "price": 1.50}"#);
    browser.tab_to("textbox", "Queue");
    browser.write("orders");
    browser.choose("DisclosureTriangle", "More fields");
    browser.tab_to("textbox", "Delay");
    browser.write("2h");
    browser.tab_to("textbox", "Tags");
    browser.write("customer/42, north\nreport");
    browser.tab_to("textbox", "Max attempts");
    browser.write("3");
    browser.tab_to("textbox", "Timeout of an attempt");
    browser.write("1.5s");
    browser.tab_to("textbox", "Expires after");
    browser.write("3h");
    browser.tab_to("textbox", "Keep after its end");
    browser.write("7d");
    browser.tab_to("textbox", "Meta");
    browser.write("tenant=acme\nrequest = 4=5");
    browser.choose("button", "Submit");
    browser.wait_for_text("is submitted.");
    let id = browser.run("document.querySelector('.outcome a').innerText");
    let id: u64 = id.as_str().expect("an id").parse().expect("a number");
    let job = server.job(id);
    let asked = [&job["type"], &job["queue"], &job["status"], &job["max_attempts"], &job["timeout_ms"]];
    assert_eq!(json!(asked), json!(["echo", "orders", "scheduled", 3, 1500]));
    assert_eq!(
        json!([job["tags"], job["retain_ms"], job["meta"]]),
        json!([["customer/42, north", "report"], 604_800_000, {"request": "4=5", "tenant": "acme"}])
    );
    assert_eq!(time_ms(&job["expires_at"]) - time_ms(&job["created_at"]), 10_800_000);
    let text = server.get(&format!("/jobs/{id}")).expect(200).text();
    assert!(text.contains("12345678901234567890123") && text.contains("1.50"), "all digits: {text}");
    browser.tab_to("link", &id.to_string());
    browser.press("Enter");
    browser.wait_until_drawn("Job");
    browser.wait_for_text("12345678901234567890123");

    // The same again, in another queue.
    browser.click("link", "Duplicate");
    browser.wait_until_drawn("Submit a job");
    fill(&browser, "Queue", "others");
    browser.click("button", "Submit");
    browser.wait_for_text("is submitted.");
    let id = browser.run("Number(document.querySelector('.outcome a').innerText)").as_u64().expect("an id");
    let job = server.job(id);
    assert_eq!(json!([job["queue"], job["max_attempts"], job["timeout_ms"]]), json!(["others", 3, 1500]));
    assert!(server.get(&format!("/jobs/{id}")).expect(200).text().contains("12345678901234567890123"));
}

#[test]
fn an_error_stands_beside_the_field_that_it_names() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let holder = server.submit_job(json!({"type": "echo", "unique_key": "k-1", "delay_ms": 3_600_000}));
    let browser = Browser::open(&server, "/submit");
    browser.wait_until_drawn("Submit a job");
    browser.click("button", "Submit");
    browser.wait_until("the type is missing", &format!("{} === 'type is missing'", error_of("type")));
    browser.wait_for_focus("combobox", "Type");
    assert_eq!(browser.run("document.activeElement.ariaInvalid"), "true");
    browser.write("echo");

    for (payload, error) in [
        ("{\"a\": 1,\n  \"b\": 2,}", "Line 2, column 10: the comma before this } must be removed."),
        ("{'a': 1}", "Line 1, column 2: a string must be in double quotes."),
        ("[1, 2", "Line 1, column 6: a comma or ] is expected here, but the text ends."),
        ("{\"a\" 1}", "Line 1, column 6: a colon is expected here, but there is 1."),
        ("{\"a\": 01}", "Line 1, column 7: a value is expected here, but there is 01."),
    ] {
        fill(&browser, "Payload", payload);
        browser.click("button", "Submit");
        let shown = format!("{} === {}", error_of("payload"), json!(error));
        browser.wait_until(payload, &shown);
        browser.wait_for_focus("textbox", "Payload");
    }
    assert_eq!(browser.run(&error_of("type")), "", "the type is there now");
    fill(&browser, "Payload", "[\"{'\", \"\\\\\"]");
    fill(&browser, "Queue", "a queue");
    browser.click("button", "Submit");
    let queue = format!("{}.startsWith('queue must be')", error_of("queue"));
    browser.wait_until("the API names the queue", &queue);
    browser.wait_for_focus("textbox", "Queue");
    fill(&browser, "Queue", "default");

    // A field that is folded away becomes visible with its error.
    browser.click("DisclosureTriangle", "More fields");
    fill(&browser, "Max attempts", "101");
    fill(&browser, "Delay", "soon");
    browser.run("document.querySelector('details.more').open = false");
    browser.click("button", "Submit");
    browser.wait_for_text("This must be a duration such as 250ms, 5s, 10m, 24h or 90d.");
    browser.wait_for_focus("textbox", "Delay");
    fill(&browser, "Delay", "");
    browser.click("button", "Submit");
    let attempts = format!("{}.startsWith('max_attempts must be')", error_of("max_attempts"));
    browser.wait_until("the API names the attempts", &attempts);
    fill(&browser, "Max attempts", "");
    fill(&browser, "Unique key", "k-1");
    browser.click("button", "Submit");
    let key = format!("{}.includes('{holder}')", error_of("unique-key"));
    browser.wait_until("the holder of the key is named", &key);
    assert_eq!(server.count("scheduled"), 1, "nothing was submitted");
    browser.click("link", &holder.to_string());
    browser.wait_until_drawn("Job");

    // What becomes of a job whose key is held.
    for (on_conflict, told) in [
        ("existing", "holds the unique key already. No job was submitted."),
        ("replace", "held the unique key and has the new content."),
    ] {
        server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000,
            "unique": {"key": on_conflict, "until": "start"}}));
        browser.go(&server, "/submit");
        browser.wait_until_drawn("Submit a job");
        browser.click("combobox", "Type");
        browser.write("echo");
        browser.click("DisclosureTriangle", "More fields");
        fill(&browser, "Unique key", on_conflict);
        browser.run(&format!("document.getElementById('f-unique-on_conflict').value = '{on_conflict}'"));
        browser.click("button", "Submit");
        browser.wait_for_text(told);
    }

    // An error that no field has caused stands above the button.
    browser.go(&server, "/submit");
    browser.wait_until_drawn("Submit a job");
    browser.click("combobox", "Type");
    browser.write("echo");
    redis.pause();
    browser.click("button", "Submit");
    browser.wait_until("it says why", "document.querySelector('.outcome.error').innerText.includes('Redis')");
    redis.resume();
    eventually(LIMIT, "Redis is back", || server.get("/readyz").status == 200);
    browser.click("button", "Submit");
    browser.wait_for_text("is submitted.");
}
