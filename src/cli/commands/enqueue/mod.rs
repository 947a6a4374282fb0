//! `threadq enqueue`: submits one job (`one`) or the jobs of a file (`file`).

mod file;
mod one;
mod unserved;

use std::process::ExitCode;

use crate::cli::args::{Args, Command, Flag, Run};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::terminal::console::Console;

pub(crate) static ENQUEUE: Command = Command {
    name: "enqueue",
    operands: "TYPE|--file FILE",
    about: "Submits a job and prints its id. With --wait, exits 0 if it completed, 1 if it failed or was cancelled.\n\
            With --file, submits a job for each line: an object as POST /jobs takes it, with type, payload, queue,\n\
            delay_ms, run_at, max_attempts, timeout_ms, unique_key. They go in batches of up to 1,000, each of\n\
            which is stored once even if its answer is lost; a repeat of the whole with the same\n\
            --idempotency-key, within 24 h, submits only what is missing.",
    flags: &[
        Flag {
            name: "payload",
            value: "JSON|@FILE|-",
            help: "the payload, or where to read it [default: {}]",
        },
        Flag { name: "queue", value: "NAME", help: "the queue it goes through [default: default]" },
        Flag {
            name: "delay",
            value: "TIME",
            help: "wait so long before it starts, such as 5s or 2h, up to 365d",
        },
        Flag { name: "run-at", value: "TIME", help: "wait until then, such as 2026-11-24T08:00:00Z" },
        Flag { name: "max-attempts", value: "N", help: "1 to 100 [default: as its handler says, else 5]" },
        Flag {
            name: "timeout",
            value: "TIME",
            help: "for one attempt, up to 24h [default: as its handler says, else 5m]",
        },
        Flag { name: "unique-key", value: "KEY", help: "refused while another live job has this key" },
        Flag {
            name: "idempotency-key",
            value: "KEY",
            help: "the same key again, within 24 h, gives the same job",
        },
        Flag {
            name: "file",
            value: "FILE|-",
            help: "submit the jobs of this file or stdin, one JSON object a line",
        },
        Flag { name: "wait", value: "", help: "wait until the job is completed, failed or cancelled" },
        Flag {
            name: "json",
            value: "",
            help: "print the server's JSON, of --file a line a batch; with --wait the job, once it has ended",
        },
    ],
    examples: &[
        "enqueue \"Encode Video\" --payload '{\"file\": \"a.mp4\"}'",
        "enqueue report --payload @report.json --delay 10m --max-attempts 3",
        "enqueue echo --payload 42 --wait --json",
        "enqueue --file jobs.ndjson --idempotency-key import-2026-11-24",
    ],
    run: Run::Client(enqueue),
};

/// The flags that say something about the one job.
const OF_ONE_JOB: [&str; 8] =
    ["payload", "queue", "delay", "run-at", "max-attempts", "timeout", "unique-key", "wait"];

fn enqueue(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let Some(file) = args.text("file") else { return one::enqueue_one(args, client, console) };
    args.no_operands()?;
    args.refuse(&OF_ONE_JOB, "--file, whose lines say it")?;
    file::enqueue_file(file, args, client, console)
}
