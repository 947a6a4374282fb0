//! tiny_http on its private socket, and the threads that take requests from it.
//!
//! tiny_http panics on its accept thread when the system has no thread or no descriptor to give, and from then on nobody
//! can connect to it. So it can be started again, on another socket and with other threads. The old ones serve the
//! connections that are still open, and end.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::Duration;

use crate::api::private_socket::Door;
use crate::gate::threads;
use crate::sync;

/// Threads that answer requests. Each waits for Redis once per request, so a few keep it busy.
pub const THREADS: usize = 8;
/// The threads that tiny_http starts with.
const TINY_HTTP_THREADS: usize = 5;
/// A thread whose tiny_http was replaced ends after so long without a request.
const RETIREMENT: Duration = Duration::from_secs(60);

type Answer = Box<dyn Fn(tiny_http::Request) + Send + Sync>;

/// The tiny_http that is used now, and how to get another one.
pub struct Backend {
    answer: Answer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<TinyHttp>>,
    is_stopped: bool,
}

/// One tiny_http with the way to it.
struct TinyHttp {
    /// Dropped before the door, which wakes its accept thread for the last time.
    server: tiny_http::Server,
    door: Door,
}

impl Backend {
    /// Every request will be given to `answer`. Nothing is started yet.
    pub fn new(answer: impl Fn(tiny_http::Request) + Send + Sync + 'static) -> Arc<Backend> {
        Arc::new(Backend { answer: Box::new(answer), state: Mutex::default() })
    }

    /// Starts tiny_http, or another one in its place. Gives the socket that it listens on.
    ///
    /// # Errors
    /// Where the system refuses a thread or a socket, or all this was stopped. What there was goes on.
    pub fn start(self: &Arc<Backend>) -> io::Result<PathBuf> {
        let mut state = self.state();
        if state.is_stopped {
            return Err(io::Error::other("stopped"));
        }
        threads::check_threads(TINY_HTTP_THREADS + THREADS).map_err(|(_, error)| error)?;
        let (listener, door) = Door::open()?;
        let server = start_tiny_http(listener)?;
        let server = Arc::new(TinyHttp { server, door });
        state.current = Some(server.clone());
        for number in 0..THREADS {
            let (backend, server) = (self.clone(), server.clone());
            Builder::new().name(format!("api-{number}")).spawn(move || backend.serve(&server))?;
        }
        Ok(server.door.path().to_owned())
    }

    /// Ends its threads. Those that answer a request end with it.
    pub fn stop(&self) {
        let mut state = self.state();
        state.is_stopped = true;
        if let Some(current) = state.current.take() {
            // Each call frees one thread.
            (0..THREADS).for_each(|_| current.server.unblock());
        }
    }

    fn serve(&self, own: &Arc<TinyHttp>) {
        loop {
            // An error is one of accepting a connection, which was the last one then.
            match own.server.recv_timeout(RETIREMENT) {
                Ok(Some(request)) => (self.answer)(request),
                Ok(None) | Err(_) if !self.is_current(own) => return,
                Ok(None) | Err(_) => {}
            }
        }
    }

    fn is_current(&self, own: &Arc<TinyHttp>) -> bool {
        self.state().current.as_ref().is_some_and(|current| Arc::ptr_eq(current, own))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

/// Starts tiny_http on a listener. It names none of its threads: so they get the name of the thread that starts it.
fn start_tiny_http(
    listener: impl Into<tiny_http::Listener> + Send + 'static,
) -> io::Result<tiny_http::Server> {
    let starter = Builder::new().name("tiny_http".to_owned());
    let started = starter.spawn(move || tiny_http::Server::from_listener(listener, None))?.join();
    started
        .map_err(|_| io::Error::other("tiny_http panicked"))?
        .map_err(|error| io::Error::other(error.to_string()))
}
