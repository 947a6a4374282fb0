//! Checks that the system has threads left, before a library starts some and panics when it cannot.

use std::io;
use std::sync::{Arc, RwLock};
use std::thread::Builder;

/// Checks that this process may start `number` more threads, by starting and ending them.
///
/// # Errors
/// How many threads could be started, and why the next one could not.
pub fn check_threads(number: usize) -> Result<(), (usize, io::Error)> {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write();
    let mut threads = Vec::with_capacity(number);
    let refused = (0..number).find_map(|_| {
        let gate = gate.clone();
        let thread = Builder::new().name("asked-for".to_owned()).spawn(move || drop(gate.read()));
        thread.map(|thread| threads.push(thread)).err()
    });
    drop(closed);
    let got = threads.len();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    refused.map_or(Ok(()), |error| Err((got, error)))
}
