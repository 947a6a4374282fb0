//! The dashboard works by keyboard alone, with a screen reader, on a phone, and in dark and light mode.

use super::browser::Browser;
use super::common::*;

/// A page to check.
struct Page {
    name: &'static str,
    hash: String,
    title: &'static str,
    /// A text that the page shows once all of it is loaded.
    text: &'static str,
}

impl Page {
    fn show(&self, browser: &Browser, server: &Api) {
        browser.go(server, &self.hash);
        browser.wait_until_drawn(self.title);
        browser.wait_for_text(self.text);
    }
}

const REPORTING: &str = r#"
[handlers.encode]
exec = ["/bin/sh", "-c", '''
exec 3<> "$THREADQ_REPORT"
for n in $(seq 1 40); do echo "log frame $n of 100: a line that is so long that it needs more than one row of a narrow page" >&3; done
echo 'checkpoint {"frame": 40}' >&3
echo 'progress 0.4 encoded 40 of the 100 frames of the first of 7 films' >&3
exec sleep 600
''']
"#;

const SCHEDULE_AND_LIMITS: &str = r#"
[limits.mails-to-the-provider-of-the-whole-world]
rate = "100/m"
burst = 20

[limits.gpu]
concurrency = 1

[limits."gpu:premium customer"]
concurrency = 20
rate = "1000/m"
burst = 100

[[schedules]]
name = "nightly-report-of-all-customers-of-the-world"
cron = "30 2 * * *"
timezone = "America/Argentina/Buenos_Aires"
job = { type = "echo", queue = "reports", tags = ["customer/42"] }
"#;

/// A server with jobs in every status, and all pages.
fn busy_server(redis: &TestRedis) -> (TestServer, Vec<Page>) {
    let server = TestServer::builder()
        .redis(redis)
        .config(&format!("{QUICK_BACKOFF}\n{SCHEDULE_AND_LIMITS}\n{REPORTING}"))
        .flag("workers", "8")
        .flag("queues", "default,urgent!")
        .start();
    let long = "a message without end ".repeat(12) + &"x".repeat(300);
    for n in 0..12 {
        server.submit("echo", json!({"number": n}));
        let message = if n == 3 {
            long.clone()
        } else {
            format!("cannot open /srv/media/{n}.mov: No such file or directory")
        };
        server.submit_job(json!({"type": "fail", "payload": {"message": message}, "max_attempts": 2}));
        server.submit_job(json!({"type": "sleep", "payload": {"ms": 5}}));
    }
    let failed = server.submit_job(json!({"type": "fail", "payload": {"message": long}, "max_attempts": 4}));
    server.wait_for_status(failed, "failed");
    server.submit_job(
        json!({"type": "echo", "queue": "emails.newsletter-2026_of-the-whole-world", "max_attempts": 7}),
    );
    server.act("/queues/emails.newsletter-2026_of-the-whole-world/pause").expect(200);
    let waiting = server.submit_job(json!({
        "type": "Encode a video whose type has rather a long name", "delay_ms": 3_600_000, "expires_in_ms": 7_200_000,
        "tags": ["customer/4711-of-the-northern-branch-in-a-town-far-away", "video"], "meta": {"traceparent": "0".repeat(60)},
    }));
    let schedule = "nightly-report-of-all-customers-of-the-world";
    server.act(&format!("/schedules/{schedule}/run")).expect(202);
    for _ in 0..3 {
        server.submit("sleep", json!({"ms": 600_000}));
    }
    let mut limited = Vec::new();
    for _ in 0..2 {
        for gpu in ["gpu", "gpu:in a rack that has a rather long name"] {
            let limits = json!([gpu, "mails-to-the-provider-of-the-whole-world"]);
            limited.push(
                server.submit_job(json!({"type": "sleep", "payload": {"ms": 600_000}, "limits": limits})),
            );
        }
    }
    eventually(LIMIT, "all is at rest but five jobs", || {
        server.count("queued") == 4 && server.count("processing") == 5 && server.count("retrying") == 0
    });
    let pull = json!({"queues": ["gpu"], "worker": "gpu-1.of-the-rack-in-the-cellar.example.com", "lease_ms": 600_000, "max": 2});
    for _ in 0..2 {
        server.submit_job(json!({"type": "Train a model whose type has rather a long name", "queue": "gpu"}));
    }
    let pulled = server.post("/pull", &pull).expect(200).json();
    assert_eq!(pulled["jobs"].as_array().map(Vec::len), Some(2), "{pulled}");
    let encoding = server.submit("encode", json!({}));
    server.wait_for(encoding, LIMIT, "it has reported", |job| job["progress"]["value"] == 0.4);
    let page = |name, hash: &str, title, text| Page { name, hash: hash.to_owned(), title, text };
    let pages = vec![
        page("overview", "/", "Overview", "Unfinished jobs"),
        page("workers", "/workers", "Workers", "lease ends"),
        page("running", &format!("/jobs/{encoding}"), "Job", "Checkpoint"),
        page("queues", "/queues", "Queues", "emails"),
        page("queue", "/queues/emails.newsletter-2026_of-the-whole-world", "Queue", "1 job queued"),
        page("schedules", "/schedules", "Schedules", "each day at 02:30"),
        page("schedule", &format!("/schedules/{schedule}"), "Schedule", "History"),
        page("create", "/new-schedule", "Create a schedule", "next five ticks"),
        page("limits", "/limits", "Limits", "100/m in bursts"),
        page("limit", "/limits/gpu", "Limit", "Jobs with a slot"),
        page("key", "/limits/gpu?key=in+a+rack+that+has+a+rather+long+name", "Limit", "page 1 of 1"),
        page("set-limit", "/set-limit?limit=gpu", "Set a limit", "Rate of starts"),
        page("held", &format!("/jobs/{}", limited[3]), "Job", "waits for the limit"),
        page("jobs", "/jobs", "Jobs", "page 1 of 2"),
        page("waiting", &format!("/jobs/{waiting}"), "Job", "Why it does not run"),
        page("change", &format!("/jobs/{waiting}/change"), "Change job", "Max attempts"),
        page("job", &format!("/jobs/{failed}"), "Job", "Timeline"),
        page("submit", "/submit", "Submit a job", "More fields"),
        page("dead", "/dead?type=fail", "Dead letters", "Retry all of type fail"),
    ];
    (server, pages)
}

