//! The program's logger: one line per record on stderr, as text or JSON. In JSON the job, its type, the attempt and the
//! server are fields of the line.
//!
//! The crate logs through the crate `log`. A program that uses the library can install this logger with [`init`], or any
//! other.
//!
//! A line is formatted before the lock is taken, so a message that panics while it is formatted leaves the logger usable.
//! Text from a client or a job cannot start another line. A line that cannot be written is dropped and counted: a full
//! disk, a closed pipe or a reader that is stuck never stops a job.
//!
//! Panics are logged as lines too. The messages of the runtime when the process aborts (a stack overflow, a panic during a
//! panic) are not: no code of the program runs any more.

pub(crate) mod escape;
pub(crate) mod job_fields;
pub(crate) mod once;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;
use simplelog::{CombinedLogger, SharedLogger};

use self::escape::{escape, json_line};
use crate::job::rfc3339;
use crate::job::time::now_ms;
use crate::sync;

/// How log lines are formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `TIME LEVEL MESSAGE`, with the time as RFC 3339 in UTC.
    Text,
    /// One JSON object per line, with at least `time`, `level` and `message`.
    Json,
}

/// How long a line waits for a reader of stderr that is behind. The thread that logs waits, and all threads behind it.
const WRITE_TIMEOUT: Duration = Duration::from_millis(250);
/// How many bytes a pipe that is ready takes without blocking (`PIPE_BUF` of Linux).
const PIPE_BUF: usize = 4096;

/// Installs the program's logger: it writes all log records of `level` and above to stderr.
///
/// Of other crates only warnings and errors are written. At `debug` and `trace` each line names its module. If the process
/// has a logger already, this does nothing.
pub fn init(format: LogFormat, level: LevelFilter) {
    let logger = LineLogger { format, level, out: Mutex::new(Out::new(Stderr { is_stuck: false })) };
    // The only possible error is that the process has a logger already, which stays.
    let _ = CombinedLogger::init(vec![Box::new(logger)]);
}

/// Replaces the panic hook of the process: panics become log lines of level error, with a backtrace if `RUST_BACKTRACE` is
/// set.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let message = info.payload_as_str().unwrap_or("(no message)");
        let place = info.location().map(|place| format!(" at {place}")).unwrap_or_default();
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => {
                log::error!("thread {name} panicked{place}: {message}\n{backtrace}")
            }
            _ => log::error!("thread {name} panicked{place}: {message}"),
        }
    }));
}

struct LineLogger<W> {
    format: LogFormat,
    level: LevelFilter,
    out: Mutex<Out<W>>,
}

/// The destination of the lines.
struct Out<W> {
    to: W,
    /// How many lines were dropped since the last line that was written.
    lost: u64,
    /// Whether the last line was written only in part.
    is_torn: bool,
}

impl<W: Write> Out<W> {
    fn new(to: W) -> Out<W> {
        Out { to, lost: 0, is_torn: false }
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let mut left = line.as_bytes();
        while !left.is_empty() {
            match self.to.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => left = &left[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.is_torn = !left.is_empty();
        }
        Ok(())
    }
}

/// Stderr with a time limit: a write fails if stderr does not become ready within [`WRITE_TIMEOUT`].
struct Stderr {
    /// Whether the last write timed out. Then writes do not wait until stderr is ready again.
    is_stuck: bool,
}

impl Stderr {
    /// Whether stderr is ready for a write now, or becomes ready within the time limit.
    fn is_ready(&self) -> bool {
        let limit = if self.is_stuck { Duration::ZERO } else { WRITE_TIMEOUT };
        let timeout = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        let stderr = io::stderr();
        loop {
            match poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                // Some files cannot be polled: then the write itself succeeds or fails.
                Err(_) => return true,
            }
        }
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_stuck = !self.is_ready();
        if self.is_stuck {
            return Err(io::ErrorKind::TimedOut.into());
        }
        io::stderr().write(&bytes[..bytes.len().min(PIPE_BUF)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + Send> LineLogger<W> {
    /// Whether a record is written. r2d2 logs every failed connection as an error, many times per outage, while the queue
    /// logs an outage of Redis once; so r2d2 is heard at `debug` only.
    fn wants(&self, metadata: &Metadata) -> bool {
        let target = metadata.target();
        let is_own = target == "threadq" || target.starts_with("threadq::");
        let is_pool = target == "r2d2" || target.starts_with("r2d2::");
        metadata.level() <= self.level
            && (is_own || metadata.level() <= Level::Warn)
            && (!is_pool || self.shows_modules())
    }

    fn shows_modules(&self) -> bool {
        self.level >= LevelFilter::Debug
    }

    fn line(&self, record: &Record, time_ms: u64) -> String {
        // Unlike `to_string`, this does not panic if a `Display` returns an error: the text that it wrote is kept.
        let mut message = String::new();
        let _ = write!(message, "{}", record.args());
        self.line_of(record, &message, time_ms)
    }

    fn line_of(&self, record: &Record, message: &str, time_ms: u64) -> String {
        let time = rfc3339(time_ms);
        let module = self.shows_modules().then(|| record.target());
        match self.format {
            LogFormat::Text => text_line(&time, record.level(), module, message),
            LogFormat::Json => json_object_line(&time, record, module, message),
        }
    }

    /// A line that tells how many lines were dropped.
    fn line_of_loss(&self, out: &Out<W>, time_ms: u64) -> String {
        let message = format!("{} log lines before this one could not be written", out.lost);
        let record = Record::builder().level(Level::Warn).target(module_path!()).build();
        let line = self.line_of(&record, &message, time_ms);
        if out.is_torn { format!("\n{line}") } else { line }
    }
}

fn text_line(time: &str, level: Level, module: Option<&str>, message: &str) -> String {
    let module = module.map(|module| format!("[{}] ", escape(module))).unwrap_or_default();
    format!("{time} {level:<5} {module}{}\n", escape(message))
}

/// The fields of a record about a job. All other fields are left out of the line.
#[derive(Serialize, Default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<u64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    job_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let text = || value.to_borrowed_str().map(str::to_owned);
        match key.as_str() {
            "job" => self.job = value.to_u64(),
            "type" => self.job_type = text(),
            "attempt" => self.attempt = value.to_u64(),
            "server" => self.server = text(),
            _ => {}
        }
        Ok(())
    }
}

fn json_object_line(time: &str, record: &Record, module: Option<&str>, message: &str) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        time: &'a str,
        level: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        module: Option<&'a str>,
        message: &'a str,
        #[serde(flatten)]
        fields: Fields,
    }
    let level = record.level().as_str().to_ascii_lowercase();
    let mut fields = Fields::default();
    let _ = record.key_values().visit(&mut fields);
    let line = Line { time, level: &level, module, message, fields };
    // JSON may contain characters that a terminal obeys, and operators read such lines in terminals too.
    json_line(&serde_json::to_string(&line).unwrap_or_default()) + "\n"
}

