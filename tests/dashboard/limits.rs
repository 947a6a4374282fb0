//! The pages for limits, and what other pages say about limits.

use super::browser::Browser;
use super::common::*;

const CONFIG: &str = r#"
[limits.smtp]
concurrency = 1

[handlers.mail]
exec = ["sleep", "600"]
limited_by = ["smtp"]

[[schedules]]
name = "nightly"
every = "365d"
overlap = "wait"
job = { type = "echo" }
"#;

#[test]
fn a_limit_of_the_file_is_shown_overridden_and_unset() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(CONFIG).start();
    let running = server.submit_job(json!({"type": "mail"}));
    server.wait_for_status(running, "processing");
    let waiting = server.submit_batch(&vec![json!({"type": "mail"}); 2]);
    server.wait_for(waiting[1], LIMIT, "waits", |job| job["blocked_by"]["limit"] == "smtp");

    let browser = Browser::open(&server, "/limits");
    let row = "[...document.querySelector('tbody tr').cells].slice(0, 4).map((cell) => cell.innerText.trim()).join('|')";
    browser.wait_until("the limit is full", &format!("{row} === 'smtp|1 job at a time|1 of 1|2'"));
    assert_eq!(browser.find("button", "Unset the limit smtp"), None, "the file has the numbers");
    browser.click("link", "smtp");
    browser.wait_until_drawn("Limit");
    browser.wait_for_text("in the configuration file");
    let listed = "[...document.querySelectorAll('[aria-label=\"What waits\"] tbody .id')].map((id) => id.innerText).join()";
    browser.wait_until("both wait", &format!("{listed} === '{},{}'", waiting[0], waiting[1]));

    // The job and its queue say why the job waits.
    browser.click("link", &waiting[1].to_string());
    browser.wait_until_drawn("Job");
    browser.wait_for_text("waits for the limit smtp");
    browser.go(&server, "/queues/default");
    browser.wait_for_text("2 jobs queued, 2 held by limits");
    browser.wait_for_text("All jobs of this queue wait for limits.");
    browser.go(&server, "/queues");
    browser.wait_for_text("2 held");
    browser.look(1280, "light");
    browser.go(&server, "/jobs?status=queued");
    browser.wait_for_text("waits for the limit smtp");

    browser.click("link", "smtp");
    browser.wait_until_drawn("Limit");
    browser.click("link", "Change the limit smtp");
    browser.wait_until_drawn("Set a limit");
    browser.click("textbox", "Jobs at a time");
    browser.run("document.activeElement.select()");
    browser.write("2");
    browser.click("button", "Set");
    browser.wait_for_text("The limit smtp is set.");
    for part in ["overridden", "2 of 2", "by the API"] {
        browser.wait_for_text(part);
    }
    // The row of the job that has started stays until the user asks for the present list.
    browser.wait_until("the other one waits", &format!("{listed} === '{}'", waiting[1]));

    browser.click("button", "Unset the limit smtp");
    browser.wait_for_text("The numbers of the file, or of the limit without the key, hold again.");
    browser.click("button", "Change nothing");
    browser.wait_until_answered();
    assert_eq!(server.get("/limits/smtp").expect(200).json()["concurrency"], 2);
    browser.click("button", "Unset the limit smtp");
    browser.click("button", "Unset this limit");
    browser.wait_for_text("The limit smtp is unset.");
    browser.wait_until_drawn("Limits");
    browser.wait_for_text("1 job at a time");
    browser.wait_until_gone("overridden");

    // The limit of a schedule has no page of its own.
    let id = server.act("/schedules/nightly/run").expect(202).json()["job_id"].clone();
    browser.go(&server, &format!("/jobs/{id}"));
    browser.click("link", "threadq.schedule:nightly");
    browser.wait_until_drawn("Schedule");
}

