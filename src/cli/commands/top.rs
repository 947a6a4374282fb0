//! `threadq top`: how things stand, again every second, in a terminal.
//!
//! Three threads send to the one that draws: one asks the server, one reads keys, one hears signals. So a server that
//! does not answer holds up neither the end nor the giving back of the terminal.

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

/// Between two frames.
const PAUSE: Duration = Duration::from_secs(1);
/// A screen of its own, without cursor and without wrapping lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// The screen as it was.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// What Ctrl-C sends when the terminal makes no signal of it.
const CTRL_C: u8 = 3;

pub(crate) static TOP: Command = Command {
    name: "top",
    operands: "",
    about: "Shows jobs, throughput, queues and servers, again every second. q or Ctrl-C ends it.\n\
            The throughput is that of the server that is asked; everything else is of all servers.",
    flags: &[
        Flag {
            name: "once",
            value: "",
            help: "print one frame and end; it takes a second to see the throughput",
        },
        Flag {
            name: "json",
            value: "",
            help: "print the server's JSON (as stats --json does), a line a second",
        },
    ],
    examples: &["top", "top --once"],
    run: Run::Client(top),
};

/// What the drawing thread is told.
enum Event {
    Seen(Result<Seen, Error>),
    End,
}

/// What a look at the server has shown.
struct Seen {
    at: Instant,
    /// The answer to GET /stats.
    body: String,
    stats: Stats,
    /// What the server has counted since its start; `None` if it does not tell.
    counted: Option<Counted>,
}

/// The counters of one server.
#[derive(Clone, Copy, Default)]
struct Counted {
    submitted: f64,
    completed: f64,
    failed: f64,
}

