//! `threadq top`: shows counts, throughput, queues and servers in a terminal, updated every second.
//!
//! Three threads send events to the main thread, which draws: one polls the server, one reads keys, one handles signals. So a
//! server that does not respond delays neither the end of the program nor the reset of the terminal.

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::args::{Args, Command, Flag, Run};
use crate::cli::client::Client;
use crate::cli::commands::stats::{write_queues, write_servers};
use crate::cli::error::Error;
use crate::cli::responses::Stats;
use crate::cli::terminal::console::{Console, terminal_size};
use crate::cli::terminal::style::of_status;
use crate::cli::terminal::table::{Column, full};
use crate::job::Status;

/// The time between two frames.
const FRAME_INTERVAL: Duration = Duration::from_secs(1);
/// Switches to the alternate screen, without cursor and without line wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// Switches back to the normal screen.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// The byte of Ctrl-C in raw mode.
const CTRL_C: u8 = 3;

pub(crate) static TOP: Command = Command {
    name: "top",
    operands: "",
    about: "Shows jobs, throughput, queues and servers, updated every second. q or Ctrl-C quits.\n\
            The throughput is that of one server, the one at --server; everything else covers all servers.",
    flags: &[
        Flag {
            name: "once",
            value: "",
            help: "print one frame and exit; takes 1 s to measure the throughput",
        },
        Flag {
            name: "json",
            value: "",
            help: "print the JSON of the server (as stats --json) every second, one line each",
        },
    ],
    examples: &["top", "top --once"],
    run: Run::Client(top),
};

/// An event for the thread that draws.
enum Event {
    Sample(Result<Sample, Error>),
    End,
}

/// The state of the server at one time.
struct Sample {
    at: Instant,
    /// The response to GET /stats.
    body: String,
    stats: Stats,
    /// The counters of this server since its start; `None` if GET /metrics failed.
    counters: Option<Counters>,
}

/// Counters of one server.
#[derive(Clone, Copy, Default)]
struct Counters {
    submitted: f64,
    completed: f64,
    failed: f64,
}

