//! The phases of a run, the same for every peer.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};

use super::common::percentile;
use super::figures::{Figure, Figures, Load, Part};
use super::limit::Limit;
use super::own_redis::Redis;
use super::peer::{Peer, Probe};
use super::plan::Plan;
use super::process::{self, Program, Times};

/// How many callers submit at a time.
pub const CALLERS: usize = 32;
/// Jobs per call of the bulk submission.
pub const BATCH: usize = 100;
/// Submissions before the measurement starts.
pub const WARM_UP: usize = 200;
/// The pause before Redis's memory is read: Redis frees the buffers of closed connections meanwhile.
pub const SETTLING: Duration = Duration::from_millis(300);
/// The longest time until a lone job must start.
const LONGEST_LATENCY: Duration = Duration::from_secs(60);

/// A phase of a run, with its own Redis.
pub type Phase<'a> = &'a dyn Fn(&mut Figures, &mut Redis, &Limit) -> Result<(), String>;

/// Measures a peer once.
pub fn peer(peer: &Peer, plan: &Plan, folder: &Path, limit: &Limit) -> (Figures, Vec<String>) {
    let run = Run { peer, plan, folder };
    in_phases(
        plan,
        folder,
        limit,
        &[
            &|figures, redis, limit| run.submit(figures, redis, limit),
            &|figures, redis, limit| run.idle_and_lone(figures, redis, limit),
            &|figures, redis, limit| run.drain(figures, redis, limit),
        ],
    )
}

/// Runs phases one after the other, each with the whole time limit, and kills the processes that it leaves behind. A
/// phase that fails yields no figures; the next phases run nevertheless. Returns the figures and the errors.
pub fn in_phases(plan: &Plan, folder: &Path, limit: &Limit, phases: &[Phase]) -> (Figures, Vec<String>) {
    let (mut figures, mut errors) = (Figures::default(), Vec::new());
    for phase in phases {
        let limit = limit.again();
        if limit.is_over() {
            break;
        }
        let mut run = || phase(&mut figures, &mut Redis::start(folder, plan)?, &limit);
        // The benches' HTTP client panics when a request fails.
        let outcome = catch_unwind(AssertUnwindSafe(&mut run));
        errors.extend(outcome.unwrap_or_else(|_| Err("a request failed, see above".to_owned())).err());
        process::end_all();
    }
    (figures, errors)
}

struct Run<'a> {
    peer: &'a Peer,
    plan: &'a Plan,
    folder: &'a Path,
}