fn top(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    args.no_operands()?;
    let json = args.has("json");
    let first = look(client)?;
    if args.has("once") {
        if json {
            console.json(&first.body)?;
        } else {
            thread::sleep(PAUSE);
            let second = look(client)?;
            let text = frame(client, &second, Some(&first), console)?;
            console.out.write_all(&text)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (sender, events) = channel();
    hear_signals(sender.clone())?;
    let is_screen = console.has_sequences() && !json;
    // Given back when this ends, in whichever way.
    let _keys = if is_screen { Keys::take(sender.clone()) } else { None };
    ask_on(client.clone(), sender);
    if is_screen {
        write!(console.out, "{ENTER}")?;
    }
    let shown = show_until_end(client, first, &events, is_screen, json, console);
    if is_screen {
        write!(console.out, "{LEAVE}").and_then(|()| console.out.flush())?;
    }
    shown.map(|()| ExitCode::SUCCESS)
}

/// Draws what is seen until somebody ends it.
fn show_until_end(
    client: &Client,
    first: Seen,
    events: &Receiver<Event>,
    is_screen: bool,
    json: bool,
    console: &mut Console,
) -> Result<(), Error> {
    let mut before = None;
    let mut now = first;
    let mut trouble = String::new();
    loop {
        if json {
            console.json(&now.body)?;
        } else {
            let text = frame(client, &now, before.as_ref(), console)?;
            if is_screen { draw(&text, &trouble, console)? } else { print(&text, console)? }
        }
        console.out.flush()?;
        // The senders live as long as the process.
        match events.recv().unwrap_or(Event::End) {
            Event::End => return Ok(()),
            Event::Seen(Ok(seen)) => {
                before = Some(std::mem::replace(&mut now, seen));
                trouble.clear();
            }
            Event::Seen(Err(error)) if !error.is_transient() => return Err(error),
            Event::Seen(Err(error)) if is_screen => trouble = format!("{error}; asking again"),
            Event::Seen(Err(error)) => console.note(&format!("{error}; asking again")),
        }
    }
}

/// Looks at the server now and again until nobody wants to know.
fn ask_on(client: Client, sender: Sender<Event>) {
    thread::spawn(move || {
        loop {
            thread::sleep(PAUSE);
            if sender.send(Event::Seen(look(&client))).is_err() {
                return;
            }
        }
    });
}

fn look(client: &Client) -> Result<Seen, Error> {
    let counted = client.get("/metrics").ok().map(|answer| counted(&answer.body));
    let answer = client.get("/stats")?;
    Ok(Seen { at: Instant::now(), stats: answer.parse()?, body: answer.body, counted })
}

/// The counters in a text for Prometheus, over all types.
fn counted(text: &str) -> Counted {
    let sum = |name: &str| {
        let of_types =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
        of_types.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    Counted {
        submitted: sum("threadq_jobs_submitted_total"),
        completed: sum("threadq_jobs_completed_total"),
        failed: sum("threadq_jobs_failed_total"),
    }
}

/// Ends with the signals that would end the process.
fn hear_signals(sender: Sender<Event>) -> Result<(), Error> {
    let handler = move || drop(sender.send(Event::End));
    ctrlc::set_handler(handler).map_err(|error| Error::Failed(format!("no signal handler: {error}")))
}

/// The keyboard, key by key; the terminal is given back as it was when this is dropped.
struct Keys {
    before: Termios,
}

impl Keys {
    /// `None` if stdin is no terminal.
    fn take(sender: Sender<Event>) -> Option<Keys> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok().filter(|_| stdin.is_terminal())?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        thread::spawn(move || {
            let is_end = |byte: &io::Result<u8>| matches!(byte, Ok(b'q' | b'Q' | CTRL_C) | Err(_));
            // The end of the bytes is that of the terminal.
            let _ = stdin.lock().bytes().find(is_end);
            let _ = sender.send(Event::End);
        });
        Some(Keys { before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Everything that is shown, as lines.
fn frame(client: &Client, now: &Seen, before: Option<&Seen>, console: &mut Console) -> io::Result<Vec<u8>> {
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

fn write_throughput(now: &Seen, before: Option<&Seen>, console: &mut Console) -> io::Result<()> {
    let seconds = before.map(|before| now.at.duration_since(before.at).as_secs_f64());
    let counters = before.and_then(|before| before.counted).zip(now.counted);
    let rate = |of: fn(Counted) -> f64| match (seconds, counters) {
        // A server that has started again has counted from zero.
        (Some(seconds), Some((before, now))) if seconds > 0.0 => {
            format!("{:.1}/s", (of(now) - of(before)).max(0.0) / seconds)
        }
        _ => "-".to_owned(),
    };
    writeln!(
        console.out,
        "this server: submitted {}  completed {}  failed {}",
        rate(|counted| counted.submitted),
        rate(|counted| counted.completed),
        rate(|counted| counted.failed)
    )
}

/// Draws a frame over the one before; what has no room below is left out.
fn draw(frame: &[u8], trouble: &str, console: &mut Console) -> io::Result<()> {
    let rows = terminal_size().map_or(24, |(_, rows)| rows).max(2);
    let frame = String::from_utf8_lossy(frame);
    let last = if trouble.is_empty() { "q ends" } else { trouble };
    let mut screen = "\x1b[H".to_owned();
    for line in frame.lines().take(rows - 1) {
        screen.push_str(line);
        screen.push_str("\x1b[K\r\n");
    }
    screen.push_str(&format!("\x1b[J{last}"));
    console.out.write_all(screen.as_bytes())
}

/// Writes a frame behind the one before.
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
    fn one_frame_as_json_is_the_servers() {
        let server = FakeServer::start(&[(404, "{}"), (200, STATS)]);
        let done = server.run(&["top", "--once", "--json"]);
        assert_eq!((done.code, done.out.lines().count()), (0, 1));
        assert!(done.out.starts_with(r#"{"counts": {"queued": 3,"#), "{}", done.out);
    }

    #[test]
    fn counters_are_summed_over_types() {
        let text = "threadq_jobs_failed_total{type=\"a\"} 2\nthreadq_jobs_failed_total{type=\"b 9\"} 3\n\
                    threadq_jobs_failed_total_else{type=\"a\"} 50\n";
        assert_eq!(counted(text).failed, 5.0);
        assert_eq!(counted(text).completed, 0.0);
    }
}
