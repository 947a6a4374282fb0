//! The tables of the result, in Markdown.

use std::fmt::Write;

use super::figures::{Figure, Figures, Spread, spread};
use super::measure::{BATCH, CALLERS};
use super::own_redis;
use super::peer::Peer;
use super::plan::Plan;

/// A run of threadq, and the run of the peer that followed it.
pub struct Pair {
    pub ours: Figures,
    pub peer: Figures,
}

/// A peer, and its pairs of runs.
pub struct Row {
    pub peer: &'static Peer,
    pub pairs: Vec<Pair>,
}

/// A column of the table of ratios: threadq's figure `of` divided by the peer's figure `by`.
struct Ratio {
    title: String,
    less_is_better: bool,
    of: fn(&Figures) -> Option<f64>,
    by: fn(&Figures) -> Option<f64>,
}

fn ratios() -> Vec<Ratio> {
    let ratio =
        |title: &str, less_is_better, of, by| Ratio { title: title.to_owned(), less_is_better, of, by };
    vec![
        ratio("drain", false, |ours| ours.get(Figure::Drain), |peer| peer.get(Figure::Drain)),
        ratio("submit, one caller each", false, |ours| ours.get(Figure::One), |peer| peer.get(Figure::One)),
        ratio(
            &format!("our {CALLERS} clients / its one caller"),
            false,
            |ours| ours.get(Figure::Concurrent),
            |peer| peer.get(Figure::One),
        ),
        ratio(
            &format!("our {CALLERS} clients / its best, one job a call"),
            false,
            |ours| ours.get(Figure::Concurrent),
            |peer| peer.best(Figure::One, Figure::Concurrent),
        ),
        ratio(
            &format!("submit, {BATCH} a call"),
            false,
            |ours| ours.get(Figure::Bulk),
            |peer| peer.get(Figure::Bulk),
        ),
        ratio("lone job p50", true, |ours| ours.get(Figure::LoneP50), |peer| peer.get(Figure::LoneP50)),
        ratio("lone job p99", true, |ours| ours.get(Figure::LoneP99), |peer| peer.get(Figure::LoneP99)),
        ratio("RSS idle", true, |ours| ours.get(Figure::RssIdle), |peer| peer.get(Figure::RssIdle)),
        ratio("RSS busy", true, |ours| ours.get(Figure::RssBusy), |peer| peer.get(Figure::RssBusy)),
        ratio("Redis bytes per job", true, |ours| ours.get(Figure::Bytes), |peer| peer.get(Figure::Bytes)),
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
        "Medians of {rounds} round{}, {cores} cores. Jobs do nothing and have a payload of {} bytes; {} jobs run at a time. Each run \
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
    figures(text, plan, rows)?;
    writeln!(text, "\nthreadq / peer, median (least to greatest) of the rounds:\n")?;
    ratio_table(text, rows)?;
    if let Some(p99) =
        spread(rows.iter().flat_map(|row| &row.pairs).map(|pair| pair.ours.get(Figure::ConcurrentP99)))
    {
        writeln!(
            text,
            "\nPOST /jobs by {CALLERS} clients: p99 {} ms ({} to {}).",
            number(p99.median),
            number(p99.least),
            number(p99.greatest)
        )?;
    }
    writeln!(text, "\n{}", definitions(plan))?;
    for row in rows {
        writeln!(text, "- {}: {}.", row.peer.label, row.peer.note)?;
    }
    if !notes.is_empty() {
        writeln!(text, "\nErrors:\n")?;
    }
    for note in notes {
        writeln!(text, "- {note}")?;
    }
    Ok(())
}

fn figures(text: &mut String, plan: &Plan, rows: &[Row]) -> std::fmt::Result {
    writeln!(
        text,
        "| | jobs | drain jobs/s | submit/s, one caller | submit/s, {CALLERS} callers | submit jobs/s, {BATCH} a call | \
         lone job p50 / p99 ms | RSS idle / busy MB | PSS idle MB | Redis bytes per queued job | Redis commands/s idle, sent / with those in scripts | CPU idle % |"
    )?;
    writeln!(text, "|{}", " --- |".repeat(12))?;
    let ours: Vec<&Figures> = rows.iter().flat_map(|row| &row.pairs).map(|pair| &pair.ours).collect();
    figures_line(text, &format!("**threadq** {}", env!("CARGO_PKG_VERSION")), plan.jobs, &ours)?;
    for row in rows {
        let label = format!("{} {}", row.peer.label, row.peer.version());
        let theirs: Vec<&Figures> = row.pairs.iter().map(|pair| &pair.peer).collect();
        figures_line(text, &label, row.peer.jobs(plan.jobs), &theirs)?;
    }
    Ok(())
}

fn figures_line(text: &mut String, label: &str, jobs: usize, runs: &[&Figures]) -> std::fmt::Result {
    let median = |figure| {
        let spread = spread(runs.iter().map(|run| run.get(figure)));
        spread.map_or("-".to_owned(), |spread| number(spread.median))
    };
    writeln!(
        text,
        "| {label} | {} | {} | {} | {} | {} | {} / {} | {} / {} | {} | {} | {} / {} | {} |",
        number(jobs as f64),
        median(Figure::Drain),
        median(Figure::One),
        median(Figure::Concurrent),
        median(Figure::Bulk),
        median(Figure::LoneP50),
        median(Figure::LoneP99),
        median(Figure::RssIdle),
        median(Figure::RssBusy),
        median(Figure::PssIdle),
        median(Figure::Bytes),
        median(Figure::IdleSent),
        median(Figure::IdleCommands),
        median(Figure::IdleCpu),
    )
}

fn ratio_table(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    let ratios = ratios();
    write!(text, "| threadq / |")?;
    for ratio in &ratios {
        let sign = if ratio.less_is_better { " (less is better)" } else { "" };
        write!(text, " {}{sign} |", ratio.title)?;
    }
    writeln!(text, "\n|{}", " --- |".repeat(ratios.len() + 1))?;
    for row in rows {
        write!(text, "| {} |", row.peer.label)?;
        for ratio in &ratios {
            let of = |pair: &Pair| Some((ratio.of)(&pair.ours)? / (ratio.by)(&pair.peer)?);
            write!(text, " {} |", spread(row.pairs.iter().map(of)).map_or("-".to_owned(), with_ends))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn with_ends(spread: Spread) -> String {
    format!("{} ({} to {})", number(spread.median), number(spread.least), number(spread.greatest))
}

fn definitions(plan: &Plan) -> String {
    format!(
        "- Drain: all jobs wait in Redis when the worker is started. The time runs from the last look at Redis (every 2 ms) at \
         which no job was taken to the first at which all jobs are done: the start of the worker does not count. A peer that \
         removes a job from Redis before the job runs is done when it has taken the last job.\n\
         - Submit: from one process, after a warm-up, while no worker runs. threadq: POST /jobs by keep-alive clients, \
         POST /jobs/batch by one; peers: their own client.\n\
         - Lone job: from just before it is submitted to the start of its handler, {} jobs, one at a time. Both times are \
         read from the same clock.\n\
         - RSS: the sum over all processes of the worker; a shared page counts in each (PSS: divided among them). Idle: \
         after some jobs; busy: the maximum during the drain. Idle commands (from MONITOR) and CPU: over {} s.\n\
         - Redis bytes: growth of used_memory by the jobs that wait before the drain, divided by their number, without any client connected.\n\
         - threadq: `threadq serve --demo` with its defaults, type `echo`; keeps completed jobs and results. The lone job \
         runs on a server of the same library, with a handler that reports the time of its start.",
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
