//! The command line in a real pseudo-terminal, made by `script` of util-linux.

use crate::common::*;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A program in a terminal of 60 columns and 24 rows.
struct Terminal {
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
    /// The working directory of the child.
    _dir: TempDir,
}

impl Terminal {
    /// Runs this shell script; `threadq` in the script is the program, with this server as its target.
    fn run(server: &TestServer, shell: &str) -> Terminal {
        let dir = TempDir::new();
        let program = env!("CARGO_BIN_EXE_threadq");
        let shell = format!("stty cols 60 rows 24; threadq() {{ {program} \"$@\"; }}; {shell}");
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &shell, "/dev/null"])
            .current_dir(dir.path())
            .env_remove("COLUMNS")
            .env_remove("NO_COLOR")
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env("THREADQ_SERVER", format!("http://{}", server.addr()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script of util-linux is on PATH");
        let mut output = child.stdout.take().expect("piped");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let copy = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = output.read(&mut bytes)
                && length > 0
            {
                copy.lock().expect("not poisoned").extend_from_slice(&bytes[..length]);
            }
        });
        Terminal { child, screen, _dir: dir }
    }

    /// Everything that was written to the terminal so far.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("not poisoned")).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        eventually(LIMIT, &format!("{text:?} in {:?}", self.text()), || self.text().contains(text));
    }

    fn press(&mut self, keys: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(keys).and_then(|()| stdin.flush()).expect("the terminal takes keys");
    }

    /// Waits until the script ends; returns everything that was written to the terminal.
    #[track_caller]
    fn finish(mut self) -> String {
        let mut status = None;
        eventually(LIMIT, "the program in the terminal ends", || {
            status = self.child.try_wait().expect("can be waited for");
            status.is_some()
        });
        // The last bytes may not have been read yet.
        eventually(LIMIT, "the shell has said that it is done", || self.text().contains("done="));
        self.text()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

#[test]
fn top_uses_the_alternate_screen_and_resets_the_terminal() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    for key in [&b"q"[..], b"\x03"] {
        let shell = "before=$(stty -g); threadq top; code=$?; [ \"$(stty -g)\" = \"$before\" ] && same=yes; echo done=$code,$same";
        let mut terminal = Terminal::run(&server, shell);
        terminal.wait_for("\x1b[?1049h");
        terminal.wait_for("LAST HEARTBEAT");
        // The next frame is drawn without a key.
        let id = server.submit("echo", json!(1));
        server.wait_for_status(id, "completed");
        eventually(LIMIT, "a second frame", || terminal.text().matches("LAST HEARTBEAT").count() > 1);
        terminal.press(key);
        let text = terminal.finish();
        assert!(text.contains(LEAVE) && text.contains("done=0,yes"), "{key:?}: {text:?}");
    }
}

#[test]
fn top_survives_its_server_and_a_signal_resets_the_terminal() {
    let redis = TestRedis::start();
    let mut server = TestServer::start(&redis);
    let shell = format!(
        "before=$(stty -g); sh -c 'echo pid=$$; exec {} top'; [ \"$(stty -g)\" = \"$before\" ] && same=yes; echo done=$same",
        env!("CARGO_BIN_EXE_threadq")
    );
    let terminal = Terminal::run(&server, &shell);
    terminal.wait_for("LAST HEARTBEAT");
    server.kill9();
    terminal.wait_for("retrying");
    let text = terminal.text();
    let pid = text.split("pid=").nth(1).and_then(|rest| rest.split(['\r', '\n']).next()).unwrap();
    crate::common::signal::term(pid.parse().unwrap());
    let text = terminal.finish();
    assert!(text.contains(LEAVE) && text.contains("done=yes"), "{text:?}");
}

#[test]
fn top_in_a_pipe_prints_frames_and_ends_with_its_reader() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let shell = "threadq top </dev/null | head -n 60 >frames; grep -c LAST frames; od -c frames | grep -c 033; echo done=";
    let text = Terminal::run(&server, shell).finish();
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] > 1 && numbers[1] == 0, "{text:?}");
}

