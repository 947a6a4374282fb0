//! `threadq workers`: shows what the worker threads of the servers do, and the pull workers.

use std::io;
use std::process::ExitCode;
use std::thread;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::args::{Args, Command, JSON, Run};
use crate::cli::client::{Client, RETRY_INTERVAL};
use crate::cli::commands::stats::write_servers;
use crate::cli::error::Error;
use crate::cli::responses::{ServerView, short_span, short_time};
use crate::cli::terminal::console::Console;
use crate::cli::terminal::table::{Column, full, truncated};
use crate::job::JobId;

pub(crate) static WORKERS: Command = Command {
    name: "workers",
    operands: "",
    about: "Shows what the worker threads of servers do, and the pull workers.\n\
            A pull worker is listed for an hour after its last request.",
    flags: &[JSON],
    examples: &["workers", "workers --json"],
    run: Run::Client(workers),
};

/// How often the servers are asked until all have reported their threads: they do so at their next heartbeat.
const MAX_READS: u32 = 4;

/// The response to GET /stats/workers.
#[derive(Deserialize)]
struct Servers {
    servers: Vec<ServerView>,
}

/// The response to GET /workers.
#[derive(Deserialize)]
struct PullWorkers {
    workers: Vec<PullWorker>,
}

#[derive(Deserialize)]
struct PullWorker {
    name: String,
    /// `None`: the worker has no name, or has neither asked for a job nor reported for an hour.
    last_seen: Option<String>,
    jobs: Vec<PulledJob>,
}

#[derive(Deserialize)]
struct PulledJob {
    id: JobId,
    #[serde(rename = "type")]
    job_type: String,
    lease_until: String,
}

/// The list of a response, as it was sent.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, alias = "workers")]
    servers: &'a RawValue,
}