impl Run<'_> {
    fn jobs(&self) -> usize {
        self.peer.jobs(self.plan.jobs)
    }

    fn worker(&self, redis: &Redis, report: &Report) -> Result<Program, String> {
        let mut command = self.peer.worker(&redis.url(), self.plan.workers);
        command.env("PEERS_REPORT", &report.path).env("PYTHONUNBUFFERED", "1");
        Program::start(&format!("{}-worker", self.peer.name), command, self.folder)
    }

    fn producer(&self, redis: &Redis) -> Result<Program, String> {
        let mut command = self.peer.producer(&redis.url(), self.plan.workers);
        command.env("PEERS_PAYLOAD", self.plan.payload_json());
        Program::start(&format!("{}-producer", self.peer.name), command, self.folder)
    }

    /// Sends a line to the producer. Returns the seconds that the producer reports.
    fn ask(&self, producer: &mut Program, line: &str, limit: &Limit) -> Result<f64, String> {
        producer.say(line)?;
        let answer = producer.hear(limit)?;
        answer.parse().map_err(|_| {
            format!("{}: its producer answered {answer:?}, which is not a number", self.peer.name)
        })
    }

    /// The producer's line for the fastest submission of this number of jobs.
    fn fill(&self, jobs: usize) -> String {
        match (self.peer.bulk, self.peer.concurrent) {
            (true, _) => format!("bulk {jobs} {BATCH}"),
            (false, true) => format!("concurrent {jobs} {CALLERS}"),
            (false, false) => format!("one {jobs}"),
        }
    }

    fn submit(&self, figures: &mut Figures, redis: &mut Redis, limit: &Limit) -> Result<(), String> {
        let jobs = self.jobs();
        let mut ways = vec![(Load::One, format!("one {jobs}"))];
        if self.peer.concurrent {
            ways.push((Load::Concurrent, format!("concurrent {jobs} {CALLERS}")));
        }
        if self.peer.bulk {
            ways.push((Load::Bulk, format!("bulk {jobs} {BATCH}")));
        }
        for (load, line) in ways {
            redis.forget_everything()?;
            let mut producer = self.producer(redis)?;
            self.ask(&mut producer, &format!("one {WARM_UP}"), limit)?;
            let (redis_pids, pids) = (redis.pids(), producer.pids());
            let times = || Times::read(&[(Part::Redis, &redis_pids), (Part::Caller, &pids)]);
            let before = times();
            let seconds = self.ask(&mut producer, &line, limit)?;
            times().set(&before, figures, load, jobs as u64);
            figures.set(Figure::Rate(load), jobs as f64 / seconds);
            let (waiting, _) = redis.left(&self.peer.probe)?;
            if waiting != (jobs + WARM_UP) as u64 {
                return Err(format!(
                    "`{line}` left {waiting} jobs in Redis, {WARM_UP} of them from the warm-up"
                ));
            }
            producer.stop();
        }
        Ok(())
    }

    fn idle_and_lone(&self, figures: &mut Figures, redis: &mut Redis, limit: &Limit) -> Result<(), String> {
        let report = Report::new(self.folder)?;
        let mut producer = self.producer(redis)?;
        let mut worker = self.worker(redis, &report)?;
        let mut send = || {
            worker.check()?;
            self.ask(&mut producer, "lone", limit).map(drop)
        };
        lone(self.plan.lone_warm_up(), &report, limit, &mut send)?;
        let mut latencies = lone(self.peer.lone(self.plan.lone), &report, limit, &mut send)?;
        set_lone(figures, &mut latencies);
        // The producer's process must not count in the worker's memory.
        producer.stop();
        idle(self.plan, &worker, redis, limit, figures)?;
        worker.stop();
        Ok(())
    }

    fn drain(&self, figures: &mut Figures, redis: &mut Redis, limit: &Limit) -> Result<(), String> {
        let jobs = self.jobs();
        // Memory that Redis uses once for all jobs, such as for scripts, must not count per job.
        let mut producer = self.producer(redis)?;
        self.ask(&mut producer, &self.fill(BATCH), limit)?;
        producer.stop();
        redis.forget_everything()?;
        limit.sleep(SETTLING)?;
        let before = redis.memory()?;
        let mut producer = self.producer(redis)?;
        self.ask(&mut producer, &self.fill(jobs), limit)?;
        producer.stop();
        limit.sleep(SETTLING)?;
        figures.set(Figure::Bytes, (redis.memory()? - before) / jobs as f64);
        let report = Report::new(self.folder)?;
        let mut worker = self.worker(redis, &report)?;
        drained(jobs, redis, &self.peer.probe, &mut worker, limit, figures)?;
        worker.stop();
        Ok(())
    }
}

/// Measures an idle worker.
pub fn idle(
    plan: &Plan,
    worker: &Program,
    redis: &Redis,
    limit: &Limit,
    figures: &mut Figures,
) -> Result<(), String> {
    limit.sleep(Duration::from_secs(2))?;
    let pids = worker.pids();
    figures.set(Figure::RssIdle, process::rss(&pids));
    figures.set(Figure::PssIdle, process::pss(&pids));
    let (cpu, start) = (process::cpu(&pids), Instant::now());
    let (sent, in_scripts) = redis.watch(plan.idle, limit)?;
    let seconds = start.elapsed().as_secs_f64();
    figures.set(Figure::IdleCpu, (process::cpu(&pids) - cpu) / seconds * 100.0);
    figures.set(Figure::IdleSent, sent as f64 / seconds);
    figures.set(Figure::IdleCommands, (sent + in_scripts) as f64 / seconds);
    Ok(())
}

