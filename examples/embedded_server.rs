//! A program with its own job server. The handlers are two Rust functions and a type.
//!
//!     cargo run --example embedded_server -- --listen 127.0.0.1:8080
//!
//! The program accepts the flags, the environment and the configuration file of `threadq serve`. Without `--redis-url` it
//! starts a private redis-server. `submit_and_wait.rs` is its client.

use std::error::Error;
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use threadq::config::Config;
use threadq::handler::{Handler, JobContext};
use threadq::job::{Failure, Outcome};
use threadq::logging;
use threadq::server::Server;

/// The payload of an "invoice" job.
#[derive(Deserialize)]
struct Order {
    customer: String,
    cents: Vec<u64>,
}

/// The result of an "invoice" job.
#[derive(Serialize)]
struct Invoice {
    customer: String,
    total_cents: u64,
}

/// A payload that is not an `Order` and a permanent failure fail the job. Any other error fails the attempt.
fn invoice(job: &JobContext) -> Result<Invoice, Failure> {
    let order: Order = job.payload()?;
    if order.cents.is_empty() {
        return Err(Failure::permanent("an order without items"));
    }
    // The id of the job is the same in every attempt: use it as the key of a write that must happen once.
    log::info!("invoice {} for {}", job.job().id, order.customer);
    Ok(Invoice { total_cents: order.cents.iter().sum(), customer: order.customer })
}

/// A long job checks regularly whether it must stop: at its timeout, after a cancel request, or when the server stops.
fn countdown(job: &JobContext) -> Result<(), Failure> {
    let from: u32 = job.payload()?;
    for left in (1..=from).rev() {
        log::info!("{left}");
        if job.sleep(Duration::from_secs(1)) {
            return Err(Failure::retryable(format!("stopped at {left}")));
        }
    }
    Ok(())
}

/// A handler with state, which all worker threads share.
struct Greeter {
    greeting: String,
}

impl Handler for Greeter {
    fn handle(&self, job: &JobContext) -> Outcome {
        let name: String = job.payload()?;
        let text = serde_json::to_string(&format!("{}, {name}!", self.greeting))?;
        Ok(RawValue::from_string(text)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::load(std::env::args_os().skip(1), |name| std::env::var(name).ok())?;
    logging::init(config.log_format, config.log_level);
    let (signal, signals) = unbounded();
    ctrlc::set_handler(move || {
        let _ = signal.send(());
    })?;
    let server = Server::builder()
        .config(config)
        .handler("invoice", invoice)
        .handler("countdown", countdown)
        .handler_object("greet", Greeter { greeting: "Hello".to_owned() })
        .start()?;
    println!("threadq listening on http://{}", server.addr());
    // The first signal drains running jobs, the second ends the server at once.
    signals.recv()?;
    server.shut_down(&signals);
    Ok(())
}
