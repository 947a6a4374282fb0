//! The load: clients that submit jobs at a fixed rate, and note each answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fixture::http::Connection;
use crate::fixture::json;

/// The number of clients. Half of them begin at each of two servers.
const CLIENTS: usize = 16;
/// How long a client waits for an answer. A server must answer within 3 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// The answer to one POST.
#[derive(Clone, Copy)]
pub struct Answer {
    pub sent: Instant,
    pub at: Instant,
    /// The number of the server in the list of servers.
    pub server: usize,
    /// 0: the connection failed.
    pub status: u16,
    /// The id of a job that was accepted.
    pub id: Option<u64>,
}

impl Answer {
    pub fn is_accepted(&self) -> bool {
        self.status == 202
    }
}

/// The addresses of the servers. A server that is started again has another address.
pub type Servers = Arc<Mutex<Vec<SocketAddr>>>;

pub struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<Answer>>>,
}

impl Load {
    /// Starts clients that together send this number of POSTs a second. A client that waits for an answer leaves out what
    /// it should have sent meanwhile.
    pub fn start(servers: &Servers, rate: f64) -> Load {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let begin = Instant::now();
        let interval = Duration::from_secs_f64(CLIENTS as f64 / rate);
        let clients = (0..CLIENTS).map(|number| {
            let client = Client {
                servers: servers.clone(),
                server: number,
                next: begin + interval.mul_f64(number as f64 / CLIENTS as f64),
                interval,
                stop: stop.clone(),
                accepted: accepted.clone(),
            };
            std::thread::spawn(move || client.run())
        });
        let clients = clients.collect();
        Load { stop, accepted, clients }
    }

    /// The number of jobs accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Ends the load. Returns all answers.
    pub fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    }
}

struct Client {
    servers: Servers,
    server: usize,
    next: Instant,
    interval: Duration,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

impl Client {
    fn run(mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut connection: Option<Connection> = None;
        let body = |delay_ms: u32| {
            let payload = "x".repeat(100);
            json!({"type": "count", "payload": {"text": payload}, "delay_ms": delay_ms}).to_string()
        };
        // Every tenth job waits for the scheduler first.
        let (at_once, later) = (body(0), body(1_000));
        let headers = [("Content-Type", "application/json")];
        for number in 0.. {
            std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let sent = Instant::now();
            self.next = sent.max(self.next) + self.interval;
            let (server, addr) = self.address();
            let reply = match connection.as_mut() {
                Some(connection) => Ok(connection),
                None => Connection::open_with(addr, PATIENCE).map(|opened| connection.insert(opened)),
            }
            .and_then(|connection| {
                let body = if number % 10 == 9 { &later } else { &at_once };
                connection.request("POST", "/jobs", &headers, Some(body.as_bytes()))
            });
            let at = Instant::now();
            let (status, id) = match &reply {
                Ok(reply) => (reply.status, (reply.status == 202).then(|| reply.json()["job_id"].as_u64())),
                Err(_) => (0, None),
            };
            if reply.is_err() || reply.is_ok_and(|reply| reply.header("Connection") == Some("close")) {
                // Another server may work.
                (connection, self.server) = (None, self.server + usize::from(status == 0));
            }
            self.accepted.fetch_add(usize::from(id.is_some()), Ordering::Relaxed);
            answers.push(Answer { sent, at, server, status, id: id.flatten() });
        }
        answers
    }

    fn address(&self) -> (usize, SocketAddr) {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = self.server % servers.len();
        (server, servers[server])
    }
}
