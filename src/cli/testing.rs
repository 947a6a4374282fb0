//! Support for tests of the commands: a server that records requests and returns prepared responses, and functions that run
//! a command within the test.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::cli::terminal::console::Console;

/// A request as the server received it.
#[derive(Debug)]
pub(crate) struct Request {
    /// Method and path with query.
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Answers each request with the next prepared response; status 0 closes the connection without a response.
pub(crate) struct FakeServer {
    pub url: String,
    requests: Receiver<Request>,
}

impl FakeServer {
    pub(crate) fn start(answers: &[(u16, &str)]) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let (sender, requests) = channel();
        thread::spawn(move || serve(&listener, answers, &sender));
        FakeServer { url, requests }
    }

    /// A URL at which no server listens.
    pub(crate) fn unused_url() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// The next request that was received.
    pub(crate) fn request(&self) -> Request {
        self.requests.recv_timeout(Duration::from_secs(10)).expect("a request")
    }

    /// Whether `request` has returned every request that was received.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.try_recv().is_err()
    }

    /// Runs a command against this server.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        run_with_env(args, &[("THREADQ_SERVER", &self.url)])
    }

    /// Runs a command against this server with this stdin.
    pub(crate) fn run_with_stdin(&self, args: &[&str], mut stdin: &[u8]) -> Done {
        run_all(args, &[("THREADQ_SERVER", &self.url)], &mut stdin, false)
    }

    /// Runs a command against this server on a terminal whose user types this text.
    pub(crate) fn run_on_terminal_with_stdin(&self, args: &[&str], mut stdin: &[u8]) -> Done {
        run_all(args, &[("THREADQ_SERVER", &self.url)], &mut stdin, true)
    }

    /// Runs a command against this server on a terminal, with this environment.
    pub(crate) fn run_on_terminal(&self, args: &[&str], env: &[(&str, &str)]) -> Done {
        let env = [env, &[("THREADQ_SERVER", &*self.url)]].concat();
        run_all(args, &env, &mut io::empty(), true)
    }
}

fn serve(listener: &TcpListener, mut answers: VecDeque<(u16, String)>, requests: &Sender<Request>) {
    while let Some((status, body)) = answers.pop_front() {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream);
        if requests.send(request).is_err() {
            return;
        }
        if status > 0 {
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} Canned\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .unwrap();
            // Closing before the whole request is read would send a reset, which can overtake the response.
            let _ = stream.shutdown(Shutdown::Write).and_then(|()| io::copy(&mut stream, &mut io::sink()));
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let line = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    let mut request = Request { line, headers, body: String::new() };
    let length = request.header("content-length").map_or(0, |text| text.parse().unwrap());
    reader.take(length).read_to_string(&mut request.body).unwrap();
    request
}

/// The exit code and the output of a command.
#[derive(Debug)]
pub(crate) struct Done {
    pub code: u8,
    pub out: String,
    pub err: String,
}

/// Runs a command without a server.
pub(crate) fn run(args: &[&str]) -> Done {
    run_with_env(args, &[])
}

/// Runs a command with only these environment variables, without a terminal.
pub(crate) fn run_with_env(args: &[&str], env: &[(&str, &str)]) -> Done {
    run_all(args, env, &mut io::empty(), false)
}

/// Runs a command with this stdout; returns the exit code and stderr.
pub(crate) fn run_into(args: &[&str], url: &str, out: &mut dyn Write) -> (u8, String) {
    let mut err = Vec::new();
    let env = |name: &str| (name == "THREADQ_SERVER").then(|| url.to_owned());
    let mut console = Console {
        stdin: &mut io::empty(),
        out,
        err: &mut err,
        env: &env,
        stdin_is_terminal: false,
        out_is_terminal: false,
        err_is_terminal: false,
        has_bar: false,
    };
    let code = super::run_in(lexopt::Parser::from_args(args), &mut console);
    (code_of(code), String::from_utf8(err).unwrap())
}

/// Runs a command; a terminal has 80 columns.
fn run_all(args: &[&str], env: &[(&str, &str)], stdin: &mut dyn Read, is_terminal: bool) -> Done {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let env = |name: &str| {
        let known = env.iter().chain(&[("COLUMNS", "80")]).find(|(known, _)| *known == name);
        known.map(|(_, value)| (*value).to_owned())
    };
    let mut console = Console {
        stdin,
        out: &mut out,
        err: &mut err,
        env: &env,
        stdin_is_terminal: is_terminal,
        out_is_terminal: is_terminal,
        err_is_terminal: is_terminal,
        has_bar: false,
    };
    let code = code_of(super::run_in(lexopt::Parser::from_args(args), &mut console));
    Done { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// The number of an `ExitCode`, which has no accessor.
fn code_of(code: std::process::ExitCode) -> u8 {
    (0..=u8::MAX).find(|&number| std::process::ExitCode::from(number) == code).expect("an exit code")
}

/// A job as the API returns it, with every field; a job that did not complete has an error of two lines.
pub(crate) fn job(id: u64, status: &str) -> String {
    let error = if status == "completed" { "null" } else { r#""disk\nfull""# };
    format!(
        r#"{{"id": {id}, "type": "Encode Video", "queue": "default", "status": "{status}",
        "payload": {{"n": 1.00000000000000000000000000001}}, "attempts": 1, "max_attempts": 5, "crashes": 0,
        "timeout_ms": 300000, "created_at": "2026-11-24T08:00:00.000Z", "scheduled_at": null,
        "started_at": "2026-11-24T08:00:01.000Z", "finished_at": "2026-11-24T08:00:02.500Z",
        "last_error": {error}, "errors": [{{"attempt": 1, "at": "2026-11-24T08:00:02.000Z", "message": "disk\nfull"}}],
        "result": null, "unique_key": null, "server": "host-1-ab"}}"#
    )
}