fn workers(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    args.no_operands()?;
    let (body, servers) = read_servers(client)?;
    let response = client.get("/workers")?;
    if args.has("json") {
        let list = |body| serde_json::from_str::<Raw>(body).map(|raw| raw.servers.get());
        let lists = list(&body).and_then(|servers| Ok((servers, list(&response.body)?)));
        let (servers, workers) = lists.map_err(|error| Error::Failed(error.to_string()))?;
        console.json(&format!(r#"{{"servers": {servers}, "workers": {workers}}}"#))?;
    } else {
        let PullWorkers { workers } = response.parse()?;
        write_servers(&servers, console)?;
        write_threads(&servers, console)?;
        write_pull_workers(&workers, console)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The servers, once those with running jobs have reported their threads.
fn read_servers(client: &Client) -> Result<(String, Vec<ServerView>), Error> {
    let mut reads = 0;
    loop {
        let response = client.get("/stats/workers")?;
        let Servers { servers } = response.parse()?;
        reads += 1;
        let is_reported = servers.iter().all(|server| server.threads.is_some() || server.busy == 0);
        if is_reported || reads == MAX_READS {
            return Ok((response.body, servers));
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

fn write_threads(servers: &[ServerView], console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 7] = [
        truncated("SERVER").optional(),
        full("THREAD").optional(),
        full("JOB"),
        truncated("TYPE"),
        full("ATTEMPT").optional(),
        full("FOR"),
        full("STATE").optional(),
    ];
    let mut rows = Vec::new();
    for server in servers {
        for thread in server.threads.iter().flatten() {
            rows.push([
                server.id.clone(),
                thread.thread.clone().unwrap_or_default(),
                thread.job.to_string(),
                thread.job_type.clone(),
                thread.attempt.to_string(),
                short_span(thread.for_ms),
                thread.state.replace('_', " "),
            ]);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(console.out)?;
    console.table(&COLUMNS, &rows)
}

fn write_pull_workers(workers: &[PullWorker], console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 5] = [
        truncated("PULL WORKER"),
        full("LAST SEEN (UTC)").optional(),
        full("JOB").unless_empty(),
        truncated("TYPE").unless_empty(),
        full("LEASE UNTIL (UTC)").unless_empty(),
    ];
    if workers.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::new();
    for PullWorker { name, last_seen, jobs } in workers {
        let seen = last_seen.as_deref().map_or_else(String::new, short_time);
        let of_worker = |at: usize| if at == 0 { [name.clone(), seen.clone()] } else { Default::default() };
        for (at, job) in jobs.iter().enumerate() {
            let [name, seen] = of_worker(at);
            rows.push([name, seen, job.id.to_string(), job.job_type.clone(), short_time(&job.lease_until)]);
        }
        if jobs.is_empty() {
            let [name, seen] = of_worker(0);
            rows.push([name, seen, String::new(), String::new(), String::new()]);
        }
    }
    writeln!(console.out)?;
    console.table(&COLUMNS, &rows)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::FakeServer;
    use crate::logging::escape::json_line;

    const SERVERS: &str = r#"{"servers": [
        {"id": "host-1-ab", "started_at": "2026-11-24T08:00:00.000Z", "workers": 30, "busy": 1, "beat_age_ms": 850, "threads":
            [{"thread": "worker-3", "job": 17, "type": "Encode Video", "attempt": 2, "for_ms": 65000, "state": "backing_off"}]},
        {"id": "host-2-cd", "started_at": "2026-11-24T08:00:00.000Z", "workers": 4, "busy": 0, "beat_age_ms": 10, "threads": null}]}"#;
    const PULL: &str = r#"{"workers": [
        {"name": "gpu-1", "last_seen": "2026-11-24T08:00:05.000Z", "jobs": [
            {"id": 18, "type": "train", "lease_until": "2026-11-24T08:00:20.000Z"},
            {"id": 19, "type": "train", "lease_until": "2026-11-24T08:00:21.000Z"}]},
        {"name": "gpu-2", "last_seen": "2026-11-24T08:00:06.000Z", "jobs": []}]}"#;

    #[test]
    fn the_jobs_of_threads_and_of_pull_workers_are_listed() {
        let server = FakeServer::start(&[(200, SERVERS), (200, PULL)]);
        let done = server.run(&["workers"]);
        let expected = "\
SERVER     BUSY  STARTED (UTC)        LAST HEARTBEAT
host-1-ab  1/30  2026-11-24 08:00:00  850 ms ago
host-2-cd  0/4   2026-11-24 08:00:00  10 ms ago

SERVER     THREAD    JOB  TYPE          ATTEMPT  FOR        STATE
host-1-ab  worker-3  17   Encode Video  2        1 min 5 s  backing off

PULL WORKER  LAST SEEN (UTC)      JOB  TYPE   LEASE UNTIL (UTC)
gpu-1        2026-11-24 08:00:05  18   train  2026-11-24 08:00:20
                                  19   train  2026-11-24 08:00:21
gpu-2        2026-11-24 08:00:06
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /stats/workers");
        assert_eq!(server.request().line, "GET /workers");
    }

    #[test]
    fn a_server_that_has_not_reported_its_threads_yet_is_asked_again() {
        let unreported = SERVERS.replace("\"busy\": 0", "\"busy\": 1");
        let server = FakeServer::start(&[(200, &unreported), (200, SERVERS), (200, r#"{"workers": []}"#)]);
        let done = server.run(&["workers"]);
        assert_eq!((done.code, done.out.lines().count()), (0, 6), "{}", done.out);
        assert!(!done.out.contains("PULL"), "{}", done.out);
    }

    #[test]
    fn a_worker_whose_last_request_is_not_known_is_listed_by_its_jobs() {
        let pull = r#"{"workers": [{"name": "", "last_seen": null, "jobs": [
            {"id": 18, "type": "train", "lease_until": "2026-11-24T08:00:20.000Z"}]}]}"#;
        let server = FakeServer::start(&[(200, SERVERS), (200, pull)]);
        let done = server.run(&["workers"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        assert!(done.out.trim_end().ends_with("18   train  2026-11-24 08:00:20"), "{}", done.out);
    }

    #[test]
    fn json_has_the_lists_of_both_responses() {
        let server = FakeServer::start(&[(200, SERVERS), (200, PULL)]);
        let out = server.run(&["workers", "--json"]).out;
        let [servers, pull] =
            [SERVERS, PULL].map(|body| body.trim_end_matches('}').trim_start_matches('{').to_owned());
        let both = format!("{{{servers}, {pull}}}");
        assert_eq!(out.trim_end(), json_line(&both));
    }
}
