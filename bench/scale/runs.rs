//! The handler of the jobs: an HTTP server in this process that counts how often each job runs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a job runs.
const RUN_TIME: Duration = Duration::from_millis(20);

/// When each job ran. Clones share the runs.
#[derive(Clone)]
pub struct Runs {
    addr: SocketAddr,
    runs: Arc<Mutex<HashMap<u64, Vec<Instant>>>>,
}

impl Runs {
    /// Starts the HTTP server, which runs until the end of the process.
    pub fn listen() -> Runs {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let runs = Runs { addr: listener.local_addr().expect("it is bound"), runs: Arc::default() };
        let all = runs.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = all.clone();
                // The connection of a server that was killed ends with an error.
                std::thread::spawn(move || all.serve(stream));
            }
        });
        runs
    }

    /// A configuration file with the handler of the type `count`.
    pub fn config(&self) -> String {
        format!("[handlers.count]\nhttp = \"http://{}/\"\nbackoff = {{ base = \"100ms\" }}\n", self.addr)
    }

    /// The runs of each job so far.
    pub fn by_job(&self) -> HashMap<u64, Vec<Instant>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        loop {
            let (mut id, mut length) = (None, 0);
            let mut line = String::new();
            while stream.read_line(&mut line)? > 0 && line != "\r\n" {
                if let Some((name, value)) = line.split_once(':') {
                    match name.to_ascii_lowercase().as_str() {
                        "threadq-job-id" => id = value.trim().parse().ok(),
                        "content-length" => length = value.trim().parse().unwrap_or(0),
                        _ => {}
                    }
                }
                line.clear();
            }
            let Some(id) = id else { return Ok(()) };
            std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            runs.entry(id).or_default().push(Instant::now());
            drop(runs);
            std::thread::sleep(RUN_TIME);
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
        }
    }
}