impl<W: Write + Send> Log for LineLogger<W> {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.wants(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.wants(record.metadata()) {
            return;
        }
        let time_ms = now_ms();
        let line = self.line(record, time_ms);
        let mut out = sync::lock(&self.out);
        if out.lost > 0 {
            let loss = self.line_of_loss(&out, time_ms);
            if out.write_line(&loss).is_ok() {
                out.lost = 0;
            }
        }
        if out.lost > 0 || out.write_line(&line).is_err() {
            out.lost += 1;
        }
    }

    fn flush(&self) {
        let _ = sync::lock(&self.out).to.flush();
    }
}

impl<W: Write + Send + 'static> SharedLogger for LineLogger<W> {
    fn level(&self) -> LevelFilter {
        self.level
    }

    fn config(&self) -> Option<&simplelog::Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::escape::is_unsafe_to_show;
    use super::*;

    /// 2026-11-24T08:00:00.123Z
    const TIME_MS: u64 = 1_795_507_200_123;

    fn logger(format: LogFormat, level: LevelFilter) -> LineLogger<Vec<u8>> {
        LineLogger { format, level, out: Mutex::new(Out::new(Vec::new())) }
    }

    fn send<W: Write + Send>(logger: &LineLogger<W>, level: Level, target: &str, message: impl fmt::Display) {
        logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
    }

    fn written(logger: LineLogger<Vec<u8>>) -> String {
        String::from_utf8(logger.out.into_inner().unwrap().to).unwrap()
    }

    fn line(logger: &LineLogger<Vec<u8>>, message: &str) -> String {
        let args = format_args!("{message}");
        let record =
            Record::builder().level(Level::Info).target("threadq::engine::fetcher").args(args).build();
        logger.line(&record, TIME_MS)
    }

    #[test]
    fn a_text_line_is_time_level_and_message() {
        let at_info = line(&logger(LogFormat::Text, LevelFilter::Info), "redis is back");
        assert_eq!(at_info, "2026-11-24T08:00:00.123Z INFO  redis is back\n");
        let at_debug = line(&logger(LogFormat::Text, LevelFilter::Debug), "redis is back");
        assert_eq!(at_debug, "2026-11-24T08:00:00.123Z INFO  [threadq::engine::fetcher] redis is back\n");
    }

    #[test]
    fn a_json_line_is_an_object() {
        let at_info = line(&logger(LogFormat::Json, LevelFilter::Info), "redis is \"back\"");
        let expected =
            r#"{"time":"2026-11-24T08:00:00.123Z","level":"info","message":"redis is \"back\""}"#.to_owned();
        assert_eq!(at_info, expected + "\n");
        let at_debug = line(&logger(LogFormat::Json, LevelFilter::Debug), "x");
        assert!(at_debug.contains(r#""module":"threadq::engine::fetcher""#));
    }

    #[test]
    fn the_fields_about_a_job_are_fields_of_a_json_line() {
        let logger = logger(LogFormat::Json, LevelFilter::Info);
        let fields: [(&str, Value); 6] = [
            ("job", Value::from(1_764_000_000_000_123_u64)),
            ("type", Value::from("a \"b\"\u{2028}")),
            ("attempt", Value::from(2)),
            ("server", Value::from("host-1-ab")),
            // A record that has fields of these names must not produce a line with a name twice.
            ("message", Value::from("x")),
            ("time", Value::from(1)),
        ];
        let record = Record::builder().key_values(&fields).args(format_args!("failed")).build();
        let line = logger.line(&record, TIME_MS);
        let expected = concat!(
            r#"{"time":"2026-11-24T08:00:00.123Z","level":"info","message":"failed","#,
            r#""job":1764000000000123,"type":"a \"b\"\u2028","attempt":2,"server":"host-1-ab"}"#,
            "\n"
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn no_message_breaks_its_line_or_reaches_the_terminal() {
        let logger = logger(LogFormat::Text, LevelFilter::Info);
        let text = line(&logger, "a\nb\r\tc\u{1b}[31m\u{0}\u{7f}\u{9b}\u{2028}\u{202e}é\u{fffd}");
        let message = r"a\nb\r\tc\u{1b}[31m\u{0}\u{7f}\u{9b}\u{2028}\u{202e}é�";
        assert_eq!(text, format!("2026-11-24T08:00:00.123Z INFO  {message}\n"));
    }

    #[test]
    fn any_message_is_one_line_and_comes_back_from_json() {
        let (text, json) =
            (logger(LogFormat::Text, LevelFilter::Info), logger(LogFormat::Json, LevelFilter::Info));
        let mut random = fastrand::Rng::with_seed(21);
        for _ in 0..5_000 {
            let message: String = (0..random.usize(0..20))
                .map(|_| match random.u8(..3) {
                    0 => random.char(..),
                    1 => random.char('\0'..'\u{a0}'),
                    _ => random.char('\u{2000}'..'\u{2070}'),
                })
                .collect();
            let line_of_text = line(&text, &message);
            assert_eq!(line_of_text.chars().filter(|c| is_unsafe_to_show(*c)).collect::<String>(), "\n");
            let line_of_json = line(&json, &message);
            assert_eq!(line_of_json.chars().filter(|c| is_unsafe_to_show(*c)).collect::<String>(), "\n");
            let value: serde_json::Value = serde_json::from_str(&line_of_json).unwrap();
            assert_eq!(value["message"], message);
        }
    }

    #[test]
    fn other_crates_are_logged_from_warnings_on_and_the_pool_only_at_debug() {
        let shown = |level, target| {
            let logger = logger(LogFormat::Text, level);
            for record in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
                send(&logger, record, target, "x");
            }
            written(logger).lines().count()
        };
        assert_eq!(shown(LevelFilter::Info, "threadq"), 3);
        assert_eq!(shown(LevelFilter::Trace, "threadq::gate"), 5);
        assert_eq!(shown(LevelFilter::Off, "threadq"), 0);
        assert_eq!(shown(LevelFilter::Trace, "ureq"), 2);
        assert_eq!(shown(LevelFilter::Error, "ureq"), 1);
        assert_eq!(shown(LevelFilter::Info, "threadqueue"), 2);
        assert_eq!(shown(LevelFilter::Info, "r2d2"), 0);
        assert_eq!(shown(LevelFilter::Debug, "r2d2"), 2);
    }

    /// Accepts `room` bytes, then fails until a test gives it more room.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            if length == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.room -= length;
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_dropped_and_counted() {
        let out = Out::new(Narrow { taken: Vec::new(), room: 45 });
        let logger = LineLogger { format: LogFormat::Text, level: LevelFilter::Info, out: Mutex::new(out) };
        for message in ["one", "two", "three"] {
            send(&logger, Level::Info, "threadq", message);
        }
        logger.flush();
        // The second line was written in part.
        logger.out.lock().unwrap().to.room = 1000;
        for message in ["four", "five"] {
            send(&logger, Level::Info, "threadq", message);
        }
        let text = String::from_utf8(logger.out.into_inner().unwrap().to.taken).unwrap();
        let messages: Vec<&str> = text.lines().map(|line| line.get(31..).unwrap_or(line)).collect();
        assert_eq!(messages[0], "one", "{text}");
        assert!(messages[1].starts_with("20"), "{text}");
        let loss = "2 log lines before this one could not be written";
        assert_eq!(messages[2..], [loss, "four", "five"], "{text}");
    }

    struct Failing;

    impl fmt::Display for Failing {
        fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("so far").and(Err(fmt::Error))
        }
    }

    struct Panicking;

    impl fmt::Display for Panicking {
        fn fmt(&self, _: &mut fmt::Formatter) -> fmt::Result {
            panic!("on purpose")
        }
    }

    #[test]
    fn a_message_that_cannot_be_printed_leaves_the_logger_usable() {
        let logger = logger(LogFormat::Text, LevelFilter::Info);
        let panicked =
            catch_unwind(AssertUnwindSafe(|| send(&logger, Level::Info, "threadq", Panicking))).is_err();
        assert!(panicked);
        send(&logger, Level::Info, "threadq", Failing);
        send(&logger, Level::Info, "threadq", "after");
        let text = written(logger);
        assert!(text.contains("so far\n") && text.ends_with("after\n"), "{text}");
    }
}
