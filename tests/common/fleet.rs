//! A server that is started again whenever it dies, as a service manager would.

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
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    pub fn start(builder: ServerBuilder) -> Supervisor {
        let stop = Arc::new(AtomicBool::new(false));
        let starts = Arc::new(AtomicUsize::new(1));
        let current = Arc::new(Mutex::new(Some(builder.start())));
        let thread = {
            let (stop, starts, current) = (stop.clone(), starts.clone(), current.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let mut server = current.lock().expect("not poisoned");
                    if server.as_mut().is_none_or(|server| server.try_wait().is_some()) {
                        *server = None;
                        *server = Some(builder.start());
                        starts.fetch_add(1, Ordering::SeqCst);
                    }
                    drop(server);
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        };
        Supervisor { stop, starts, current, thread: Some(thread) }
    }

    /// How often it was started so far.
    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    /// Kills the one that runs; the next one comes by itself.
    pub fn kill9(&self) {
        if let Ok(mut server) = self.current.lock()
            && let Some(server) = server.as_mut()
        {
            server.kill9();
        }
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
