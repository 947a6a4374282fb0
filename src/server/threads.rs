//! Starts named threads.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with a name for debuggers. Fails if the system refuses the thread.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let spawned = Builder::new().name(name.to_owned()).spawn(body);
    spawned
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start the thread \"{name}\": {error}")))
}
