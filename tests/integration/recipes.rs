//! The recipes of the documents, run as they stand there: the JSON is posted, the configuration is that of a server, and the
//! commands are run in a shell.

use std::path::Path;
use std::process::Command;

use crate::common::server::finish;
use crate::common::*;

/// A section of docs/jobs.md without its heading.
fn section(heading: &str) -> String {
    section_of("docs/jobs.md", heading)
}

/// A section of a document without its heading.
pub fn section_of(page: &str, heading: &str) -> String {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("the page");
    let (_, rest) =
        page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n##").next().expect("a part").to_owned()
}

/// The first code block of a section in this language.
pub fn block(section: &str, language: &str) -> String {
    blocks(section, language).next().expect("a block").to_owned()
}

/// The code blocks of a section in this language.
pub fn blocks<'a>(section: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let starts = section.split(&format!("```{language}\n")).skip(1).collect::<Vec<_>>();
    starts.into_iter().filter_map(|rest| rest.split("```").next())
}

/// The parts of a recipe.
struct Recipe {
    json: String,
    commands: String,
}

impl Recipe {
    fn of(heading: &str) -> Recipe {
        let section = section(heading);
        Recipe { json: block(&section, "json"), commands: block(&section, "sh") }
    }

    /// Posts the JSON. Returns the id of the job.
    fn post(&self, server: &TestServer) -> u64 {
        server.post_text("/jobs", &self.json).expect(202).json()["job_id"].as_u64().expect("an id")
    }

    /// Runs the command. Returns the id that it prints.
    fn run(&self, server: &TestServer) -> u64 {
        let output = shell(&self.commands, server);
        output.trim().parse().unwrap_or_else(|_| panic!("{}: {output}", self.commands))
    }
}

/// Runs commands of the page in a shell, with the built program and this server. Returns their output.
pub fn shell(commands: &str, server: &TestServer) -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_threadq")).parent().expect("a folder").display().to_string();
    let mut command = Command::new("sh");
    command.args(["-e", "-c", commands]).env_clear().env("PATH", format!("{folder}:/usr/bin:/bin"));
    command.env("THREADQ_SERVER", format!("http://{}", server.addr()));
    let finished = finish(command);
    assert_eq!(finished.code, Some(0), "{commands}: {}", finished.stderr);
    finished.stdout
}

/// A server with programs for the types of the page.
fn server(redis: &TestRedis) -> TestServer {
    let handlers = ["notify", "index", "report", "remind", "invoice", "greet"];
    let mut config: String =
        handlers.iter().map(|name| format!("[handlers.{name}]\nexec = [\"cat\"]\n")).collect();
    config.push_str("[handlers.sync]\nexec = [\"sleep\", \"600\"]\n");
    TestServer::builder().redis(redis).config(&config).start()
}

#[test]
fn throttle_sends_one_notification() {
    let redis = TestRedis::start();
    let server = server(&redis);
    let recipe = Recipe::of("### Throttle");
    let id = recipe.post(&server);
    server.wait_for_status(id, "completed");
    assert_eq!((recipe.run(&server), recipe.run(&server)), (id, id));
    assert_eq!(server.total(""), 1);
}

#[test]
fn debounce_runs_once_with_the_newest_data() {
    let redis = TestRedis::start();
    let server = server(&redis);
    let recipe = Recipe::of("### Debounce");
    let id = recipe.post(&server);
    assert_eq!(recipe.run(&server), id);
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["result"], json!({"article": 7, "version": 2}));
    let waited = time_ms(&job["started_at"]) - time_ms(&job["created_at"]);
    assert!(waited >= 4999, "started after {waited} ms");
    assert_eq!(server.total(""), 1);
}

#[test]
fn one_sync_waits_while_one_runs() {
    let redis = TestRedis::start();
    let server = server(&redis);
    let recipe = Recipe::of("### One waits while one runs");
    let running = recipe.post(&server);
    server.wait_for_status(running, "processing");
    server.act("/queues/default/pause").expect(200);
    let waiting = recipe.run(&server);
    assert_ne!(waiting, running);
    assert_eq!(recipe.run(&server), waiting);
    assert_eq!(server.total(""), 2);
}

#[test]
fn two_people_join_one_report() {
    let redis = TestRedis::start();
    let server = server(&redis);
    let recipe = Recipe::of("### Join the job that is there");
    server.act("/queues/default/pause").expect(200);
    let id = recipe.post(&server);
    assert_eq!(recipe.run(&server), id);
    server.act("/queues/default/resume").expect(200);
    assert_eq!(server.wait_for_status(id, "completed")["result"], json!({"month": "2026-11"}));
    // The next report is a job of its own.
    assert_ne!(recipe.run(&server), id);
}

