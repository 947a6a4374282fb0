//! `threadq enqueue --file`: submits the jobs of a file, one JSON object per line, in batches.
//!
//! Each batch has its own Idempotency-Key, so that it is stored once, also if it is sent again after a lost response. The key
//! is `--idempotency-key` and the number of the batch, so that the whole command can be repeated too.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::ExitCode;

use serde_json::value::RawValue;

use super::unserved::{Stored, warn_of_unserved};
use crate::cli::args::{Args, idempotency_key};
use crate::cli::client::{Client, OUTAGE_LIMIT, RETRY_INTERVAL, Response, Unserved};
use crate::cli::error::Error;
use crate::cli::responses::count;
use crate::cli::terminal::console::Console;
use crate::cli::terminal::progress::Bar;
use crate::client::{BatchBody, Error as ClientError, SubmittedBatch, new_idempotency_key, with_retries};

/// The most jobs of a batch that the API accepts.
const MAX_BATCH_JOBS: usize = 1_000;
/// The number of bytes at which a batch is full: far below the default `max-body` of a server.
const FULL_BATCH_BYTES: usize = 256 * 1024;
/// The longest line: the largest `max-body` that a server can have.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;
/// The longest `--idempotency-key`: the API accepts 200 bytes, and the number of the batch is added.
const MAX_KEY_PREFIX: usize = 180;

/// Jobs that are submitted all or none.
struct Batch {
    /// Counts from 1.
    number: usize,
    jobs: Vec<Box<RawValue>>,
    /// The line number of each job.
    lines: Vec<u64>,
    /// Bytes of the file up to the end of the batch.
    read: u64,
}

impl Batch {
    /// `line 5`, `lines 5 to 9`.
    fn place(&self) -> String {
        match (self.lines.first(), self.lines.last()) {
            (Some(first), Some(last)) if first != last => format!("lines {first} to {last}"),
            (first, _) => format!("line {}", first.copied().unwrap_or(0)),
        }
    }

    /// The error with the line number instead of the index in the batch.
    fn explain(&self, error: &Error) -> String {
        let text = error.to_string();
        let named = text.strip_prefix("jobs[").and_then(|rest| {
            let (number, what) = rest.split_once(']')?;
            let line = self.lines.get(number.parse::<usize>().ok()?)?;
            let what = what.trim_start_matches('.').trim_start();
            Some(format!("line {line}: {what}"))
        });
        named.unwrap_or_else(|| format!("{}: {text}", self.place()))
    }
}

/// Reads the batches of a file.
struct Batches<R> {
    reader: R,
    number: usize,
    line: u64,
    read: u64,
    /// A job that did not fit the previous batch.
    held: Option<(u64, Box<RawValue>)>,
}

impl<R: BufRead> Batches<R> {
    fn new(reader: R) -> Batches<R> {
        Batches { reader, number: 0, line: 0, read: 0, held: None }
    }

    /// The next job with its line number. Empty lines are skipped.
    fn next_job(&mut self) -> Result<Option<(u64, Box<RawValue>)>, Error> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            let line = self.line;
            let wrong = |why: String| Error::Usage(format!("--file: line {line}: {why}"));
            let length = (&mut self.reader).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes);
            let length = length.map_err(|error| wrong(format!("cannot read the file: {error}")))? as u64;
            if length == 0 {
                return Ok(None);
            }
            if length > MAX_LINE_BYTES {
                return Err(wrong("longer than 64 MiB, the most that a server accepts".to_owned()));
            }
            self.read += length;
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong("not valid UTF-8".to_owned()))?;
            // Some editors write a byte order mark at the start of a file.
            let text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text }.trim();
            if text.is_empty() {
                continue;
            }
            let job: Box<RawValue> = serde_json::from_str(text).map_err(|error| {
                wrong(format!("must be a job as a JSON object; {}", without_line(&error)))
            })?;
            if !job.get().starts_with('{') {
                return Err(wrong("must be a job as a JSON object, such as {\"type\": \"echo\"}".to_owned()));
            }
            return Ok(Some((line, job)));
        }
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        let mut batch = Batch { number: self.number + 1, jobs: Vec::new(), lines: Vec::new(), read: 0 };
        let mut bytes = 0;
        while batch.jobs.len() < MAX_BATCH_JOBS {
            batch.read = self.read;
            let next = match self.held.take() {
                Some(held) => Some(held),
                None => self.next_job()?,
            };
            let Some((line, job)) = next else { break };
            bytes += job.get().len();
            if bytes > FULL_BATCH_BYTES && !batch.jobs.is_empty() {
                self.held = Some((line, job));
                break;
            }
            batch.lines.push(line);
            batch.jobs.push(job);
        }
        self.number += 1;
        Ok(Some(batch).filter(|batch| !batch.jobs.is_empty()))
    }
}

