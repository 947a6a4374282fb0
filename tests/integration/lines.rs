//! Programs that stay, `protocol = "lines"`: as the server runs them, and what becomes of them when the server ends. The
//! unit tests of `handler/lines/` have the cases of a single handler.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::*;

fn handler(name: &str, words: &[&str], keys: &str) -> String {
    format!("[handlers.{name}]\nexec = {}\nprotocol = \"lines\"\n{keys}\n", json!(words))
}

/// A program in shell that runs `body` for each job, whose line is in `$job`, and `end` at the end of its input.
fn shell(name: &str, body: &str, end: &str, keys: &str) -> String {
    let script = format!("while IFS= read -r job; do {body}\ndone\n{end}");
    handler(name, &["sh", "-c", &script], keys)
}

/// Answers with the process id.
const PID: &str = "echo \"{\\\"result\\\": $$}\"";

/// Answers with the process id once so many jobs have begun, each in a program of its own.
fn together(jobs: usize) -> String {
    format!("echo x >> begun; until [ $(wc -l < begun) -ge {jobs} ]; do sleep 0.05; done; {PID}")
}

/// The programs of a server.
fn programs_of(server: &TestServer) -> Vec<u32> {
    let mut found = signal::working_in(server.dir().path());
    found.retain(|pid| *pid != server.pid());
    found
}

fn pid_of(job: &Value) -> u32 {
    job["result"].as_u64().unwrap_or_else(|| panic!("{job:#}")) as u32
}

fn lines_in(server: &TestServer, file: &str) -> usize {
    fs::read_to_string(server.dir().join(file)).unwrap_or_default().lines().count()
}

#[test]
fn the_examples_work_in_every_language() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lines");
    let file = |name: &str| examples.join(name).to_str().expect("UTF-8").to_owned();
    let built = TempDir::new();
    let go = built.join("words").to_str().expect("UTF-8").to_owned();
    let mut build = Command::new("go");
    build.args(["build", "-o", &go, &file("words.go")]).current_dir(built.path());
    // `env` leaves Go without a folder for its cache where HOME is not set.
    let status = build.env("GOCACHE", built.join("cache")).env("GO111MODULE", "off").status();
    assert!(status.expect("script/setup installs go").success(), "the example in Go is built");
    let config = [
        handler("python", &["python3", &file("words.py")], ""),
        handler("node", &["node", &file("words.mjs")], ""),
        handler("ruby", &["ruby", &file("words.rb")], ""),
        handler("go", &[&go], ""),
        handler("shell", &[&file("words.sh")], ""),
    ]
    .concat();
    let languages = ["python", "node", "ruby", "go", "shell"];
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(&config).flag("workers", "2").start();
    for language in languages {
        let text = "b a\u{2028}a é \"b\"\n";
        let wanted = match language {
            // What counts as white space is the language's business.
            "ruby" => json!({"b": 1, "a\u{2028}a": 1, "é": 1, "\"b\"": 1}),
            _ => json!({"b": 1, "a": 2, "é": 1, "\"b\"": 1}),
        };
        let ids: Vec<u64> = (0..20)
            .map(|number| {
                let payload = if number % 5 == 4 { json!({"text": 7}) } else { json!({"text": text}) };
                server.submit_job(json!({"type": language, "payload": payload, "max_attempts": 3}))
            })
            .collect();
        for (number, id) in ids.into_iter().enumerate() {
            let job = server.wait_for_end(id);
            if number % 5 == 4 {
                assert_eq!(job["status"], "failed", "{language}: {job:#}");
                assert_eq!(job["last_error"], "the payload has no text", "{language}: {job:#}");
                assert_eq!(job["attempts"], 1, "{language}: {job:#}");
            } else {
                assert_eq!(job["result"], wanted, "{language}: {job:#}");
                assert_eq!(job["progress"]["value"], 0.5, "{language}: {job:#}");
            }
        }
    }
    assert!(programs_of(&server).len() >= languages.len(), "the programs stay");
    let checked = TestServer::builder().redis(&redis).config(&config).run("check");
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
}

