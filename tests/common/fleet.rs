//! A supervisor that starts a server again whenever the server ends, as a service manager does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::server::{ServerBuilder, TestServer};

/// Keeps one server running until dropped.
pub struct Supervisor {
    stop: Arc<AtomicBool>,
    starts: Arc<AtomicUsize>,
    current: Arc<Mutex<Option<TestServer>>>,
    /// The logs of the servers that have ended.
    logs: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    pub fn start(builder: ServerBuilder) -> Supervisor {
        let stop = Arc::new(AtomicBool::new(false));
        let starts = Arc::new(AtomicUsize::new(1));
        let current = Arc::new(Mutex::new(Some(builder.start())));
        let logs = Arc::new(Mutex::new(String::new()));
        let thread = {
            let (stop, starts, current, logs) = (stop.clone(), starts.clone(), current.clone(), logs.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let mut server = current.lock().expect("not poisoned");
                    if server.as_mut().is_none_or(|server| server.try_wait().is_some()) {
                        let log = server.as_ref().map(TestServer::log_text).unwrap_or_default();
                        logs.lock().expect("not poisoned").push_str(&log);
                        *server = None;
                        // One that a job ends at once is started again at the next look.
                        match builder.try_start() {
                            Ok(started) => *server = Some(started),
                            Err(problem) => logs.lock().expect("not poisoned").push_str(&problem),
                        }
                        starts.fetch_add(1, Ordering::SeqCst);
                    }
                    drop(server);
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        };
        Supervisor { stop, starts, current, logs, thread: Some(thread) }
    }

    /// How often the server was started so far.
    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    /// Kills the running server; the supervisor starts the next one.
    pub fn kill9(&self) {
        if let Ok(mut server) = self.current.lock()
            && let Some(server) = server.as_mut()
        {
            server.kill9();
        }
    }

    /// The logs of all servers that ran.
    pub fn log_text(&self) -> String {
        let current = self.current.lock().expect("not poisoned");
        let last = current.as_ref().map(TestServer::log_text).unwrap_or_default();
        self.logs.lock().expect("not poisoned").clone() + &last
    }

    pub fn log_tail(&self) -> String {
        match self.current.lock() {
            Ok(server) => server.as_ref().map(TestServer::log_tail).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