/// The error of serde without its own line number, which is always 1.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line 1 ") {
        Some((what, place)) => format!("{what} at {place}"),
        None => text,
    }
}

/// Submits all jobs of the file, or of stdin if it is `-`.
pub(super) fn enqueue_file(
    file: &str,
    args: &Args,
    client: &Client,
    console: &mut Console,
) -> Result<ExitCode, Error> {
    let given = args.read("idempotency-key", key_prefix)?;
    let prefix = given.unwrap_or_else(new_idempotency_key);
    let is_json = args.has("json");
    let mut submission =
        FileSubmission { client, prefix, is_json, submitted: 0, size: 0, unserved: Unserved::default() };
    if file == "-" {
        let mut nothing = std::io::empty();
        let (stdin, mut console) = console.without_stdin(&mut nothing);
        return submission.send_all(Batches::new(BufReader::new(stdin)), &mut console);
    }
    // Every line is checked first, so that a wrong line is reported before anything is sent.
    let mut check = Batches::new(open(file)?);
    while check.next_batch()?.is_some() {}
    submission.size = check.read;
    submission.send_all(Batches::new(open(file)?), console)
}

fn open(file: &str) -> Result<BufReader<File>, Error> {
    let cannot = |error| Error::Usage(format!("--file {file:?}: cannot read the file: {error}"));
    File::open(file).map(BufReader::new).map_err(cannot)
}

fn key_prefix(text: &str) -> Result<String, String> {
    match idempotency_key(text) {
        Ok(key) if key.len() <= MAX_KEY_PREFIX => Ok(key),
        _ => Err(format!("must be 1 to {MAX_KEY_PREFIX} visible ASCII characters with --file")),
    }
}

/// The submission of a file.
struct FileSubmission<'a> {
    client: &'a Client,
    prefix: String,
    is_json: bool,
    /// The number of jobs that are stored.
    submitted: u64,
    /// The length of the file in bytes; 0 if it is unknown.
    size: u64,
    /// What the server does not serve itself of the stored jobs.
    unserved: Unserved,
}

impl FileSubmission<'_> {
    fn send_all(
        &mut self,
        mut batches: Batches<impl BufRead>,
        console: &mut Console,
    ) -> Result<ExitCode, Error> {
        let sent = self.send_each(&mut batches, console);
        console.clear_bar();
        if let Err(error) = sent {
            // The last batch may be stored although its response is lost: a repeat is safe only with the same key.
            if batches.number > 1 || error.is_transient() {
                console.note(&format!(
                    "{} submitted before the error; the same command with --idempotency-key {} submits the rest",
                    count(self.submitted, "job"),
                    self.prefix
                ));
            }
            return Err(error);
        }
        // A thousand ids are of no use on a terminal.
        if console.out_is_terminal && !self.is_json {
            writeln!(console.out, "submitted {}", count(self.submitted, "job"))?;
        }
        let jobs = Stored { what: "all jobs are stored", whose: "at least one", queue: None };
        warn_of_unserved(&jobs, self.unserved, self.client, console);
        Ok(ExitCode::SUCCESS)
    }

    fn send_each(&mut self, batches: &mut Batches<impl BufRead>, console: &mut Console) -> Result<(), Error> {
        self.show(0, console);
        while let Some(batch) = batches.next_batch()? {
            let response = self.send(&batch, console)?;
            let SubmittedBatch { job_ids } = response.parse()?;
            self.submitted += job_ids.len() as u64;
            self.unserved = self.unserved.or(response.unserved);
            if self.is_json {
                console.json(&response.body)?;
            } else if !console.out_is_terminal {
                for id in job_ids {
                    writeln!(console.out, "{id}")?;
                }
            }
            self.show(batch.read, console);
        }
        Ok(())
    }

    fn show(&self, done: u64, console: &mut Console) {
        let result = count(self.submitted, "job");
        console.show_bar(&Bar { what: "submitting", done, total: self.size, result });
    }

    /// Submits a batch. Retries while the server is unavailable or its queue is full, for [`OUTAGE_LIMIT`].
    fn send(&self, batch: &Batch, console: &mut Console) -> Result<Response, Error> {
        let key = format!("{}-{}", self.prefix, batch.number);
        let body = BatchBody { jobs: &batch.jobs };
        let post = || self.client.post_json("/jobs/batch", &body, Some(&key));
        let mut is_reported = false;
        let report = |error: ClientError| {
            if !is_reported {
                console.note(&format!("{}; retrying", batch.explain(&error.into())));
                is_reported = true;
            }
        };
        with_retries(OUTAGE_LIMIT, RETRY_INTERVAL, is_transient, post, report).map_err(|error| {
            let may_succeed_later = is_transient(&error);
            let text = batch.explain(&error.into());
            if may_succeed_later { Error::NoResponse(text) } else { Error::Failed(text) }
        })
    }
}