/// Texts with less contrast to their background than WCAG AA asks for.
const FAINT: &str = "(() => {
    const parse = (color) => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const mix = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
    const behind = (node) => {
        if (!node) return [255, 255, 255];
        return mix(parse(getComputedStyle(node).backgroundColor), behind(node.parentElement));
    };
    const luminance = (color) => {
        const [r, g, b] = color.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const opacity = (node) => node ? Number(getComputedStyle(node).opacity) * opacity(node.parentElement) : 1;
    const faint = [];
    let looked = 0;
    for (const node of document.querySelectorAll('body *')) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!own || !node.getClientRects().length || node.disabled) continue;
        looked += 1;
        const back = behind(node);
        const front = mix([...mix(parse(getComputedStyle(node).color), back), opacity(node)], back);
        const [dark, light] = [luminance(front), luminance(back)].sort((a, b) => a - b);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
    }
    return looked < 12 ? ['only ' + looked + ' texts'] : faint;
})()";

#[test]
fn every_page_is_readable_and_fits_in_light_and_dark_wide_and_narrow() {
    let redis = TestRedis::start();
    let (server, pages) = busy_server(&redis);
    let browser = Browser::open(&server, "/");
    for page in &pages {
        for scheme in ["light", "dark"] {
            for width in [1280, 390, 320] {
                let context = format!("{}, {scheme}, {width} wide", page.name);
                browser.look(width, scheme);
                page.show(&browser, &server);
                browser.picture(&format!("{}-{scheme}-{width}", page.name));
                assert_eq!(browser.run(FAINT), json!([]), "{context}");
                let needed = browser.run("document.scrollingElement.scrollWidth");
                assert!(needed.as_u64().is_some_and(|needed| needed <= width.into()), "{context}: {needed}");
                if width >= 390 {
                    let hidden = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent.slice(0, 60) + one.scrollWidth + '>' + one.clientWidth)";
                    assert_eq!(browser.run(hidden), json!([]), "{context}: a table goes on beyond its edge");
                }
            }
        }
    }
}

