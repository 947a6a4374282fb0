//! tiny_http on its private socket, and the threads that take requests from it.
//!
//! The accept thread of tiny_http panics when the system is out of threads or file descriptors, and then tiny_http accepts
//! no connection any more. So tiny_http can be restarted, on a new socket and with new threads. The old threads serve the
//! connections that are still open, and then end.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Builder};
use std::time::Duration;

use crate::api::private_socket::PrivateSocket;
use crate::gate::threads::check_threads;
use crate::sync;

/// The most requests that are handled at a time, apart from those that the gate hands over.
pub const MAX_REQUESTS: usize = 8;
/// The most threads that handle requests: one for each of these requests, one that sends submissions to Redis, and one
/// that is free for handed-over requests and the gate's probes.
const MAX_THREADS: usize = MAX_REQUESTS + 2;
/// The threads that tiny_http starts with.
const TINY_HTTP_THREADS: usize = 5;
/// A thread ends after this time without a request, if another one waits for requests or its tiny_http was replaced.
const RETIREMENT: Duration = Duration::from_secs(10);

/// Handles a request. Calls the function before it waits for Redis. Returns whether further requests are likely to come at
/// once.
type Handle = Box<dyn Fn(tiny_http::Request, &dyn Fn()) -> bool + Send + Sync>;

/// The tiny_http that is used now, and how to restart it.
pub struct Backend {
    handle: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<TinyHttp>>,
    is_stopped: bool,
}

/// A tiny_http server and its socket.
struct TinyHttp {
    /// Dropped before `socket`, which then wakes the accept thread so that it ends.
    server: tiny_http::Server,
    socket: PrivateSocket,
    threads: Mutex<Threads>,
}

/// The threads that take requests from one tiny_http.
#[derive(Default)]
struct Threads {
    all: usize,
    /// The number of threads that wait for a request.
    waiting: usize,
    /// The number of threads that were started, for their names.
    started: usize,
}

impl Backend {
    /// Every request is passed to `handle`. Nothing is started yet.
    pub fn new(
        handle: impl Fn(tiny_http::Request, &dyn Fn()) -> bool + Send + Sync + 'static,
    ) -> Arc<Backend> {
        Arc::new(Backend { handle: Box::new(handle), state: Mutex::default() })
    }

    /// Starts tiny_http, or a new one in place of the present one. Returns the path of its socket.
    ///
    /// # Errors
    /// When the system has no thread or socket left, or after `stop`. The present tiny_http goes on then.
    pub fn start(self: &Arc<Backend>) -> io::Result<PathBuf> {
        let mut state = self.state();
        if state.is_stopped {
            return Err(io::Error::other("stopped"));
        }
        check_threads(TINY_HTTP_THREADS + MAX_THREADS).map_err(|(_, error)| error)?;
        let (listener, socket) = PrivateSocket::open()?;
        let server = start_tiny_http(listener)?;
        let server = Arc::new(TinyHttp { server, socket, threads: Mutex::default() });
        self.let_another_wait(&server)?;
        state.current = Some(server.clone());
        Ok(server.socket.path().to_owned())
    }

    /// Ends the threads. A thread that handles a request ends after it.
    pub fn stop(&self) {
        let mut state = self.state();
        state.is_stopped = true;
        if let Some(current) = state.current.take() {
            // Each call ends one thread's wait.
            (0..MAX_THREADS).for_each(|_| current.server.unblock());
        }
    }

    /// Starts another thread if none waits for requests.
    fn let_another_wait(self: &Arc<Backend>, server: &Arc<TinyHttp>) -> io::Result<()> {
        let mut threads = sync::lock(&server.threads);
        if threads.waiting > 0 || threads.all >= MAX_THREADS {
            return Ok(());
        }
        let (backend, own) = (self.clone(), server.clone());
        Builder::new().name(format!("api-{}", threads.started)).spawn(move || backend.serve(&own))?;
        threads.all += 1;
        threads.started += 1;
        Ok(())
    }

    /// The work of a thread.
    fn serve(self: &Arc<Backend>, own: &Arc<TinyHttp>) {
        let mut is_busy = false;
        loop {
            let next = if is_busy { next_at_once(&own.server) } else { None };
            if let Some(request) = next {
                is_busy = self.handle(request, own);
                continue;
            }
            sync::lock(&own.threads).waiting += 1;
            // An error is a failed accept(), after which tiny_http accepts no connection.
            let request = own.server.recv_timeout(RETIREMENT).ok().flatten();
            let is_retired = request.is_none() && !self.is_current(own);
            let mut threads = sync::lock(&own.threads);
            threads.waiting -= 1;
            let is_last = threads.waiting == 0;
            match request {
                Some(request) => {
                    drop(threads);
                    is_busy = self.handle(request, own);
                }
                None if is_retired || !is_last => {
                    threads.all -= 1;
                    return;
                }
                None => {}
            }
        }
    }

    fn handle(self: &Arc<Backend>, request: tiny_http::Request, own: &Arc<TinyHttp>) -> bool {
        let _panicked = ReplaceIfPanicked(self, own);
        (self.handle)(request, &|| {
            // If the system refuses a thread, requests wait until another thread is free.
            let _ = self.let_another_wait(own);
        })
    }

    fn is_current(&self, own: &Arc<TinyHttp>) -> bool {
        self.state().current.as_ref().is_some_and(|current| Arc::ptr_eq(current, own))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

/// Lets another thread wait in place of a thread that panics while it handles a request.
struct ReplaceIfPanicked<'a>(&'a Arc<Backend>, &'a Arc<TinyHttp>);

impl Drop for ReplaceIfPanicked<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            sync::lock(&self.1.threads).all -= 1;
            let _ = self.0.let_another_wait(self.1);
        }
    }
}

/// The next request, if there is one after other threads had a chance to run. Taking it without a sleep spares two
/// thread switches.
fn next_at_once(server: &tiny_http::Server) -> Option<tiny_http::Request> {
    let next = || server.try_recv().ok().flatten();
    next().or_else(|| {
        thread::yield_now();
        next()
    })
}

/// Starts tiny_http on a listener. tiny_http does not name its threads, so they get the name of the thread that starts it.
fn start_tiny_http(
    listener: impl Into<tiny_http::Listener> + Send + 'static,
) -> io::Result<tiny_http::Server> {
    let starter = Builder::new().name("tiny_http".to_owned());
    let started = starter.spawn(move || tiny_http::Server::from_listener(listener, None))?.join();
    started
        .map_err(|_| io::Error::other("tiny_http panicked"))?
        .map_err(|error| io::Error::other(error.to_string()))
}
