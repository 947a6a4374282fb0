//! The pages for schedules.

use super::browser::Browser;
use super::common::*;

const CONFIG: &str = r#"
[[schedules]]
name = "nightly-report"
cron = "30 2 * * *"
timezone = "Asia/Tokyo"
job = { type = "echo", payload = { kind = "daily" }, queue = "reports" }
"#;

#[test]
fn a_schedule_of_the_file_is_shown_run_and_paused() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(CONFIG).flag("queues", "default").start();
    let browser = Browser::open(&server, "/schedules");
    browser.ask("Emulation.setTimezoneOverride", json!({"timezoneId": "America/New_York"}));
    browser.go(&server, "/schedules");
    for part in ["each day at 02:30", "30 2 * * *", "02:30:00 Asia/Tokyo"] {
        browser.wait_for_text(part);
    }
    browser.choose("button", "Run the schedule nightly-report now");
    browser.wait_for_text("The schedule nightly-report has submitted job");
    browser.wait_for_text("manual");
    let first = server.get("/jobs").expect(200).json()["jobs"][0]["id"].as_u64().expect("an id");
    browser.wait_for_text(&first.to_string());
    // The job waits in a queue that no server takes jobs from.
    browser.press("Enter");
    browser.wait_for_text("Run nightly-report all the same?");
    browser.click("button", "Change nothing");
    browser.wait_until_answered();
    assert_eq!(server.count("queued"), 1);
    browser.click("button", "Run the schedule nightly-report now");
    browser.click("button", "Run it now");
    browser.wait_until(
        "a second job waits",
        "document.getElementById('said').innerText.includes('has submitted job')",
    );
    eventually(LIMIT, "a second job waits", || server.count("queued") == 2);
    browser.click("button", "Pause the schedule nightly-report");
    browser.wait_for_text("its ticks are skipped");
    browser.click("button", "Resume the schedule nightly-report");
    browser.wait_for_text("is on again");

    browser.click("link", "nightly-report");
    browser.wait_until_drawn("Schedule");
    for part in
        ["Managed by the configuration file", "\"kind\": \"daily\"", "02:30:00 in Asia/Tokyo", "manual"]
    {
        browser.wait_for_text(part);
    }
    assert_eq!(browser.run("document.querySelectorAll('.ticks li').length"), 5);
    assert_eq!(browser.run("document.querySelectorAll('[aria-label=History] tbody tr').length"), 2);
    assert_eq!(browser.find("button", "Delete"), None, "the file manages the schedule");
    browser.click("link", &first.to_string());
    browser.wait_until_drawn("Job");
    browser.click("link", "nightly-report");
    browser.wait_until_drawn("Schedule");
    browser.go(&server, "/schedules/nightly-report/change");
    browser.wait_for_text("managed by the configuration file");
    browser.go(&server, "/schedules/nothing");
    browser.wait_until("it says so", "document.querySelector('[role=alert]').innerText !== ''");
}

#[test]
fn a_schedule_is_created_with_a_preview_changed_and_deleted_without_a_mouse() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let browser = Browser::open(&server, "/schedules");
    browser.wait_for_text("There is no schedule yet.");
    browser.choose("link", "Create a schedule");
    browser.wait_until_drawn("Create a schedule");
    browser.tab_to("textbox", "Name");
    browser.write("cleanup");
    browser.tab_to("textbox", "Cron expression");
    browser.write("61 * * * *");
    browser.wait_until(
        "it says what is wrong",
        "document.querySelector('#preview .error').innerText.includes('cron')",
    );
    browser.run("document.activeElement.select()");
    browser.write("0 6 * * *");
    browser.tab_to("combobox", "Time zone of the cron expression");
    browser.write("Asia/Tokyo");
    let previewed = "[...document.querySelectorAll('#preview li')].filter((one) => one.innerText.includes('06:00:00 in Asia/Tokyo')).length === 5";
    browser.wait_until("the next ticks are shown", previewed);
    browser.tab_to("combobox", "Type");
    browser.write("echo");
    browser.tab_to("textbox", "Payload");
    browser.run("document.activeElement.select()");
    browser.write(r#"{"big": 1234567}"#);
    browser.choose("button", "Create");
    browser.wait_for_text("The schedule cleanup is saved.");
    browser.wait_until_drawn("Schedule");
    browser.wait_for_text("1234567");
    let schedule = server.get("/schedules/cleanup").expect(200).json();
    assert_eq!(
        json!([schedule["cron"], schedule["timezone"], schedule["job"]["type"]]),
        json!(["0 6 * * *", "Asia/Tokyo", "echo"])
    );

    // A second one of this name is refused beside the field.
    browser.go(&server, "/new-schedule");
    browser.wait_until_drawn("Create a schedule");
    browser.click("textbox", "Name");
    browser.write("cleanup");
    browser.click("button", "Create");
    browser.wait_for_text("name: there is a schedule cleanup already");
    browser.wait_for_focus("textbox", "Name");
    browser.write("-2");
    browser.click("button", "Create");
    let cron = "document.getElementById('f-cron-error').innerText.includes('cron')";
    browser.wait_until("the API names the field", cron);

    browser.go(&server, "/schedules/cleanup");
    browser.wait_until_drawn("Schedule");
    browser.choose("link", "Change");
    browser.wait_until_drawn("Change schedule");
    browser.tab_to("textbox", "Queue");
    browser.write("low");
    browser.choose("button", "Change");
    browser.wait_until_drawn("Schedule");
    let text = server.get("/schedules/cleanup").expect(200).text();
    assert!(text.contains("1234567") && text.contains("\"low\""), "{text}");
    browser.choose("button", "Delete");
    browser.wait_for_focus("button", "Change nothing");
    browser.choose("button", "Delete this schedule");
    browser.wait_for_text("The schedule cleanup is deleted.");
    browser.wait_until_drawn("Schedules");
    server.get("/schedules/cleanup").expect(404);
}