#[test]
fn check_names_a_program_that_cannot_stay() {
    let redis = TestRedis::start();
    let config = handler("once", &["sh", "-c", "echo done; exit 3"], "");
    let checked = TestServer::builder().redis(&redis).config(&config).without_demo().run("check");
    assert_eq!(checked.code, Some(2), "{}", checked.stderr);
    let wanted = "handlers.\"once\": exit code 3 at the end of its standard input; wanted: exit code 0";
    assert!(checked.stderr.contains(wanted), "{}", checked.stderr);
}

#[test]
fn programs_see_the_end_of_their_input_when_the_server_is_killed() {
    let redis = TestRedis::start();
    let config = shell("t", &together(5), "echo x >> ended", "")
        + &shell("busy", "echo x >> busy; sleep 1", "echo x >> ended", "");
    let mut server = TestServer::builder().redis(&redis).config(&config).start();
    let ids: Vec<u64> = (0..5).map(|_| server.submit("t", json!({}))).collect();
    let pids: BTreeSet<u32> = ids.into_iter().map(|id| pid_of(&server.wait_for_end(id))).collect();
    assert_eq!(pids.len(), 5);
    server.submit("busy", json!({}));
    eventually(LIMIT, "a job runs", || lines_in(&server, "busy") == 1);
    server.kill9();
    eventually(LIMIT, "all programs have ended", || programs_of(&server).is_empty());
    assert_eq!(lines_in(&server, "ended"), 6);
}

#[test]
fn no_program_outlives_the_orderly_end_of_the_server() {
    let redis = TestRedis::start();
    let stubborn = format!("trap '' TERM\nwhile read -r job; do {PID}; done\nwhile :; do sleep 1; done");
    let term = "trap 'echo x >> term; exit' TERM; sleep 1000 & echo x >> busy; wait";
    let config = shell("fine", &together(4), "echo x >> ended", "")
        + &handler("stubborn", &["sh", "-c", &stubborn], "")
        + &shell("busy", term, "", "");
    let mut server = TestServer::builder().redis(&redis).config(&config).flag("drain-timeout", "1s").start();
    let ids: Vec<u64> = (0..4).map(|_| server.submit("fine", json!({}))).collect();
    ids.into_iter().for_each(|id| drop(server.wait_for_end(id)));
    server.complete("stubborn", json!({}));
    let busy = server.submit("busy", json!({}));
    eventually(LIMIT, "a job runs", || lines_in(&server, "busy") == 1);
    assert_eq!(programs_of(&server).len(), 7, "with a sleep of the busy one");
    assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_tail());
    assert_eq!(programs_of(&server), [0; 0]);
    assert_eq!((lines_in(&server, "ended"), lines_in(&server, "term")), (4, 1));

    let server = TestServer::builder().redis(&redis).config(&shell("busy", PID, "", "")).start();
    let job = server.wait_for_status(busy, "completed");
    assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
}

#[test]
fn a_second_signal_ends_programs_at_once() {
    let redis = TestRedis::start();
    let config = handler(
        "stubborn",
        &["sh", "-c", &format!("trap '' TERM\nread -r job; {PID}; while :; do sleep 1; done")],
        "",
    );
    let mut server = TestServer::builder().redis(&redis).config(&config).start();
    server.complete("stubborn", json!({}));
    server.sigterm();
    server.sigterm();
    assert_eq!(server.wait_exit(LIMIT), Some(0), "{}", server.log_tail());
    assert_eq!(programs_of(&server), [0; 0]);
}

#[test]
fn a_timeout_and_a_cancel_end_the_program_and_the_next_job_gets_a_new_one() {
    let redis = TestRedis::start();
    let body = format!(
        "case $job in *hang*) echo so far >&2; echo $$ >> hanging; sleep 1000 & wait;; *) {PID};; esac"
    );
    let server = TestServer::builder().redis(&redis).config(&shell("t", &body, "", "processes = 1")).start();
    let first = pid_of(&server.complete("t", json!({})));
    assert_eq!(pid_of(&server.complete("t", json!({}))), first);
    let late =
        server.submit_job(json!({"type": "t", "payload": "hang", "timeout_ms": 2_000, "max_attempts": 1}));
    let late = server.wait_for_status(late, "failed");
    assert_eq!(late["last_error"], "timed out: so far", "{late:#}");
    let second = pid_of(&server.complete("t", json!({})));
    assert_ne!(second, first);
    let cancelled = server.submit("t", json!("hang"));
    eventually(LIMIT, "it hangs", || lines_in(&server, "hanging") == 2);
    server.act(&format!("/jobs/{cancelled}/cancel")).expect(202);
    server.wait_for_status(cancelled, "cancelled");
    assert_ne!(pid_of(&server.complete("t", json!({}))), second);
    assert!(!signal::is_running(first) && !signal::is_running(second));
}