#[test]
fn limits_with_keys_are_set_and_shown_without_a_mouse() {
    /// A key that changes the page if the browser runs any part of it.
    const KEY: &str = "<b>a & b</b>/ü?#:%";
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let browser = Browser::open(&server, "/limits");
    browser.wait_for_text("There is no limit yet.");
    browser.choose("link", "Set a limit");
    browser.wait_until_drawn("Set a limit");
    browser.tab_to("textbox", "Limit");
    browser.write("tenant");
    browser.tab_to("textbox", "Rate of starts");
    browser.write("10 a second");
    browser.choose("button", "Set");
    let error = "document.getElementById('f-rate-error').innerText.startsWith('rate must be')";
    browser.wait_until("the error stands beside the field", error);
    browser.wait_for_focus("textbox", "Rate of starts");
    browser.run("document.activeElement.select()");
    browser.write("1/h");
    browser.tab_to("textbox", "Burst");
    browser.write("2");
    browser.choose("button", "Set");
    browser.wait_for_text("The limit tenant is set.");
    browser.wait_until_drawn("Limit");
    browser.wait_for_text("1/h in bursts of up to 2");

    // A job is submitted with limits, of which an unknown one is refused beside the field.
    browser.go(&server, "/submit");
    browser.wait_until_drawn("Submit a job");
    browser.tab_to("combobox", "Type");
    browser.write("echo");
    browser.choose("DisclosureTriangle", "More fields");
    browser.tab_to("textbox", "Limits");
    browser.write("nope\ntenant:8");
    browser.choose("button", "Submit");
    let error = "document.getElementById('f-limits-error').innerText.includes('nope')";
    browser.wait_until("the error stands beside the field", error);
    browser.wait_for_focus("textbox", "Limits");
    browser.run("document.activeElement.select()");
    browser.write("tenant:8");
    browser.choose("button", "Submit");
    browser.wait_for_text("is submitted.");
    let jobs = server.list_all("/jobs", "");
    assert_eq!(json!([jobs.len(), jobs[0]["limits"]]), json!([1, ["tenant:8"]]));
    browser.go(&server, "/limits/tenant");
    browser.wait_until_drawn("Limit");

    let job = |key: &str| json!({"type": "echo", "limits": [format!("tenant:{key}")]});
    let ids = server.submit_batch(&[job(KEY), job(KEY), job(KEY), job(KEY), job("7"), job("7"), job("7")]);
    server.wait_for_status(ids[1], "completed");
    browser.reload();
    let keys = "[...document.querySelectorAll('[aria-label=Keys] tbody tr')].map((row) => `${row.cells[0].innerText} ${row.cells[3].innerText}`).join('|')";
    let expected = json!(format!("tenant:{KEY} 2|tenant:7 1"));
    browser.wait_until("the keys by their waiters", &format!("{keys} === {expected}"));
    browser.wait_for_text("in 59 min");
    browser.choose("link", &format!("tenant:{KEY}"));
    browser.wait_until_drawn("Limit");
    let listed = "[...document.querySelectorAll('[aria-label=\"What waits\"] tbody .id')].map((id) => id.innerText).join()";
    browser.wait_until("two wait", &format!("{listed} === '{},{}'", ids[2], ids[3]));
    assert_eq!(browser.run("document.querySelectorAll('b').length"), 0);

    // Numbers for this key alone.
    browser.choose("link", &format!("Change the limit tenant:{KEY}"));
    browser.wait_until_drawn("Set a limit");
    browser.tab_to("textbox", "Rate of starts");
    browser.run("document.activeElement.select()");
    browser.write("1000/s");
    browser.choose("button", "Set");
    browser.wait_for_text("1000/s");
    server.wait_for_status(ids[3], "completed");
    browser.wait_for_text("overridden");
    assert_eq!(server.count("queued"), 1, "the numbers of the other key have not changed");
    browser.go(&server, "/limits/tenant");
    browser.wait_until_drawn("Limit");
    let own = "[...document.querySelectorAll('[aria-label=Keys] tbody tr')].map((row) => row.cells[1].innerText).join('|')";
    browser.wait_until("the own numbers of the key", &format!("{own} === '–|1000/s in bursts of up to 2'"));
    browser.go(&server, "/limits");
    browser.wait_until_drawn("Limits");
    browser.choose("button", "Unset the limit tenant");
    browser.wait_for_focus("button", "Change nothing");
    browser.choose("button", "Unset this limit");
    browser.wait_for_text("The limit tenant is unset.");
    server.wait_for_status(ids[6], "completed");
}
