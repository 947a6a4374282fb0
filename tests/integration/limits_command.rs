//! The command line about limits, with a real server.

use crate::common::server::{finish, program};
use crate::common::*;

const CONFIG: &str = r#"
[limits.smtp]
rate = "1/h"

[limits.tenant]
concurrency = 2
rate = "1000/s"
burst = 20

[handlers.mail]
exec = ["sleep", "600"]
limited_by = ["smtp"]

[handlers."Encode Video"]
exec = ["true"]
concurrency = 5
"#;

fn threadq(server: &TestServer, args: &[&str]) -> Finished {
    let dir = TempDir::new();
    let mut command = program(&dir);
    command.args(args).args(["--server", &format!("http://{}", server.addr())]);
    finish(command)
}

/// The lines of the output of a command that succeeds, each as its words.
#[track_caller]
fn words(server: &TestServer, args: &[&str]) -> Vec<String> {
    let done = threadq(server, args);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{args:?}");
    done.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn limits_are_listed_shown_set_and_unset() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(CONFIG).start();
    let enqueue = |limits: &[&str]| -> u64 {
        let args = limits
            .iter()
            .fold(vec!["enqueue", "mail"], |args, limit| [&args[..], &["--limit", limit]].concat());
        words(&server, &args)[0].parse().expect("an id")
    };
    let running = enqueue(&["tenant:7"]);
    server.wait_for_status(running, "processing");
    let waiting = [enqueue(&["tenant:7", "smtp"]), enqueue(&["tenant:a b"])];
    for id in waiting {
        server.wait_for(id, LIMIT, "waits", |job| job["blocked_by"]["limit"] == "smtp");
    }

    let list = words(&server, &["limits"]);
    assert_eq!(list[0], "LIMIT RUNNING RATE WAITING OPENS (UTC) SOURCE");
    assert!(list[1].starts_with("smtp 1/h 2 20") && list[1].ends_with(" config"), "{list:?}");
    assert!(list.contains(&"threadq.type:Encode Video 0/5 0 config".to_owned()), "{list:?}");
    assert_eq!(words(&server, &["queues"])[0], "QUEUE QUEUED HELD STATE OLDEST");
    assert_eq!(words(&server, &["queues"])[1], "default 2 2 running");
    let shown = words(&server, &["show", &waiting[0].to_string()]);
    for line in ["blocked by limit smtp", "limits tenant:7, smtp"] {
        assert!(shown.contains(&line.to_owned()), "{shown:?}");
    }
    let why = shown.iter().find(|line| line.starts_with("why ")).expect("a reason");
    assert!(why.contains("smtp"), "{why}");

    let shown = words(&server, &["limits", "show", "smtp", "--limit", "1", "--page", "2"]);
    assert_eq!(shown[..3], ["limit smtp", "source config", "rate 1/h"]);
    assert!(shown.contains(&"waiting 2".to_owned()), "{shown:?}");
    assert!(
        shown[shown.len() - 2].starts_with(&waiting[1].to_string()),
        "the second one in their order: {shown:?}"
    );
    assert_eq!(shown[shown.len() - 1], "2 jobs, page 2 of 2");
    let shown = words(&server, &["limits", "show", "tenant:7"]);
    assert_eq!(shown[..4], ["limit tenant:7", "source config", "concurrency 2", "rate 1000/s, burst 20"]);
    assert_eq!(shown[4], "running 2", "the job that waits for smtp keeps its slot: {shown:?}");

    assert_eq!(words(&server, &["limits", "set", "smtp", "--rate", "1000/s"]), ["the limit smtp is set"]);
    for id in waiting {
        server.wait_for_status(id, "processing");
    }
    assert_eq!(words(&server, &["limits", "show", "smtp"])[1], "source config, overridden");
    assert_eq!(words(&server, &["limits", "unset", "smtp"]), ["the limit smtp is unset"]);
    assert_eq!(words(&server, &["limits", "show", "smtp"])[2], "rate 1/h");

    let set = words(&server, &["limits", "set", "tenant:a b", "--concurrency", "9", "--json"]);
    let set: Value = serde_json::from_str(&set[0]).expect("JSON");
    assert_eq!(
        (&set["key"], &set["concurrency"], &set["overridden"]),
        (&json!("a b"), &json!(9), &json!(true))
    );
    assert_eq!(words(&server, &["limits", "show", "tenant:a b"])[2], "concurrency 9");
    let shown = words(&server, &["limits", "show", "tenant"]);
    assert_eq!(shown[shown.len() - 2..], ["KEY RUNNING WAITING CONCURRENCY", "a b 1 0 9"]);
    assert_eq!(words(&server, &["limits", "unset", "tenant:a b"]), ["the limit tenant:a b is unset"]);
    assert_eq!(words(&server, &["limits", "show", "tenant:a b"])[2], "concurrency 2");
}

#[test]
fn what_the_server_refuses_is_said_with_its_code() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(CONFIG).start();
    for (args, expected) in [
        (&["limits", "show", "nope"][..], "(not_found)"),
        (&["limits", "unset", "nope"], "(not_found)"),
        (&["limits", "unset", "smtp"], "(managed_by_config)"),
        (&["limits", "set", "nope:7", "--rate", "1/s"], "(not_found)"),
        (&["limits", "set", "threadq.x", "--rate", "1/s"], "(invalid_limit)"),
        (&["enqueue", "mail", "--limit", "nope"], "there is no limit \"nope\""),
        (&["enqueue", "mail", "--limit", "threadq.type:mail"], "(invalid_job)"),
    ] {
        let done = threadq(&server, args);
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(
            done.stderr.contains(expected) && done.stderr.lines().count() == 1,
            "{args:?}: {}",
            done.stderr
        );
    }
    assert_eq!(server.total(""), 0);
}