/// Whether the server is unavailable or its queue is full.
fn is_transient(error: &ClientError) -> bool {
    let is_full = matches!(error, ClientError::Refused(refusal) if refusal.status == 429);
    is_full || error.is_transient()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::cli::testing::{Done, FakeServer};

    /// A file of jobs that is removed when dropped.
    struct Jobs(NamedTempFile);

    impl Jobs {
        fn new(text: &str) -> Jobs {
            let file = NamedTempFile::new().unwrap();
            fs::write(&file, text).unwrap();
            Jobs(file)
        }

        fn enqueue(&self, server: &FakeServer, more: &[&str]) -> Done {
            server.run(&[&["enqueue", "--file", self.0.path().to_str().unwrap()], more].concat())
        }
    }

    #[test]
    fn every_line_is_a_job_and_is_sent_unchanged() {
        let text = "{\"type\": \"a\", \"payload\": 1.00000000000000000000001}\n\n  {\"type\": \"b\"}";
        let file = Jobs::new(text);
        let server = FakeServer::start(&[(202, r#"{"job_ids": [17, 18]}"#)]);
        let done = file.enqueue(&server, &[]);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "17\n18\n", ""));
        let request = server.request();
        assert_eq!(request.line, "POST /jobs/batch");
        let expected = r#"{"jobs":[{"type": "a", "payload": 1.00000000000000000000001},{"type": "b"}]}"#;
        assert_eq!(request.body, expected);
        assert!(request.header("idempotency-key").unwrap().ends_with("-1"));
    }

    #[test]
    fn one_byte_order_mark_in_front_of_the_first_line_is_skipped() {
        let server = FakeServer::start(&[(202, r#"{"job_ids": [17]}"#); 4]);
        let job = "{\"type\": \"a\"}";
        let read = |text: String| server.run_with_stdin(&["enqueue", "--file", "-"], text.as_bytes()).code;
        for text in [format!("\u{feff}{job}\n"), format!("\u{feff}\r\n{job}\r\n"), format!("\u{feff} {job}")]
        {
            assert_eq!(read(text.clone()), 0, "{text:?}");
            assert_eq!(server.request().body, format!("{{\"jobs\":[{job}]}}"), "{text:?}");
        }
        for text in [format!("\u{feff}\u{feff}{job}\n"), format!("\n\u{feff}{job}\n")] {
            assert_ne!(read(text.clone()), 0, "{text:?}");
        }
        let file = Jobs::new(&format!("\u{feff}{job}\n"));
        assert_eq!(file.enqueue(&server, &[]).code, 0);
        assert_eq!(read("\u{feff}".to_owned()), read(String::new()), "a file with only the mark is empty");
    }

    #[test]
    fn stdin_can_be_the_file_and_json_is_the_response() {
        let response = r#"{"job_ids": [17]}"#;
        let server = FakeServer::start(&[(202, response)]);
        let done = server.run_with_stdin(&["enqueue", "--file", "-", "--json"], b"{\"type\": \"a\"}\n");
        assert_eq!((done.code, done.out, done.err.as_str()), (0, format!("{response}\n"), ""));
    }

    #[test]
    fn a_batch_whose_response_is_lost_is_sent_again_with_its_key() {
        let file = Jobs::new("{\"type\": \"a\"}\n");
        let server = FakeServer::start(&[(0, ""), (200, r#"{"job_ids": [17]}"#)]);
        let done = file.enqueue(&server, &[]);
        assert_eq!((done.code, done.out.as_str()), (0, "17\n"));
        assert!(done.err.starts_with("threadq: line 1: no response from "), "{}", done.err);
        assert!(done.err.ends_with("; retrying\n"), "{}", done.err);
        let (first, second) = (server.request(), server.request());
        assert_eq!(first.header("idempotency-key"), second.header("idempotency-key"));
        assert_eq!(first.body, second.body);
    }

    #[test]
    fn a_refusal_after_a_full_batch_names_the_line_and_the_key_for_the_rest() {
        let file = Jobs::new(&"{\"type\": \"a\"}\n".repeat(MAX_BATCH_JOBS + 2));
        let ids = format!(r#"{{"job_ids": {:?}}}"#, (1..=MAX_BATCH_JOBS).collect::<Vec<_>>());
        let refusal = r#"{"error": "jobs[1].type is missing", "code": "invalid_job"}"#;
        let server = FakeServer::start(&[(202, &ids), (400, refusal)]);
        let done = file.enqueue(&server, &["--idempotency-key", "k"]);
        assert_eq!((done.code, done.out.lines().count()), (1, MAX_BATCH_JOBS));
        let expected = "\
threadq: 1000 jobs submitted before the error; the same command with --idempotency-key k submits the rest
threadq: line 1002: type is missing (invalid_job)
";
        assert_eq!(done.err, expected);
        assert_eq!(server.request().header("idempotency-key"), Some("k-1"));
        assert_eq!(server.request().header("idempotency-key"), Some("k-2"));
    }

    #[test]
    fn a_batch_is_full_by_bytes_too() {
        let job = format!("{{\"type\": \"{}\"}}\n", "x".repeat(FULL_BATCH_BYTES / 2));
        let text = job.repeat(2);
        let mut batches = Batches::new(text.as_bytes());
        let sizes: Vec<usize> =
            std::iter::from_fn(|| batches.next_batch().unwrap()).map(|batch| batch.jobs.len()).collect();
        assert_eq!(sizes, [1, 1]);
        assert_eq!(batches.read, text.len() as u64);
    }

    #[test]
    fn a_wrong_line_is_named_before_anything_is_sent() {
        let server = FakeServer::start(&[(202, "{}")]);
        let cases = [
            ("nonsense", "--file: line 2: must be a job as a JSON object; expected ident at column 2"),
            ("[1]", "--file: line 2: must be a job as a JSON object, such as"),
            ("{\"type\":", "--file: line 2: must be a job as a JSON object; EOF while parsing"),
            ("{} {}", "--file: line 2: must be a job as a JSON object; trailing characters at column 4"),
        ];
        for (line, expected) in cases {
            let done = Jobs::new(&format!("{{\"type\": \"a\"}}\n{line}\n")).enqueue(&server, &[]);
            assert_eq!((done.code, done.out.as_str()), (2, ""));
            assert!(done.err.starts_with(&format!("threadq: {expected}")), "{}", done.err);
        }
        let usage: [(&[&str], &str); 4] = [
            (&["--file", "/no/such"], "threadq: --file \"/no/such\": cannot read the file: "),
            (&["echo", "--file", "x"], "threadq: unexpected argument: echo; usage: "),
            (&["--file", "x", "--delay", "1s"], "threadq: --delay: not allowed with --file"),
            (
                &["--file", "x", "--idempotency-key", "a b"],
                "threadq: --idempotency-key \"a b\": must be 1 to 180",
            ),
        ];
        for (args, expected) in usage {
            let done = server.run(&[&["enqueue"], args].concat());
            assert_eq!(done.code, 2);
            assert!(done.err.starts_with(expected), "{}", done.err);
        }
        assert!(server.is_idle());
    }

    #[test]
    fn a_terminal_gets_a_bar_and_a_count() {
        let file = Jobs::new("{\"type\": \"a\"}\n");
        let server = FakeServer::start(&[(202, r#"{"job_ids": [17]}"#)]);
        let done = server.run_on_terminal(&["enqueue", "--file", file.0.path().to_str().unwrap()], &[]);
        assert_eq!((done.code, done.out.as_str()), (0, "submitted 1 job\n"));
        assert!(done.err.contains("100 %  1 job\x1b[K") && done.err.ends_with("\r\x1b[K"), "{:?}", done.err);
    }
}