/// Waits until a worker that was just started has done all jobs, and sets the figures of the drain. The time runs from
/// the last look at which all jobs waited to the first at which no job was left: the start of the worker does not
/// count. The CPU time is that of the second half of the jobs: then all processes of the worker have started.
pub fn drained(
    jobs: usize,
    redis: &mut Redis,
    probe: &Probe,
    worker: &mut Program,
    limit: &Limit,
    figures: &mut Figures,
) -> Result<(), String> {
    let jobs = jobs as u64;
    let redis_pids = redis.pids();
    let times = |pids: &[u32]| Times::read(&[(Part::Redis, &redis_pids), (Part::Worker, pids)]);
    let mut start = Instant::now();
    let (mut next_look, mut busiest, mut pids) = (start, 0.0_f64, Vec::new());
    // The jobs that were left at the first look after half of the jobs, and the CPU time until then.
    let mut half: Option<(u64, Times)> = None;
    loop {
        let now = Instant::now();
        let (waiting, left) = redis.left(probe)?;
        if waiting > jobs {
            return Err(format!("{waiting} jobs wait, {jobs} were submitted"));
        } else if waiting == jobs {
            start = now;
        } else if left == 0 {
            break;
        } else if left <= jobs / 2 && half.is_none() {
            half = Some((left, times(&worker.pids())));
        }
        if now > next_look {
            limit
                .check()
                .map_err(|error| format!("not all jobs are done, {waiting} of {jobs} wait: {error}"))?;
            worker.check()?;
            if waiting < jobs {
                pids = worker.pids();
                busiest = busiest.max(process::rss(&pids));
            }
            next_look = now + Duration::from_millis(50);
        }
        // Each look costs Redis some CPU time: so looks are rare in a long drain.
        let pause = start.elapsed() / 200;
        std::thread::sleep(pause.clamp(Duration::from_millis(2), Duration::from_millis(50)));
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some((left, before)) = half {
        times(&worker.pids()).set(&before, figures, Load::Drain, left);
    }
    figures.set(Figure::Rate(Load::Drain), jobs as f64 / seconds);
    // Look once more: the worker still holds the memory that it used for the last jobs.
    pids.extend(worker.pids());
    pids.sort_unstable();
    pids.dedup();
    figures.set(Figure::RssBusy, busiest.max(process::rss(&pids)));
    match redis.failed(probe)? {
        0 => Ok(()),
        failed => Err(format!("{failed} of {jobs} jobs failed")),
    }
}

/// Sends jobs one at a time, each after the previous job has started and after a random pause, so that the jobs do not
/// align with a poll interval. Returns the ms from each submission to the start of the job.
pub fn lone(
    jobs: usize,
    report: &Report,
    limit: &Limit,
    send: &mut impl FnMut() -> Result<(), String>,
) -> Result<Vec<f64>, String> {
    let mut latencies = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        std::thread::sleep(Duration::from_micros(fastrand::u64(2_000..20_000)));
        send()?;
        latencies.push(report.next(limit)?);
    }
    Ok(latencies)
}

/// Sets the percentiles of lone jobs.
pub fn set_lone(figures: &mut Figures, latencies: &mut [f64]) {
    figures.set(Figure::LoneP50, percentile(latencies, 0.5));
    figures.set(Figure::LoneP99, percentile(latencies, 0.99));
}

/// The FIFO to which handlers write the µs from the submission to the start of their job.
pub struct Report {
    pub path: PathBuf,
    lines: Receiver<f64>,
    file: File,
}

impl Report {
    pub fn new(folder: &Path) -> Result<Report, String> {
        let path = folder.join("report");
        let _ = std::fs::remove_file(&path);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).map_err(|error| error.to_string())?;
        // Opened for reading and writing: the open does not wait for a writer, and reads do not end with a writer.
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|error| error.to_string())?;
        let reader = BufReader::new(file.try_clone().map_err(|error| error.to_string())?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // The first line that is not a number ends the thread.
            for micros in reader.lines().map_while(|line| line.ok()?.parse::<f64>().ok()) {
                let _ = sender.send(micros / 1_000.0);
            }
        });
        Ok(Report { path, lines, file })
    }

    fn next(&self, limit: &Limit) -> Result<f64, String> {
        let end = Instant::now() + LONGEST_LATENCY;
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(latency) => return Ok(latency),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => limit.check()?,
                Err(_) => return Err("a lone job did not start within a minute".to_owned()),
            }
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = self.file.write_all(b"end\n");
    }
}