#[test]
fn a_job_that_waits_for_a_program_neither_times_out_nor_counts_as_silent() {
    let redis = TestRedis::start();
    let config =
        shell("t", &format!("sleep 1; {PID}"), "", "processes = 1\ntimeout = \"5s\"\nsilence = \"4s\"");
    let server = TestServer::builder().redis(&redis).config(&config).start();
    let ids: Vec<u64> = (0..8).map(|_| server.submit_job(json!({"type": "t", "max_attempts": 1}))).collect();
    for id in ids {
        let job = server.wait_for_end(id);
        assert_eq!(job["status"], "completed", "{job:#}");
    }
}

#[test]
fn a_job_that_waits_for_a_program_goes_back_when_the_server_stops() {
    let redis = TestRedis::start();
    let config = shell("t", &format!("echo x >> runs; sleep 3; {PID}"), "", "processes = 1");
    let mut server = TestServer::builder().redis(&redis).config(&config).start();
    let ids: Vec<u64> = (0..2).map(|_| server.submit("t", json!({}))).collect();
    eventually(LIMIT, "one job runs and one waits", || {
        lines_in(&server, "runs") == 1 && ids.iter().all(|id| server.job(*id)["status"] == "processing")
    });
    assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_tail());
    assert_eq!(lines_in(&server, "runs"), 1);
    let server = TestServer::builder().redis(&redis).config(&shell("t", PID, "", "")).start();
    for id in ids {
        let job = server.wait_for_status(id, "completed");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
}

/// The default backoff is the one of programs too, and no attempt is used up while no program may start.
#[test]
fn the_jobs_of_a_program_that_cannot_start_for_a_while_complete() {
    let redis = TestRedis::start();
    let script =
        format!("[ -e good ] || {{ echo no database >&2; exit 1; }}; while read -r job; do {PID}; done");
    let server =
        TestServer::builder().redis(&redis).config(&handler("t", &["sh", "-c", &script], "")).start();
    let id = server.submit("t", json!({}));
    eventually(LIMIT, "two attempts have failed", || server.job(id)["attempts"].as_u64() >= Some(2));
    fs::write(server.dir().join("good"), "").unwrap();
    let job = server.wait_for_status(id, "completed");
    for error in job["errors"].as_array().unwrap() {
        assert_eq!(error["message"], "ended before it answered: exit code 1: no database", "{job:#}");
    }
}

#[test]
fn reports_reach_the_job_and_the_next_attempt_gets_the_checkpoint() {
    let redis = TestRedis::start();
    let body = "case $job in
        *'\"checkpoint\":{\"page\":7}'*) echo '{\"result\": \"from 7\"}';;
        *) echo warning >&2; echo '{\"log\": \"begun\"}'
           echo '{\"progress\": 0.25, \"message\": \"page 7\", \"checkpoint\": {\"page\":7}}'
           echo '{\"error\": \"broken\", \"retry_after_ms\": 1}';; esac";
    let config = shell("t", body, "", "log = \"stderr\"\nbackoff = { base = \"1ms\", cap = \"1ms\" }");
    let server = TestServer::builder().redis(&redis).config(&config).start();
    let id = server.submit("t", json!({}));
    let job = server.wait_for_status(id, "completed");
    assert_eq!((&job["result"], &job["attempts"]), (&json!("from 7"), &json!(2)), "{job:#}");
    assert_eq!((&job["progress"]["value"], &job["progress"]["message"]), (&json!(0.25), &json!("page 7")));
    assert_eq!(job["errors"][0]["message"], "broken", "{job:#}");
    let log = server.get(&format!("/jobs/{id}/log")).expect(200).json();
    let lines: Vec<&str> =
        log["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(
        lines.into_iter().collect::<BTreeSet<&str>>(),
        BTreeSet::from(["begun", "warning"]),
        "{log:#}"
    );
    let line = server.log_text().lines().find(|line| line.contains("stderr: warning")).map(str::to_owned);
    assert!(line.is_some_and(|line| line.contains(&format!("job={id}"))), "{}", server.log_tail());
}

