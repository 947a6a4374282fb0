//! A small HTTP client on a keep-alive connection, and the load of many clients at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A keep-alive connection to a server.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        Client { stream, buffer: Vec::new() }
    }

    /// Sends a request. Returns the status and the body of the response.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let status = self.send(request(method, path, body).as_bytes());
        (status, std::mem::take(&mut self.buffer))
    }

    pub fn json(&mut self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.request(method, path, body);
        assert!(status < 400, "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Sends a complete request. Returns the status; the body of the response stays in the buffer.
    pub fn send(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).expect("the server takes requests");
        self.buffer.clear();
        let (status, head, length) = loop {
            self.read_more();
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut answer = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = answer.parse(&self.buffer).expect("an HTTP answer") {
                let length = answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
                let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok());
                break (answer.code.expect("a status"), head, length.unwrap_or(0));
            }
        };
        while self.buffer.len() < head + length {
            self.read_more();
        }
        self.buffer.drain(..head);
        status
    }

    fn read_more(&mut self) {
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.read(&mut chunk).expect("an answer");
        assert!(read > 0, "the server closed the connection");
        self.buffer.extend_from_slice(&chunk[..read]);
    }
}

/// The text of a request.
pub fn request(method: &str, path: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {length}\r\n\r\n{body}")
}

/// The result of [`load`].
pub struct Load {
    /// Time from the first request to the last response.
    pub time: Duration,
    /// Latency of each request.
    pub ms: Vec<f64>,
}

/// Sends `number` requests over `clients` connections at once, each with its own thread, and uses `requests` in turn.
/// Every response must be a 202.
pub fn load(addr: SocketAddr, clients: usize, number: usize, requests: &[String]) -> Load {
    measured_load(addr, clients, number, requests, || {})
}

/// As [`load`], and calls `sample` when all clients are connected, and again before they disconnect.
pub fn measured_load(
    addr: SocketAddr,
    clients: usize,
    number: usize,
    requests: &[String],
    mut sample: impl FnMut(),
) -> Load {
    let next = AtomicUsize::new(0);
    let step = Barrier::new(clients + 1);
    let run = || {
        let mut client = Client::new(addr);
        let mut ms = Vec::with_capacity(2 * number / clients);
        step.wait();
        step.wait();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= number {
                break;
            }
            let before = Instant::now();
            let status = client.send(requests[turn % requests.len()].as_bytes());
            assert_eq!(status, 202, "{}", String::from_utf8_lossy(&client.buffer));
            ms.push(before.elapsed().as_secs_f64() * 1000.0);
        }
        step.wait();
        step.wait();
        ms
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(run)).collect();
        step.wait();
        sample();
        let started = Instant::now();
        step.wait();
        step.wait();
        let time = started.elapsed();
        sample();
        step.wait();
        let ms = threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect();
        Load { time, ms }
    })
}

/// Sends `request` `each` times by each of `clients` clients at once, each time on a new connection. Returns a text
/// with the number of responses per status; status 0 stands for a connection closed without a response.
pub fn rush(addr: SocketAddr, clients: usize, each: usize, request: &str) -> String {
    let ask = || -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let last = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        stream.write_all(last.as_bytes())?;
        let (mut begin, mut piece) = (Vec::new(), [0; 64 * 1024]);
        loop {
            match stream.read(&mut piece)? {
                0 => break,
                count if begin.len() < 12 => begin.extend_from_slice(&piece[..count.min(12)]),
                _ => {}
            }
        }
        Ok(begin.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).unwrap_or(0))
    };
    let mut counts = std::collections::BTreeMap::new();
    std::thread::scope(|scope| {
        let run = || (0..each).map(|_| ask().unwrap_or(0)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(run)).collect();
        for status in threads.into_iter().flat_map(|thread| thread.join().expect("a client")) {
            *counts.entry(status).or_insert(0) += 1;
        }
    });
    let counts: Vec<String> =
        counts.iter().map(|(status, count)| format!("{count} times {status}")).collect();
    counts.join(", ")
}

/// The requests that submit `echo` jobs, one request per queue: a single job each, or `batch` jobs.
pub fn submissions(payload: &str, queues: &[String], batch: Option<usize>) -> Vec<String> {
    let requests = queues.iter().map(|queue| {
        let job = format!(r#"{{"type":"echo","queue":"{queue}","payload":{payload}}}"#);
        match batch {
            None => request("POST", "/jobs", &job),
            Some(number) => {
                let jobs = vec![job.as_str(); number].join(",");
                request("POST", "/jobs/batch", &format!(r#"{{"jobs":[{jobs}]}}"#))
            }
        }
    });
    requests.collect()
}
