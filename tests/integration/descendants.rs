//! Processes that a handler's program starts: they end with the program when it is stopped, in whatever process group
//! or session they are, and leave no zombie.

use crate::common::*;

use std::process::Command;

fn exec(name: &str, words: &[&str]) -> String {
    format!("[handlers.{name}]\nexec = {}\n", json!(words))
}

/// The processes with the server's working directory, except the server.
fn programs_of(server: &TestServer) -> Vec<u32> {
    let mut found = signal::working_in(server.dir().path());
    found.retain(|pid| *pid != server.pid());
    found
}

/// Programs that start others: name, number of processes in the folder once all have started, and command.
const FAMILIES: [(&str, usize, &[&str]); 8] = [
    ("plain", 1, &["sleep", "1000"]),
    // `timeout` makes a new process group.
    ("timeout", 2, &["timeout", "997", "sleep", "996"]),
    ("session", 2, &["sh", "-c", "setsid sleep 1000 & wait"]),
    ("timeouts", 5, &["sh", "-c", "timeout 997 sleep 996 & timeout 997 sleep 996 & wait"]),
    // The parent of the process in the other session has ended.
    ("daemon", 2, &["sh", "-c", "(setsid sleep 1000 &); exec sleep 1000"]),
    ("grandchild", 3, &["sh", "-c", "(setsid sh -c 'sleep 1000; true' &); exec sleep 1000"]),
    ("no-environment", 2, &["sh", "-c", "env -i setsid sleep 1000 & wait"]),
    // The inner shell ignores SIGTERM, and its parent does not wait for it.
    (
        "stubborn",
        3,
        &["sh", "-c", "setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & exec sleep 1000"],
    ),
];

fn families() -> String {
    FAMILIES.iter().map(|(name, _, words)| exec(name, words)).collect()
}

#[test]
fn a_cancelled_program_ends_with_all_that_it_started() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(&families()).start();
    for (name, size, _) in FAMILIES {
        let id = server.submit(name, json!({}));
        eventually(LIMIT, name, || programs_of(&server).len() == size);
        server.act(&format!("/jobs/{id}/cancel")).expect(202);
        server.wait_for_status(id, "cancelled");
        eventually(LIMIT, name, || programs_of(&server).is_empty());
    }
}

#[test]
fn a_program_that_times_out_or_is_shut_down_ends_with_all_that_it_started() {
    let redis = TestRedis::start();
    let mut server =
        TestServer::builder().redis(&redis).config(&families()).flag("drain-timeout", "100ms").start();
    for (name, _, _) in FAMILIES {
        server.submit_job(json!({"type": name, "timeout_ms": 3000, "max_attempts": 1}));
    }
    for (name, _, _) in FAMILIES {
        eventually(LIMIT, name, || server.count("failed") == FAMILIES.len() as u64);
    }
    eventually(LIMIT, "nothing is left", || programs_of(&server).is_empty());
    for (name, _, _) in FAMILIES {
        server.submit(name, json!({}));
    }
    let all: usize = FAMILIES.iter().map(|(_, size, _)| size).sum();
    eventually(LIMIT, "all have started", || programs_of(&server).len() >= all);
    assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_tail());
    eventually(LIMIT, "nothing is left", || programs_of(&server).is_empty());
}

#[test]
fn what_a_program_leaves_in_another_session_when_it_ends_by_itself_goes_on() {
    let redis = TestRedis::start();
    let script = "(setsid sh -c 'echo x > begun; exec sleep 1000' > /dev/null 2>&1 &); \
                  until [ -e begun ]; do sleep 0.05; done; echo done";
    let config = exec("leaves", &["sh", "-c", script]);
    let server = TestServer::builder().redis(&redis).config(&config).start();
    assert_eq!(server.complete("leaves", json!({}))["result"], "done");
    eventually(LIMIT, "it has started", || programs_of(&server).len() == 1);
    holds_for(secs(1), "it runs on", || programs_of(&server).len() == 1);
    programs_of(&server).into_iter().for_each(signal::kill9);
}

/// A program that leaves orphans in new sessions: they end a moment after the program, and only the server may reap
/// them.
fn orphans() -> String {
    // A child that has not left the process group yet would end with the program.
    let leave = "(setsid sh -c 'echo x >> begun; sleep 0.3; echo x >> ended' > /dev/null 2>&1 &); sleep 0.1";
    exec("leaves", &["sh", "-c", &format!("{leave}; {leave}; echo done")])
        + &exec("fails", &["sh", "-c", &format!("{leave}; exit 65")])
        + &exec("killed", &["sh", "-c", "kill -34 $$"])
}

fn assert_orphans_are_reaped(server: &TestServer, server_pid: u32) {
    let mut jobs = vec![json!({"type": "leaves"}); 60];
    jobs.extend(vec![json!({"type": "fails"}); 60]);
    jobs.push(json!({"type": "killed", "max_attempts": 1}));
    let ids = server.submit_batch(&jobs);
    for (id, job) in ids.iter().zip(&jobs) {
        let ended = server.wait_for_end(*id);
        match job["type"].as_str().expect("text") {
            "leaves" => assert_eq!(ended["result"], "done", "{ended:#}"),
            "fails" => assert_eq!(ended["last_error"], "exit code 65", "{ended:#}"),
            _ => assert_eq!(ended["last_error"], "killed by signal 34", "{ended:#}"),
        }
    }
    let lines = |file: &str| server.dir().read(file).lines().count();
    eventually(LIMIT, "many have outlived their parents", || lines("begun") > 90);
    eventually(LIMIT, "all orphans have ended", || lines("ended") == lines("begun"));
    eventually(LIMIT, "no zombie is left", || signal::zombies_of(server_pid).is_empty());
}

#[test]
fn orphans_are_reaped() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(&orphans()).start();
    assert_orphans_are_reaped(&server, server.pid());
}

#[test]
fn as_process_1_the_server_reaps_what_it_inherits() {
    let allowed = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not make a pid namespace: {allowed:?}");
        return;
    }
    let redis = TestRedis::start();
    // Without --mount-proc /proc shows the pids of another namespace.
    for words in [&["unshare", "--pid", "--fork", "--mount-proc"][..], &["unshare", "--pid", "--fork"]] {
        let mut server =
            TestServer::builder().redis(&redis).config(&orphans()).under(words.iter().copied()).start();
        let inside = signal::children_of(server.pid());
        assert_eq!(inside.len(), 1, "{inside:?}");
        assert_orphans_are_reaped(&server, inside[0]);
        signal::term(inside[0]);
        assert_eq!(server.wait_exit(LIMIT), Some(0), "{}", server.log_tail());
    }
}
