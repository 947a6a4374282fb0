//! docs/write-a-worker.md: its programs are run as they stand there, or are files of examples/.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::common::api::is_final;
use crate::common::*;
use crate::recipes::{block, blocks, section_of, shell};

const PAGE: &str = "docs/write-a-worker.md";

/// A language of the page: its heading, the language of its code blocks, and the command that runs a file.
const LANGUAGES: [(&str, &str, &str); 5] = [
    ("## Shell", "sh", "sh"),
    ("## Python", "python", "python3"),
    ("## Node", "js", "node"),
    ("## Ruby", "ruby", "ruby"),
    ("## Go", "go", "go"),
];

/// The command that runs a program of the page: a process per job, or a program that stays.
fn command(dir: &TempDir, way: &str, language: &str, runner: &str, program: &str) -> Vec<String> {
    let file = format!("{way}.{}", if language == "js" { "mjs" } else { language });
    let path = dir.write(&file, program).display().to_string();
    if language != "go" {
        return vec![runner.to_owned(), path];
    }
    let binary = format!("{path}.bin");
    let built = Command::new("go").args(["build", "-o", &binary, &path]).output();
    let built = built.expect("go (script/setup installs it)");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    vec![binary]
}

#[test]
fn every_language_has_a_program_that_runs_a_job_and_a_program_that_stays() {
    let dir = TempDir::new();
    let mut config = String::new();
    let mut types = Vec::new();
    for (heading, language, runner) in LANGUAGES {
        let section = section_of(PAGE, heading);
        for (way, program) in ["once", "lines"].into_iter().zip(blocks(&section, language)) {
            let exec = command(&dir, way, language, runner, program);
            let name = format!("{language}-{way}");
            config.push_str(&format!(
                "[handlers.{name}]\nexec = {exec:?}\nprotocol = {way:?}\nmax_attempts = 1\n"
            ));
            types.push(name);
        }
    }
    assert_eq!(types.len(), 10, "{types:?}");
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(&config).start_in(dir);
    for name in &types {
        for _ in 0..2 {
            let job = server.complete(name, json!({"text": " to be or\nnot to be"}));
            assert_eq!(job["result"], json!({"words": 6}), "{name}");
            let id = server.submit(name, json!([]));
            assert_eq!(server.wait_for_end(id)["status"], "failed", "{name}");
        }
    }
}

#[test]
fn a_cancelled_book_goes_on_with_the_next_page() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    dir.write("book.sh", &block(&section_of(PAGE, "## Progress, log and checkpoint"), "sh"));
    let config = "[handlers.book]\nexec = [\"sh\", \"book.sh\"]\n";
    let server = TestServer::builder().redis(&redis).config(config).start_in(dir);
    let id = server.submit("book", json!({"pages": 200}));
    let page = |job: &Value| job["checkpoint"]["page"].as_u64().unwrap_or(0);
    server.wait_for(id, LIMIT, "some pages are done", |job| page(job) >= 5);
    server.act(&format!("/jobs/{id}/cancel")).expect(202);
    let cancelled = server.wait_for_status(id, "cancelled");
    assert!((5..200).contains(&page(&cancelled)), "{cancelled}");
    server.act(&format!("/jobs/{id}/retry")).expect(202);
    // Each page starts several programs.
    let job = server.wait_for(id, 5 * LIMIT, "it has ended", is_final);
    assert_eq!(
        (&job["progress"]["value"], &job["progress"]["message"]),
        (&json!(1.0), &json!("page 200 of 200"))
    );
    let book = std::fs::read_to_string(server.dir().join("book.txt")).expect("the book");
    let mut pages: Vec<&str> = book.lines().collect();
    let all = pages.len();
    pages.dedup();
    let expected: Vec<String> = (1..=200).map(|page| format!("page {page}")).collect();
    assert_eq!(pages, expected);
    // A page may be done twice if the stop came before its checkpoint.
    assert!(all <= 201, "{all} pages were done");
    let log = server.get(&format!("/jobs/{id}/log")).expect(200).json();
    assert_eq!(log["lines"][0]["text"], "all 200 pages are done", "{log}");
}

#[test]
fn the_readme_renders_a_scene_by_pull() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let section = section_of("README.md", "## Workers in any language");
    dir.script("book.sh", "");
    dir.write("words.py", "");
    let server = TestServer::builder().redis(&redis).config(&block(&section, "toml")).start_in(dir);
    let output = shell(&block(&section, "sh"), &server);
    let id = output.lines().next().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{output}"));
    let job = server.job(id);
    assert_eq!((&job["status"], &job["result"]), (&json!("completed"), &json!("7.png")), "{output}");
    assert_eq!(job["progress"]["message"], "frame 1 of 2");
}

#[test]
fn a_shell_loop_pulls_jobs_for_a_program() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let worker = block(&section_of(PAGE, "## Pull workers"), "sh");
    dir.write("pull.sh", &worker);
    dir.script("words.sh", &block(&section_of(PAGE, "## Shell"), "sh"));
    let config = "worker-token = \"s3cret\"\napi-token = \"other\"\n[handlers.words]\npull = true\n";
    let server = TestServer::builder().redis(&redis).config(config).without_demo().start_in(dir);
    let api = server.with_token("other");
    let submit = |payload| api.submit_job(json!({"type": "words", "queue": "words", "payload": payload}));
    let (good, bad) = (submit(json!({"text": "to be or not to be"})), submit(json!({})));
    let mut worker = Command::new("sh");
    worker.arg("pull.sh").current_dir(server.dir().path()).process_group(0);
    worker.env("THREADQ_SERVER", format!("http://{}", server.addr())).env("THREADQ_WORKER_TOKEN", "s3cret");
    let mut worker = worker.spawn().expect("a shell");
    let (good, bad) = (api.wait_for_end(good), api.wait_for_end(bad));
    let group = i32::try_from(worker.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process_group(group, Signal::KILL).expect("the worker runs");
    worker.wait().expect("it ends");
    assert_eq!((&good["status"], &good["result"]), (&json!("completed"), &json!({"words": 6})));
    assert_eq!(
        (&bad["status"], &bad["last_error"]),
        (&json!("failed"), &json!("words.sh refuses the payload"))
    );
    let workers = api.get("/workers").expect(200).json();
    assert_eq!(workers["workers"][0]["name"], "shell-1");
}