#[test]
fn the_commands_about_expiry_tags_and_meta_do_what_the_page_says() {
    let redis = TestRedis::start();
    let server = server(&redis);
    let submitted = |heading: &str| {
        let output = shell(&block(&section(heading), "sh"), &server);
        let id =
            output.lines().next().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{output}"));
        (server.job(id), output)
    };
    let (job, _) = submitted("## Expiry");
    assert_eq!(time_ms(&job["expires_at"]) - time_ms(&job["created_at"]), 3_600_000);
    let (job, output) = submitted("## Tags");
    assert_eq!(job["tags"], json!(["customer-42", "monthly"]));
    assert!(output.contains("customer-42, monthly") && output.ends_with("1 job\n"), "{output}");
    let (job, _) = submitted("## Meta");
    let trace = job["meta"]["traceparent"].as_str().expect("a text");
    assert_eq!((trace.len(), trace.split('-').count()), (55, 4), "the form of the W3C: {trace}");
}

/// A server with the configuration of a section about limits. Its programs run on for tenant 7, and end at once for all
/// others.
fn limited_server(redis: &TestRedis, section: &str) -> TestServer {
    let dir = TempDir::new();
    for name in ["send-mail.sh", "report.sh"] {
        dir.script(name, "! grep -q '\"tenant\": 7' || exec sleep 600");
    }
    TestServer::builder().redis(redis).config(&block(section, "toml")).flag("workers", "8").start_in(dir)
}

/// The ids that commands print, one on each line.
fn ids(output: &str) -> Vec<u64> {
    output.lines().map_while(|line| line.parse().ok()).collect()
}

#[test]
fn ten_mails_start_in_a_second_on_two_servers() {
    let redis = TestRedis::start();
    let section = section_of("docs/limits.md", "### An SMTP provider that allows 10 mails a second");
    let (server, _other) = (limited_server(&redis, &section), limited_server(&redis, &section));
    let commands: Vec<&str> = blocks(&section, "sh").collect();
    let output = shell(commands[0], &server);
    assert!(output.contains("limit       smtp\n") && output.contains("rate        10/s\n"), "{output}");
    let ids = ids(&output);
    assert_eq!(ids.len(), 20);
    let mut starts: Vec<u64> =
        ids.iter().map(|id| time_ms(&server.wait_for_status(*id, "completed")["started_at"])).collect();
    starts.sort_unstable();
    // Times are rounded to milliseconds.
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 99), "{starts:?}");
    assert_eq!(shell(commands[1], &server), "the limit smtp is set\n");
    let limit = server.get("/limits/smtp").expect(200).json();
    assert_eq!(json!([limit["rate"], limit["overridden"]]), json!(["100/s", true]));
}

#[test]
fn a_tenant_with_many_reports_delays_nobody_else() {
    let redis = TestRedis::start();
    let section = section_of("docs/limits.md", "### Fair tenants");
    let server = limited_server(&redis, &section);
    let output = shell(&block(&section, "sh"), &server);
    let ids = ids(&output);
    assert_eq!(ids.len(), 51, "{output}");
    assert_eq!(server.job(ids[50])["status"], "completed");
    let table: Vec<Vec<&str>> = output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(table.contains(&vec!["7", "2", "48"]), "{output}");
    assert_eq!((server.count("processing"), server.count("queued")), (2, 48));
    assert_eq!(server.job(ids[2])["blocked_by"], json!({"limit": "tenant:7"}));
    let queues = server.get("/queues").expect(200).json();
    assert_eq!(queues["queues"][0]["held"], 48);
}

#[test]
fn imports_of_one_account_run_one_after_the_other() {
    let redis = TestRedis::start();
    let server =
        TestServer::builder().redis(&redis).config("[handlers.import]\nexec = ['sleep', '600']\n").start();
    let output = shell(&block(&section_of("docs/limits.md", "### One at a time"), "sh"), &server);
    let ids = ids(output.trim_start_matches("the limit account is set\n"));
    server.wait_for_status(ids[0], "processing");
    server.wait_for(ids[1], LIMIT, "waits", |job| job["blocked_by"]["limit"] == "account:7");
    server.act(&format!("/jobs/{}/cancel", ids[0])).expect(202);
    server.wait_for_status(ids[1], "processing");
}

#[test]
fn the_mail_of_the_readme_has_both_limits() {
    let redis = TestRedis::start();
    let section = section_of("README.md", "## Limits");
    let server = limited_server(&redis, &section);
    let id = ids(&shell(&block(&section, "sh"), &server))[0];
    assert_eq!(server.wait_for_status(id, "completed")["limits"], json!(["tenant:42", "smtp"]));
}
