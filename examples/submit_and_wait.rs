//! Submits jobs to the server of `embedded_server.rs`, waits for their ends, and prints what came of them.
//!
//!     cargo run --example submit_and_wait -- http://127.0.0.1:8080
//!
//! The token, if the server asks for one, is taken from `THREADQ_API_TOKEN`.

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

/// How long to wait for a job.
const PATIENCE: Duration = Duration::from_secs(60);

fn invoice(customer: &str, cents: &[u64]) -> Result<Submission, ClientError> {
    Submission::new("invoice").payload(&Order { customer, cents })
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let mut client = Client::new(&url)?;
    if let Ok(token) = std::env::var("THREADQ_API_TOKEN") {
        client = client.token(token)?;
    }

    // One job. If the answer gets lost it is sent again, and stored once.
    let id = client.submit(&Submission::new("greet").payload("Ada")?.max_attempts(3))?;
    let greeting: String = client.wait(id, PATIENCE)?.result()?;
    println!("{greeting}");

    // Many, all or none. The second one can never work.
    let jobs = [invoice("Ada", &[1250, 499])?, invoice("Bob", &[])?, invoice("Cy", &[100])?];
    for id in client.submit_batch(&jobs)? {
        match client.wait(id, PATIENCE)?.result::<Invoice>() {
            Ok(Invoice { customer, total_cents }) => println!("{customer} owes {total_cents} cents"),
            Err(ClientError::NotCompleted { status, last_error, .. }) => {
                println!("no invoice: {status}, {}", last_error.unwrap_or_default());
            }
            Err(error) => return Err(error.into()),
        }
    }

    // One at a time: while such a job has not ended, another one with its key is refused.
    let nightly =
        Submission::new("countdown").payload(&0)?.delay(Duration::from_secs(3600)).unique_key("nightly");
    let first = client.submit(&nightly)?;
    match client.submit(&nightly) {
        Err(ClientError::Refused(refusal)) if refusal.code == "duplicate" => {
            println!("there is one already: {}", refusal.job_id == Some(first));
        }
        other => return Err(format!("not refused: {other:?}").into()),
    }
    println!("it is {}", client.cancel(first)?.status);
    Ok(())
}
