//! The tables of the result, in Markdown.

use std::fmt::Write;

use super::figures::{Figure, Figures, Load, Part, Spread, spread};
use super::measure::{BATCH, CALLERS};
use super::own_redis;
use super::plan::Plan;
use super::subject::Subject;

/// A subject, and the figures of its runs, one per round.
pub struct Row {
    pub subject: Subject,
    pub runs: Vec<Figures>,
}

/// A column of the table of ratios: threadq's figure `of` divided by the peer's figure `by`.
struct Ratio {
    title: String,
    of: ReadFigure,
    by: ReadFigure,
}

type ReadFigure = Box<dyn Fn(&Figures) -> Option<f64>>;

/// A ratio for each load: of rates, of which more is better, or of CPU times per job, of which less is better.
fn load_ratios(figure: fn(&Figures, Load) -> Option<f64>) -> Vec<Ratio> {
    let ratio = |title: &str, load, by: fn(&Figures) -> Load| Ratio {
        title: title.to_owned(),
        of: Box::new(move |ours| figure(ours, load)),
        by: Box::new(move |peer| figure(peer, by(peer))),
    };
    vec![
        ratio("drain", Load::Drain, |_| Load::Drain),
        ratio("submit, one caller each", Load::One, |_| Load::One),
        ratio(
            &format!("submit, our {CALLERS} callers / its faster way, one job per call"),
            Load::Concurrent,
            |peer| peer.faster(Load::One, Load::Concurrent),
        ),
        ratio(&format!("submit, {BATCH} jobs per call"), Load::Bulk, |_| Load::Bulk),
    ]
}

/// Columns in which less is better: latency and memory.
fn other_ratios() -> Vec<Ratio> {
    let ratio = |title: &str, figure| Ratio {
        title: title.to_owned(),
        of: Box::new(move |ours| ours.get(figure)),
        by: Box::new(move |peer| peer.get(figure)),
    };
    vec![
        ratio("lone job p50", Figure::LoneP50),
        ratio("lone job p99", Figure::LoneP99),
        ratio("RSS idle", Figure::RssIdle),
        ratio("RSS busy", Figure::RssBusy),
        ratio("Redis bytes per job", Figure::Bytes),
    ]
}

/// All tables and definitions.
pub fn markdown(plan: &Plan, rounds: usize, rows: &[Row], notes: &[String]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, plan, rounds, rows, notes);
    text
}

fn write(
    text: &mut String,
    plan: &Plan,
    rounds: usize,
    rows: &[Row],
    notes: &[String],
) -> Result<(), std::fmt::Error> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    writeln!(
        text,
        "{rounds} round{}, {cores} cores. Jobs do nothing and have a payload of {} bytes; {} jobs run at a time. Each run \
         has a fresh redis-server ({}) on the loopback interface, started with `{}`.\n",
        if rounds == 1 { "" } else { "s" },
        plan.payload,
        plan.workers,
        redis_version(),
        own_redis::settings(plan)
            .iter()
            .map(|word| if word.is_empty() { "''" } else { word.as_str() })
            .collect::<Vec<_>>()
            .join(" "),
    )?;
    writeln!(text, "Each figure is the median, with the least and the greatest in parentheses.\n")?;
    rates(text, plan, rows)?;
    writeln!(text, "\nCPU time per job in µs, the sum of the named processes:\n")?;
    cpu_times(text, rows)?;
    writeln!(text, "\nLatency, memory and idle load:\n")?;
    others(text, rows)?;
    writeln!(text, "\nthreadq's rate divided by the peer's; more is better:\n")?;
    ratio_table(text, rows, &load_ratios(Figures::rate))?;
    writeln!(text, "\nthreadq's CPU time per job divided by the peer's; less is better:\n")?;
    ratio_table(text, rows, &load_ratios(Figures::cpu))?;
    writeln!(text, "\nThe same of latency and memory; less is better:\n")?;
    ratio_table(text, rows, &other_ratios())?;
    writeln!(text, "\n{}", definitions(plan))?;
    for row in rows {
        writeln!(text, "- {}: {}.", row.subject.label_with_version(), row.subject.note())?;
    }
    if !notes.is_empty() {
        writeln!(text, "\nErrors:\n")?;
    }
    for note in notes {
        writeln!(text, "- {note}")?;
    }
    Ok(())
}

/// Writes the head of a table.
fn head(text: &mut String, columns: &[String]) -> std::fmt::Result {
    writeln!(text, "| {} |", columns.join(" | "))?;
    writeln!(text, "|{}", " --- |".repeat(columns.len()))
}

/// Writes a line of a table.
fn line(text: &mut String, row: &Row, cells: &[String]) -> std::fmt::Result {
    writeln!(text, "| {} | {} |", row.subject.label_with_version(), cells.join(" | "))
}

fn rates(text: &mut String, plan: &Plan, rows: &[Row]) -> std::fmt::Result {
    head(
        text,
        &[
            "jobs per second".to_owned(),
            "jobs".to_owned(),
            "drain".to_owned(),
            "submit, one caller".to_owned(),
            format!("submit, {CALLERS} callers"),
            "p99 of these, ms".to_owned(),
            format!("submit, {BATCH} jobs per call"),
        ],
    )?;
    for row in rows {
        let rate = |load| row.cell(|run| run.rate(load));
        let cells = [
            number(row.subject.jobs(plan) as f64),
            rate(Load::Drain),
            rate(Load::One),
            rate(Load::Concurrent),
            row.cell(|run| run.get(Figure::ConcurrentP99)),
            rate(Load::Bulk),
        ];
        line(text, row, &cells)?;
    }
    Ok(())
}

