//! Submits jobs to the server of `embedded_server.rs`, waits until they end, and prints their results.
//!
//!     cargo run --example submit_and_wait -- http://127.0.0.1:8080
//!
//! The API token, if the server needs one, is read from `THREADQ_API_TOKEN`.

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use threadq::client::{Client, Error as ClientError, Submission};

#[derive(Serialize)]
struct Order<'a> {
    customer: &'a str,
    cents: &'a [u64],
}

#[derive(Deserialize)]
struct Invoice {
    customer: String,
    total_cents: u64,
}

/// The time limit for a job.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

fn invoice(customer: &str, cents: &[u64]) -> Result<Submission, ClientError> {
    Submission::new("invoice").payload(&Order { customer, cents })
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let mut client = Client::new(&url)?;
    if let Ok(token) = std::env::var("THREADQ_API_TOKEN") {
        client = client.token(token)?;
    }

    // One job. If the response is lost, the request is sent again, and the job is stored once.
    let id = client.submit(&Submission::new("greet").payload("Ada")?.max_attempts(3))?.id;
    let greeting: String = client.wait(id, WAIT_TIMEOUT)?.result()?;
    println!("{greeting}");

    // A batch: all jobs are stored or none. The second job always fails.
    let jobs = [invoice("Ada", &[1250, 499])?, invoice("Bob", &[])?, invoice("Cy", &[100])?];
    for id in client.submit_batch(&jobs)? {
        match client.wait(id, WAIT_TIMEOUT)?.result::<Invoice>() {
            Ok(Invoice { customer, total_cents }) => println!("{customer} owes {total_cents} cents"),
            Err(ClientError::NotCompleted { status, last_error, .. }) => {
                println!("no invoice: {status}, {}", last_error.unwrap_or_default());
            }
            Err(error) => return Err(error.into()),
        }
    }

    // A unique key: while a job with this key has not ended, another one is refused.
    let nightly =
        Submission::new("countdown").payload(&0)?.delay(Duration::from_secs(3600)).unique_key("nightly");
    let first = client.submit(&nightly)?.id;
    match client.submit(&nightly) {
        Err(ClientError::Refused(refusal)) if refusal.code == "duplicate" => {
            println!("duplicate of the first job: {}", refusal.job_id == Some(first));
        }
        other => return Err(format!("not refused: {other:?}").into()),
    }
    println!("the first job is {}", client.cancel(first)?.status);
    Ok(())
}
