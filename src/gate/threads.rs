//! Asks the system for threads before a library does, which would panic without them.

use std::io;
use std::sync::{Arc, RwLock};
use std::thread::Builder;

/// Whether this process may have so many more threads now. They are started, and ended again.
///
/// # Errors
/// How many there were, and why there were no more.
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
