//! The example programs, run against real servers: those in Rust, and those in other languages that submit by HTTP.
//! `script/setup` installs the languages.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use crate::common::*;

/// The program of an example in Rust, built from its present source.
fn rust_example(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    BUILT.call_once(|| {
        // `cargo test` has built them already; `cargo test --test examples` has not.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--examples"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        // Remove the variables that cargo sets for a test: with them cargo would run build scripts of dependencies
        // again.
        let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
            build.env_remove(name);
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the examples are built");
    });
    profile.join("examples").join(name)
}

/// An example server; killed when it is dropped.
struct Embedded {
    child: Child,
    url: String,
    _dir: TempDir,
}

impl Embedded {
    fn start(redis: &TestRedis) -> Embedded {
        let dir = TempDir::new();
        let mut child = Command::new(rust_example("embedded_server"))
            .args(["--listen", "127.0.0.1:0", "--redis-url", &redis.url()])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("threadq listening on ").unwrap_or_default().to_owned();
        let server = Embedded { child, url, _dir: dir };
        assert!(server.url.starts_with("http://127.0.0.1:"), "{line:?}");
        server
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_client_in_rust_gets_everything_done_by_the_server_in_rust() {
    let redis = TestRedis::start();
    let mut server = Embedded::start(&redis);
    let mut client = Command::new(rust_example("submit_and_wait"));
    client.arg(&server.url).env_remove("THREADQ_API_TOKEN");
    let done = crate::common::server::finish(client);
    let expected = "\
Hello, Ada!
Ada owes 1749 cents
no invoice: failed, an order without items
Cy owes 100 cents
duplicate of the first job: true
the first job is cancelled
";
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), expected), "{}", done.stderr);
    signal::term(server.child.id());
    let mut status = None;
    eventually(LIMIT, "it stops by a signal", || {
        status = server.child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{status:?}");
}

#[test]
fn clients_in_other_languages_submit_and_wait() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).env("THREADQ_API_TOKEN", "s3cret").start();
    for (program, script) in [("python3", "submit.py"), ("node", "submit.mjs"), ("sh", "submit.sh")] {
        let run = |kind: &str, payload: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/submit");
            let mut command = Command::new(program);
            command.arg(folder.join(script)).args([kind, payload]);
            command
                .env("THREADQ_SERVER", format!("http://{}", server.addr()))
                .env("THREADQ_API_TOKEN", "s3cret");
            crate::common::server::finish(command)
        };
        let done = run("echo", r#"{"n":[1,"ü"]}"#);
        let words: Vec<&str> = done.stdout.trim_end().splitn(3, ' ').collect();
        assert_eq!((done.code, words.len()), (Some(0), 3), "{script}: {done:?}");
        let api = server.with_token("s3cret");
        assert_eq!(api.job(words[0].parse().unwrap())["status"], "completed", "{script}");
        assert_eq!(words[1], "completed", "{script}");
        let result: Value = serde_json::from_str(words[2]).unwrap();
        assert_eq!(result, json!({"n": [1, "ü"]}), "{script}");

        let done = run("fail", r#"{"permanent":true}"#);
        assert_eq!(done.code, Some(1), "{script}: {done:?}");
        assert!(done.stdout.contains(" failed null"), "{script}: {done:?}");
    }
}