fn top(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    args.no_operands()?;
    let json = args.has("json");
    let first = sample(client)?;
    if args.has("once") {
        if json {
            console.json(&first.body)?;
        } else {
            thread::sleep(FRAME_INTERVAL);
            let second = sample(client)?;
            let text = frame(client, &second, Some(&first), console)?;
            console.out.write_all(&text)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (sender, events) = channel();
    handle_signals(sender.clone())?;
    let is_screen = console.has_sequences() && !json;
    // The terminal is reset when this is dropped.
    let _keys = if is_screen { Keyboard::read(sender.clone()) } else { None };
    poll(client.clone(), sender);
    if is_screen {
        write!(console.out, "{ENTER}")?;
    }
    let shown = draw_until_quit(client, first, &events, is_screen, json, console);
    if is_screen {
        write!(console.out, "{LEAVE}").and_then(|()| console.out.flush())?;
    }
    shown.map(|()| ExitCode::SUCCESS)
}

/// Draws each sample until the user quits, a signal arrives or an error is permanent.
fn draw_until_quit(
    client: &Client,
    first: Sample,
    events: &Receiver<Event>,
    is_screen: bool,
    json: bool,
    console: &mut Console,
) -> Result<(), Error> {
    let mut before = None;
    let mut now = first;
    let mut problem = String::new();
    loop {
        if json {
            console.json(&now.body)?;
        } else {
            let text = frame(client, &now, before.as_ref(), console)?;
            if is_screen { draw(&text, &problem, console)? } else { print(&text, console)? }
        }
        console.out.flush()?;
        // The senders live as long as the process.
        match events.recv().unwrap_or(Event::End) {
            Event::End => return Ok(()),
            Event::Sample(Ok(sample)) => {
                before = Some(std::mem::replace(&mut now, sample));
                problem.clear();
            }
            Event::Sample(Err(error)) if !error.is_transient() => return Err(error),
            Event::Sample(Err(error)) if is_screen => problem = format!("{error}; retrying"),
            Event::Sample(Err(error)) => console.note(&format!("{error}; retrying")),
        }
    }
}

/// Polls the server until the receiver is dropped.
fn poll(client: Client, sender: Sender<Event>) {
    thread::spawn(move || {
        loop {
            thread::sleep(FRAME_INTERVAL);
            if sender.send(Event::Sample(sample(&client))).is_err() {
                return;
            }
        }
    });
}

fn sample(client: &Client) -> Result<Sample, Error> {
    let counters = client.get("/metrics").ok().map(|response| counters(&response.body));
    let response = client.get("/stats")?;
    Ok(Sample { at: Instant::now(), stats: response.parse()?, body: response.body, counters })
}

/// The counters in the Prometheus text, summed over all job types.
fn counters(text: &str) -> Counters {
    let sum = |name: &str| {
        let of_types =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
        of_types.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    Counters {
        submitted: sum("threadq_jobs_submitted_total"),
        completed: sum("threadq_jobs_completed_total"),
        failed: sum("threadq_jobs_failed_total"),
    }
}

/// Quits on the signals that would end the process.
fn handle_signals(sender: Sender<Event>) -> Result<(), Error> {
    let handler = move || drop(sender.send(Event::End));
    ctrlc::set_handler(handler)
        .map_err(|error| Error::Failed(format!("cannot set the signal handler: {error}")))
}

/// The keyboard in raw mode. Dropping this resets the terminal.
struct Keyboard {
    before: Termios,
}

impl Keyboard {
    /// Sends `End` when q or Ctrl-C is pressed. `None` if stdin is not a terminal.
    fn read(sender: Sender<Event>) -> Option<Keyboard> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok().filter(|_| stdin.is_terminal())?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        thread::spawn(move || {
            let is_end = |byte: &io::Result<u8>| matches!(byte, Ok(b'q' | b'Q' | CTRL_C) | Err(_));
            // The bytes end when the terminal is closed.
            let _ = stdin.lock().bytes().find(is_end);
            let _ = sender.send(Event::End);
        });
        Some(Keyboard { before })
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The text of one frame.
fn frame(
    client: &Client,
    now: &Sample,
    before: Option<&Sample>,
    console: &mut Console,
) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut console = console.writing_to(&mut text);
    writeln!(console.out, "threadq at {}\n", client.base())?;
    write_counts(&now.stats, &mut console)?;
    writeln!(console.out)?;
    write_throughput(now, before, &mut console)?;
    writeln!(console.out)?;
    write_queues(&now.stats.queues, &mut console)?;
    writeln!(console.out)?;
    write_servers(&now.stats.servers, &mut console)?;
    Ok(text)
}

fn write_counts(stats: &Stats, console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 3] = [full("STATUS").styled(of_status), full("JOBS"), full("SHARE")];
    let count = |status: Status| stats.counts.get(status.as_str()).copied().unwrap_or(0);
    let all: u64 = Status::ALL.into_iter().map(count).sum();
    let rows = Status::ALL.map(|status| {
        let number = count(status);
        let share = (number * 100).checked_div(all).map(|share| format!("{share} %"));
        [status.to_string(), number.to_string(), share.unwrap_or_default()]
    });
    console.table(&COLUMNS, &rows)
}

fn write_throughput(now: &Sample, before: Option<&Sample>, console: &mut Console) -> io::Result<()> {
    let seconds = before.map(|before| now.at.duration_since(before.at).as_secs_f64());
    let counters = before.and_then(|before| before.counters).zip(now.counters);
    let rate = |of: fn(Counters) -> f64| match (seconds, counters) {
        // The counters of a restarted server begin at 0.
        (Some(seconds), Some((before, now))) if seconds > 0.0 => {
            format!("{:.1}/s", (of(now) - of(before)).max(0.0) / seconds)
        }
        _ => "-".to_owned(),
    };
    writeln!(
        console.out,
        "this server: submitted {}  completed {}  failed {}",
        rate(|counters| counters.submitted),
        rate(|counters| counters.completed),
        rate(|counters| counters.failed)
    )
}

/// Draws a frame over the previous frame. Lines that do not fit the screen are left out.
fn draw(frame: &[u8], problem: &str, console: &mut Console) -> io::Result<()> {
    let rows = terminal_size().map_or(24, |(_, rows)| rows).max(2);
    let frame = String::from_utf8_lossy(frame);
    let last = if problem.is_empty() { "q quits" } else { problem };
    let mut screen = "\x1b[H".to_owned();
    for line in frame.lines().take(rows - 1) {
        screen.push_str(line);
        screen.push_str("\x1b[K\r\n");
    }
    screen.push_str(&format!("\x1b[J{last}"));
    console.out.write_all(screen.as_bytes())
}

/// Prints a frame below the previous frame.
fn print(frame: &[u8], console: &mut Console) -> io::Result<()> {
    console.out.write_all(frame)?;
    writeln!(console.out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeServer;

    const STATS: &str = r#"{"counts": {"queued": 3, "failed": 1},
        "queues": [{"name": "default", "queued": 3, "paused": true, "oldest_ms": 185000}],
        "servers": [{"id": "host-1-ab", "started_at": "2026-11-24T08:00:00.000Z", "workers": 30, "busy": 2, "beat_age_ms": 850}]}"#;

    #[test]
    fn one_frame_shows_counts_throughput_queues_and_servers() {
        let metrics = "# HELP x\nthreadq_jobs_completed_total{type=\"a b\"} 1000\n";
        let later =
            "threadq_jobs_completed_total{type=\"a b\"} 6000\nthreadq_jobs_completed_total{type=\"c\"} 1\n";
        let server = FakeServer::start(&[(200, metrics), (200, STATS), (200, later), (200, STATS)]);
        let done = server.run(&["top", "--once"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        for text in [
            format!("threadq at {}\n", server.url),
            "queued      3     75 %\n".to_owned(),
            "default  3       paused  3 min 5 s\n".to_owned(),
            "host-1-ab  2/30  ".to_owned(),
        ] {
            assert!(done.out.contains(&text), "{text}: {}", done.out);
        }
        // 5,001 in a second, or in a few on a slow machine.
        let rate = done.out.split("completed ").nth(2).and_then(|rest| rest.split("/s").next()).unwrap();
        let rate: f64 = rate.parse().unwrap_or_else(|_| panic!("{rate}: {}", done.out));
        assert!(rate > 50.0 && rate <= 5001.0, "{rate}");
        assert!(!done.out.contains('\x1b'));
    }

    #[test]
    fn one_frame_as_json_is_the_response_of_the_server() {
        let server = FakeServer::start(&[(404, "{}"), (200, STATS)]);
        let done = server.run(&["top", "--once", "--json"]);
        assert_eq!((done.code, done.out.lines().count()), (0, 1));
        assert!(done.out.starts_with(r#"{"counts": {"queued": 3,"#), "{}", done.out);
    }

    #[test]
    fn counters_are_summed_over_job_types() {
        let text = "threadq_jobs_failed_total{type=\"a\"} 2\nthreadq_jobs_failed_total{type=\"b 9\"} 3\n\
                    threadq_jobs_failed_total_else{type=\"a\"} 50\n";
        assert_eq!(counters(text).failed, 5.0);
        assert_eq!(counters(text).completed, 0.0);
    }
}