#[test]
fn a_screen_reader_is_told_what_everything_is() {
    let redis = TestRedis::start();
    let (server, pages) = busy_server(&redis);
    let browser = Browser::open(&server, "/");
    for page in &pages {
        page.show(&browser, &server);
        let Page { name, title, .. } = page;
        let all = browser.everything();
        let count = |role: &str| all.iter().filter(|(found, _)| found == role).count();
        for role in ["banner", "main"] {
            assert_eq!(count(role), 1, "{name}: {role}");
        }
        assert!(count("navigation") >= 1 && count("status") >= 2, "{name}: {all:?}");
        assert!(all.contains(&("heading".to_owned(), (*title).to_owned())), "{name}: {all:?}");
        let must_have_a_name = [
            "button",
            "link",
            "textbox",
            "combobox",
            "searchbox",
            "checkbox",
            "table",
            "image",
            "navigation",
            "region",
        ];
        for (role, given) in &all {
            let is_nameless = must_have_a_name.contains(&role.as_str()) && given.trim().is_empty();
            assert!(!is_nameless, "{name}: a {role} without a name: {all:?}");
        }
        assert_eq!(browser.run("document.querySelectorAll('h1').length"), 1, "{name}");
        assert_eq!(browser.run("document.documentElement.lang"), "en");
    }
    browser.go(&server, "/");
    browser.wait_until_drawn("Overview");
    let all = browser.everything();
    let charts: Vec<&String> = all.iter().filter(|(role, _)| role == "image").map(|(_, name)| name).collect();
    assert!(charts.iter().any(|chart| chart.starts_with("Jobs ended per minute. completed: ")), "{charts:?}");

    // What a picture shows can be read as a table, and stays open while the page follows.
    browser.choose("DisclosureTriangle", "Jobs ended per minute as a table");
    browser.wait_until("it is open", "document.querySelector('figure details').open");
    let table = ("table".to_owned(), "Jobs ended per minute".to_owned());
    // The browser tells assistive technology a moment after it has drawn.
    eventually(LIMIT, "the open table is in the accessibility tree", || {
        browser.everything().contains(&table)
    });
    browser.tab_to("region", "Jobs ended per minute, minute by minute");
    let sums = "[1, 2].map((column) => [...document.querySelectorAll('figure table')[0].tBodies[0].rows]
        .reduce((sum, row) => sum + Number(row.cells[column].innerText), 0)).join()";
    let all = format!("{sums} === '{},{}'", server.count("completed"), server.count("failed"));
    browser.wait_until("it has the figures of all jobs", &all);
    server.complete("echo", json!({}));
    let all = format!("{sums} === '{},{}'", server.count("completed"), server.count("failed"));
    browser.wait_until("it follows", &all);
    assert_eq!(browser.run("document.querySelector('figure details').open"), true);
}

/// The main task of an operator, without a mouse: find the failed jobs of a type, read the errors, retry all of them,
/// pause the queue.
#[test]
fn the_keyboard_alone_is_enough() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    let job = json!({"type": "fail", "payload": {"message": "no disk"}, "max_attempts": 1});
    let ids = server.submit_batch(&vec![job; 3]);
    for id in &ids {
        server.wait_for_status(*id, "failed");
    }
    let browser = Browser::open(&server, "/");
    browser.wait_until_drawn("Overview");
    browser.press("Tab");
    browser.wait_for_focus("link", "Skip to the content");
    browser.press("Enter");
    browser.press("Tab");
    assert_eq!(browser.run("document.activeElement.closest('main') !== null"), true, "{:?}", browser.focus());

    browser.reload();
    browser.choose("link", "Queues");
    browser.wait_until_drawn("Queues");
    // The focus moves to the heading, so that a screen reader reads the name of the new page.
    browser.wait_for_focus("heading", "Queues");
    browser.tab_to("button", "Pause the queue default");
    browser.press("Space");
    browser.wait_for_text("The queue default is paused");
    browser.wait_for_focus("button", "Resume the queue default");

    browser.reload();
    browser.choose("link", "Dead letters");
    browser.wait_until_drawn("Dead letters");
    browser.tab_to("combobox", "Type");
    browser.write("fail");
    browser.press("Enter");
    browser.wait_for_text("Retry all of type fail");
    browser.wait_until_drawn("Dead letters");
    browser.tab_to("link", &ids[1].to_string());
    browser.press("Enter");
    browser.wait_for_text("no disk");
    browser.run("history.back()");
    browser.wait_until_drawn("Dead letters");
    browser.choose("button", "Retry all of type fail");
    browser.wait_for_text("Retry 3 dead letters?");
    browser.press("Escape");
    browser.wait_until_answered();
    assert_eq!(server.count("failed"), 3);
    browser.wait_for_focus("button", "Retry all of type fail");
    browser.press("Enter");
    browser.wait_for_text("Retry 3 dead letters?");
    // So Enter by mistake does nothing.
    browser.wait_for_focus("button", "Change nothing");
    browser.choose("button", "Retry 3");
    browser.wait_for_text("3 dead letters retried.");
    browser.wait_for_focus("button", "Close");
    browser.press("Enter");
    browser.wait_until_answered();
    // No dead letter is left, so the button is disabled.
    browser.wait_for_focus("heading", "Dead letters");
    assert_eq!((server.count("failed"), server.count("queued")), (0, 3));
}