/// Programs that end after a few answers, in different ways, and programs that are replaced after a few jobs.
#[test]
fn every_job_is_answered_once_whatever_its_program_does_after_the_answer() {
    let redis = TestRedis::start();
    let body = |end: &str| format!("echo x >> runs; {PID}; n=$((n + 1)); [ $n -lt 5 ] || {{ {end}; }}");
    let config = shell("exits", &body("exit 0"), "", "processes = 3")
        + &shell("fails", &body("exit 1"), "", "processes = 3")
        + &shell("dies", &body("kill -9 $$"), "", "processes = 3")
        + &shell("closes", &body("exec 0<&-; exec sleep 1000"), "", "processes = 3")
        + &shell("forks", &body("sleep 1000 & exit 0"), "", "processes = 3")
        + &shell("twice", &body("echo '{\"result\": 0}'"), "", "processes = 3")
        + &shell("replaced", &body("true"), "", "processes = 3\nmax_jobs = 4");
    let server = TestServer::builder().redis(&redis).config(&config).flag("workers", "8").start();
    let types = ["exits", "fails", "dies", "closes", "forks", "twice", "replaced"];
    let jobs: Vec<Value> =
        (0..420).map(|n| json!({"type": types[n % types.len()], "max_attempts": 1})).collect();
    for id in server.submit_batch(&jobs) {
        let job = server.wait_for_end(id);
        assert_eq!(job["status"], "completed", "{job:#}");
        assert_ne!(pid_of(&job), 0, "{job:#}");
    }
    assert_eq!(lines_in(&server, "runs"), jobs.len());
}

#[test]
fn programs_cost_one_thread_for_their_type_and_none_when_they_are_gone() {
    let redis = TestRedis::start();
    let config = shell("t", &together(6), "", "idle = \"2s\"");
    let server = TestServer::builder().redis(&redis).config(&config).flag("workers", "6").start();
    let has_thread = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "idle-t").count()
    };
    assert_eq!(has_thread(), 0);
    let ids: Vec<u64> = (0..6).map(|_| server.submit("t", json!({}))).collect();
    let pids: BTreeSet<u32> = ids.into_iter().map(|id| pid_of(&server.wait_for_end(id))).collect();
    assert_eq!(pids.len(), 6);
    assert_eq!(has_thread(), 1);
    eventually(LIMIT, "the programs have ended", || programs_of(&server).is_empty());
    eventually(LIMIT, "their thread has ended", || has_thread() == 0);
    assert_eq!(signal::zombies_of(server.pid()), [0; 0]);
    server.complete("t", json!({}));
}

#[test]
fn a_program_that_waits_costs_the_server_nothing() {
    let redis = TestRedis::start();
    let config = shell("t", PID, "", "idle = \"1h\"");
    let server = TestServer::builder().redis(&redis).config(&config).start();
    let pid = pid_of(&server.complete("t", json!({})));
    let wakeups = || {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().flatten().map(|task| task.path());
        let is_it =
            |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == "idle-t";
        let task = tasks.into_iter().find(is_it).expect("the thread lives");
        let status = fs::read_to_string(task.join("status")).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    // At first the thread looks once a second whether the program goes on waiting.
    let mut last = wakeups();
    eventually(LIMIT, "the thread sleeps", || {
        std::thread::sleep(secs(3));
        let before = std::mem::replace(&mut last, wakeups());
        before == last
    });
    signal::kill9(pid);
    eventually(LIMIT, "the program is reaped", || !signal::zombies_of(server.pid()).contains(&pid));
    eventually(LIMIT, "the death is logged", || {
        server.log_text().contains("ended between two jobs: killed by signal 9")
    });
    assert_ne!(pid_of(&server.complete("t", json!({}))), pid);
}