#[test]
fn tables_fit_the_terminal_in_colours_and_are_full_and_plain_in_a_pipe() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let kind = "x".repeat(90);
    let id = server.submit_job(json!({"type": kind, "max_attempts": 1}));
    server.wait_for_status(id, "failed");
    let shell = "threadq jobs; echo ====; NO_COLOR=1 threadq jobs; echo ====; threadq jobs | cat; echo done=";
    let text = Terminal::run(&server, shell).finish();
    let parts: Vec<&str> = text.split("====").collect();
    assert!(parts[0].contains("\x1b[31mfailed\x1b[0m"), "{text:?}");
    for plain in &parts[1..] {
        assert!(plain.contains("failed") && !plain.contains('\x1b'), "{text:?}");
    }
    let line = parts[1].lines().find(|line| line.contains("failed")).unwrap();
    assert!(line.contains('…') && line.trim_end().chars().count() <= 60, "{line:?}");
    assert!(parts[2].contains(&kind), "{text:?}");
}

#[test]
fn waiting_for_a_job_prints_its_result_on_a_terminal_and_its_id_in_a_pipe() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let shell = "threadq enqueue echo --payload '{\"n\": 1.50}' --wait; echo ====; \
                 threadq enqueue echo --payload '{\"n\": 1.50}' --wait | cat; echo done=";
    let text = Terminal::run(&server, shell).finish();
    let parts: Vec<&str> = text.split("====").collect();
    assert!(parts[0].contains("completed after ") && parts[0].contains("attempts 1 of 5"), "{text:?}");
    assert!(parts[0].contains("result: {\"n\": 1.50}"), "{text:?}");
    assert!(!parts[1].contains("completed") && !parts[1].contains("result"), "{text:?}");
}

#[test]
fn a_job_that_no_server_can_run_is_stored_with_a_warning() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let shell = "threadq enqueue ecoh --queue emial 2>&1 >ids; cat ids; echo ====; threadq enqueue echo; echo ====; \
                 echo '{\"type\": \"ecoh\"}' >jobs; threadq enqueue --file jobs; echo done=";
    let text = Terminal::run(&server, shell).finish();
    let parts: Vec<&str> = text.split("====").collect();
    assert!(parts[0].contains("is stored, but no server takes jobs from its queue"), "{text:?}");
    assert!(!parts[0].contains("has no handler"), "a pull worker may run jobs of any type: {text:?}");
    assert!(!parts[1].contains("but"), "{text:?}");
    assert!(
        parts[2].contains("all jobs are stored, but the server has no handler for at least one type"),
        "{text:?}"
    );
    let id = parts[0].lines().rev().find_map(|line| line.trim().parse::<u64>().ok()).expect("its id");
    assert_eq!(server.job(id)["status"], "queued");

    // No warning if another server takes jobs from the queue: that server may have the handler.
    let _other = TestServer::builder().redis(&redis).flag("queues", "emial").start();
    let text = Terminal::run(&server, "threadq enqueue ecoh --queue emial; echo done=").finish();
    assert!(!text.contains("but"), "{text:?}");
}

#[test]
fn a_file_of_jobs_is_submitted_with_a_bar_and_dead_letters_are_retried() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let shell = "for i in $(seq 2500); do echo '{\"type\": \"fail\", \"max_attempts\": 1, \"payload\": {\"permanent\": true}}'; done >jobs; \
                 threadq enqueue --file jobs --idempotency-key k; threadq enqueue --file jobs --idempotency-key k | wc -l; echo done=";
    let text = Terminal::run(&server, shell).finish();
    assert!(text.contains("submitting [") && text.contains("100 %  2500 jobs"), "{text:?}");
    assert!(text.contains("submitted 2500 jobs\r\n"), "{text:?}");
    assert!(text.lines().any(|line| line.trim().rsplit('K').next() == Some("2500")), "{text:?}");
    let dead = || server.get("/dlq?limit=1").expect(200).json()["total"].as_u64();
    // The repeated command has submitted no job.
    eventually(LIMIT, "all are dead letters", || dead() == Some(2500));
    let text = Terminal::run(&server, "threadq dlq purge; threadq dlq purge --json; echo done=").finish();
    assert!(text.contains("deleted 2500 jobs\r\n") && text.contains("{\"deleted\""), "{text:?}");
    assert_eq!(dead(), Some(0));
}