fn cpu_times(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    head(
        text,
        &[
            "µs of CPU per job".to_owned(),
            "drain: Redis + worker".to_owned(),
            "submit, one caller: Redis + server + caller".to_owned(),
            format!("submit, {CALLERS} callers"),
            format!("submit, {BATCH} jobs per call"),
        ],
    )?;
    for row in rows {
        let cell = |load| {
            let part = |part| spread(row.runs.iter().map(|run| run.get(Figure::Cpu(load, part))));
            let parts = [Part::Redis, Part::Worker, Part::Caller].into_iter().filter_map(part);
            let parts: Vec<String> = parts.map(|part| number(part.median)).collect();
            match spread(row.runs.iter().map(|run| run.cpu(load))) {
                Some(sum) => format!("{} = {}", parts.join(" + "), with_ends(sum)),
                None => "-".to_owned(),
            }
        };
        line(text, row, &[Load::Drain, Load::One, Load::Concurrent, Load::Bulk].map(cell))?;
    }
    Ok(())
}

fn others(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    head(
        text,
        &[
            "",
            "lone job p50, ms",
            "lone job p99, ms",
            "RSS idle, MB",
            "PSS idle, MB",
            "RSS busy, MB",
            "Redis bytes per queued job",
            "Redis commands/s idle: sent",
            "with those in scripts",
            "CPU idle, %",
        ]
        .map(str::to_owned),
    )?;
    const FIGURES: [Figure; 9] = [
        Figure::LoneP50,
        Figure::LoneP99,
        Figure::RssIdle,
        Figure::PssIdle,
        Figure::RssBusy,
        Figure::Bytes,
        Figure::IdleSent,
        Figure::IdleCommands,
        Figure::IdleCpu,
    ];
    for row in rows {
        line(text, row, &FIGURES.map(|figure| row.cell(|run| run.get(figure))))?;
    }
    Ok(())
}

fn ratio_table(text: &mut String, rows: &[Row], ratios: &[Ratio]) -> std::fmt::Result {
    let Some((ours, peers)) = rows.split_first() else { return Ok(()) };
    let titles = ratios.iter().map(|ratio| ratio.title.clone());
    head(text, &["threadq /".to_owned()].into_iter().chain(titles).collect::<Vec<_>>())?;
    for row in peers {
        let cell = |ratio: &Ratio| {
            let of = |(ours, peer): (&Figures, &Figures)| {
                let by = (ratio.by)(peer).filter(|by| *by > 0.0)?;
                Some((ratio.of)(ours)? / by)
            };
            spread(ours.runs.iter().zip(&row.runs).map(of)).map_or("-".to_owned(), with_ends)
        };
        line(text, row, &ratios.iter().map(cell).collect::<Vec<_>>())?;
    }
    Ok(())
}

impl Row {
    /// The spread of a figure over the rounds.
    fn cell(&self, of: impl Fn(&Figures) -> Option<f64>) -> String {
        spread(self.runs.iter().map(of)).map_or("-".to_owned(), with_ends)
    }
}

fn with_ends(spread: Spread) -> String {
    if spread.least == spread.greatest {
        return number(spread.median);
    }
    format!("{} ({} to {})", number(spread.median), number(spread.least), number(spread.greatest))
}

fn definitions(plan: &Plan) -> String {
    format!(
        "- Drain: all jobs wait in Redis when the worker is started. The time runs from the last look at Redis at which no job \
         was taken to the first at which all jobs are done: the start of the worker does not count. A peer that removes a job \
         from Redis before the job runs is done when it has taken the last job.\n\
         - Submit: from one process, after a warm-up, while no worker runs. threadq: POST /jobs by keep-alive clients, \
         POST /jobs/batch by one; peers: their own client.\n\
         - CPU time: user and system, of all threads and processes. Worker: all processes that \
         run jobs, during the second half of the drain. Server: threadq's, which the peers do not need. Caller: the process \
         that submits.\n\
         - Lone job: from just before it is submitted to the start of its handler, {} jobs, one at a time. Both times are \
         read from the same clock. threadq: a server of the same library, with a handler that reports the time of its start; \
         threadq 0.4.0 has no such handler.\n\
         - RSS: the sum over all processes of the worker; a shared page counts in each (PSS: divided among them). Idle: \
         after some jobs; busy: the maximum during the drain. Idle commands (from MONITOR) and CPU: over {} s.\n\
         - Redis bytes: growth of used_memory by the jobs that wait before the drain, divided by their number, without any client connected.",
        plan.lone,
        plan.idle.as_secs_f64()
    )
}

fn redis_version() -> String {
    let output = std::process::Command::new("redis-server").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned()
}

/// Formats a number with three significant digits and thousands separators.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => {
            // More than three digits of a measured rate are noise.
            let step = 10_f64.powi((size.log10().floor() as i32 - 2).max(0));
            let digits = ((value / step).round() * step).to_string();
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
