//! Servers on one Redis with a load, and what a row of the table says about them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::account::{self, Account};
use super::load::{Answer, Load, Servers};
use super::runs::Runs;
use crate::common::server::program;
use crate::fixture::{ServerBuilder, TestServer};

/// How long the load runs before a fault.
const WARM_UP: Duration = Duration::from_secs(3);

/// The servers of a row.
pub struct Stage {
    url: String,
    pub servers: Vec<TestServer>,
    addresses: Servers,
    pub runs: Runs,
}

impl Stage {
    /// Starts this number of servers with these settings.
    pub fn start(url: &str, number: usize, settings: &[(&str, &str)]) -> Stage {
        let runs = Runs::listen();
        let servers: Vec<TestServer> = (0..number).map(|_| builder(url, &runs, settings).start()).collect();
        servers.iter().for_each(|server| server.wait_until_ready());
        Stage::of(url, servers, runs)
    }

    /// These servers.
    pub fn of(url: &str, servers: Vec<TestServer>, runs: Runs) -> Stage {
        let addresses = Arc::new(Mutex::new(servers.iter().map(TestServer::addr).collect()));
        Stage { url: url.to_owned(), servers, addresses, runs }
    }

    /// Stops a server in order, and starts it again.
    pub fn restart(&mut self, number: usize, settings: &[(&str, &str)]) {
        let exit = self.servers[number].stop(Duration::from_secs(60));
        assert_eq!(exit, Some(0), "{}", self.servers[number].log_tail());
        let server = builder(&self.url, &self.runs, settings).start();
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[number] = server.addr();
        self.servers[number] = server;
    }

    /// Starts the load, and lets it run for a while.
    pub fn warm_up(&self, rate: f64) -> Load {
        let load = Load::start(&self.addresses, rate);
        std::thread::sleep(WARM_UP);
        load
    }

    /// The number of lines in the log of each server.
    pub fn log_lines(&self) -> Vec<usize> {
        self.servers.iter().map(|server| server.log_text().lines().count()).collect()
    }

    /// What `threadq doctor` complains of; `None` if nothing.
    pub fn doctor(&self) -> Option<String> {
        let report = with_program().flag("redis-url", &self.url).run("doctor");
        (report.code != Some(0)).then(|| report.stdout + &report.stderr)
    }

    /// Runs the load and the fault, and then looks what became of the jobs.
    pub fn measure(&self, rate: f64, fault: impl FnOnce() -> Fault) -> Figures {
        let load = self.warm_up(rate);
        let lines_before = self.log_lines();
        let fault = fault();
        let answers = load.stop();
        let lines = self.log_lines().iter().zip(lines_before).map(|(now, before)| now - before).collect();
        self.figures(answers, fault, lines)
    }

    /// What became of the jobs of this load.
    pub fn figures(&self, answers: Vec<Answer>, fault: Fault, log_lines: Vec<usize>) -> Figures {
        let servers = self.servers.len();
        let account = Account::of(&answers, self.servers[0].addr(), &self.runs);
        Figures {
            promoted: fault.over.map(|at| at - fault.at),
            first: fault.over.map(|at| account::first_accepted(&answers, servers, at)),
            gap: account::longest_gap(&answers, servers),
            account,
            answers,
            log_lines,
            doctor: self.doctor(),
            fault,
        }
    }
}

/// The program that is measured, with no setting yet.
pub fn with_program() -> ServerBuilder {
    // Absolute, since every server works in a folder of its own.
    let program = std::path::absolute(program()).expect("a path");
    TestServer::builder().program(vec![program.display().to_string()])
}

fn builder(url: &str, runs: &Runs, settings: &[(&str, &str)]) -> ServerBuilder {
    let builder = with_program().config(&runs.config()).flag("redis-url", url);
    settings.iter().fold(builder, |builder, (name, value)| builder.flag(name, value))
}

/// When a fault began, and when another Redis was ready to take over.
#[derive(Clone, Copy)]
pub struct Fault {
    pub at: Instant,
    pub over: Option<Instant>,
}

impl Fault {
    /// Sleeps until this long after the fault.
    pub fn wait(&self, time: Duration) {
        std::thread::sleep((self.at + time).saturating_duration_since(Instant::now()));
    }
}

/// What was measured in one row.
pub struct Figures {
    pub fault: Fault,
    pub promoted: Option<Duration>,
    /// The time from the promotion until every server has accepted a job. The inner `None`: a server has not.
    pub first: Option<Option<Duration>>,
    pub gap: Duration,
    pub account: Account,
    pub answers: Vec<Answer>,
    pub log_lines: Vec<usize>,
    pub doctor: Option<String>,
}

/// The parts of a verdict.
#[derive(Default)]
pub struct Verdict(Vec<String>);

impl Verdict {
    /// Notes a bar that is missed.
    pub fn expect(&mut self, what: &str, is_met: bool) {
        if !is_met {
            self.0.push(what.to_owned());
        }
    }

    /// `ok`, or what is missed.
    pub fn text(&self) -> String {
        if self.0.is_empty() { "ok".to_owned() } else { format!("MISSED: {}", self.0.join(", ")) }
    }

    pub fn is_good(&self) -> bool {
        self.0.is_empty()
    }
}

/// The head of the table of [`print`].
pub fn print_head() {
    println!(
        "\n| row | promoted after | first 202 after that | gap of 202s | acked | lost | run twice | 503s | other answers | \
         slowest answer | doctor | log lines | bar | verdict |\n|{}",
        " --- |".repeat(14)
    );
}

/// Prints a row with the figures, and checks what every row must hold.
pub fn print(name: &str, bar: &str, figures: &Figures, mut verdict: Verdict) -> bool {
    let time = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let Figures { account, answers, .. } = figures;
    let mut refusals = account::refusals(answers);
    let unavailable = refusals.remove(&503).unwrap_or(0);
    let other: Vec<String> = refusals.iter().map(|(status, number)| format!("{number} × {status}")).collect();
    let slowest = account::slowest(answers);
    verdict.expect("all that Redis has completes", account.nothing_is_stuck());
    verdict.expect("doctor clean", figures.doctor.is_none());
    verdict.expect("only 202 and 503", other.is_empty());
    verdict.expect("answers within 3 s", slowest <= Duration::from_millis(3_200));
    let first = match figures.first {
        None => "-".to_owned(),
        Some(None) => "never".to_owned(),
        Some(Some(after)) => time(after),
    };
    // How long after the begin of the fault a job was accepted that is lost.
    let latest =
        account.lost.iter().map(|answer| answer.at.saturating_duration_since(figures.fault.at)).max();
    let lost_until = latest.map_or_else(String::new, |latest| format!(" (accepted until {})", time(latest)));
    let lines: Vec<String> = figures.log_lines.iter().map(usize::to_string).collect();
    println!(
        "| {name} | {} | {first} | {} | {} | {}{lost_until}{} | {} | {unavailable} | {} | {} | {} | {} | {bar} | {} |",
        figures.promoted.map_or_else(|| "-".to_owned(), time),
        time(figures.gap),
        account.accepted.len(),
        account.lost.len(),
        account.troubles(),
        account.twice.len(),
        if other.is_empty() { "none".to_owned() } else { other.join(", ") },
        time(slowest),
        if figures.doctor.is_none() { "clean" } else { "NOT CLEAN" },
        lines.join(", "),
        verdict.text()
    );
    if let Some(report) = &figures.doctor {
        eprintln!("{report}");
    }
    verdict.is_good()
}
