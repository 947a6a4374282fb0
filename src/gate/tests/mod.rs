//! Tests of the gate with a real tiny_http behind it and raw sockets as clients.

mod handover;
mod permits;
mod protocol;
mod slow_clients;
mod upstream;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::{TempDir, tempdir};

use crate::gate::{CLIENT_HEADER, Gate, Handovers, Limits, PROBE_PATH, Permits, Upstreams};

const HANDLERS: usize = 8;
/// Nothing in these tests takes this long unless a thread hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn no_restart() -> io::Result<PathBuf> {
    Err(io::ErrorKind::NotConnected.into())
}

/// Fails unless `condition` becomes true within [`LIMIT`].
fn eventually(what: &str, condition: impl FnMut() -> bool) {
    crate::wait::eventually(LIMIT, what, condition);
}

/// A small API behind a gate.
///
/// `/nothing` responds 204, `/echo` with the body, `/headers` with the headers that it got, `/big?N` with N bytes, any
/// other path with method and URL. `/drop` drops the request. `/wait` (parked) and `/hold` (not parked) respond after [`Api::release`]; `/wait` also
/// when its client hangs up.
struct Server {
    gate: Gate,
    api: Arc<Api>,
    tiny: Arc<tiny_http::Server>,
    handlers: Vec<JoinHandle<()>>,
    directory: TempDir,
}

struct Api {
    permits: Arc<Permits>,
    handovers: Arc<Handovers>,
    seen: AtomicUsize,
    /// Responses that were written to a client without the gate's thread.
    delivered: AtomicUsize,
    waiting: AtomicUsize,
    /// Whether held requests may be answered.
    released: (Mutex<bool>, Condvar),
}

impl Server {
    fn start(limits: Limits) -> Server {
        Server::with_permits(limits, HANDLERS)
    }

    fn with_permits(limits: Limits, permits: usize) -> Server {
        let directory = tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let tiny = Arc::new(tiny_http::Server::http_unix(&socket).unwrap());
        let permits = Permits::new(permits);
        let upstreams = Upstreams::new(permits.clone(), socket, no_restart);
        let handovers = Handovers::new(&["POST /echo", "POST /hold", "POST /drop"]);
        let api = Arc::new(Api {
            permits,
            handovers: handovers.clone(),
            seen: AtomicUsize::new(0),
            delivered: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            released: Default::default(),
        });
        let handlers = (0..HANDLERS)
            .map(|_| {
                let (tiny, api) = (tiny.clone(), api.clone());
                thread::spawn(move || {
                    while let Ok(request) = tiny.recv() {
                        api.respond(request);
                    }
                })
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate::start(listener, upstreams, handovers, limits).unwrap();
        Server { gate, api, tiny, handlers, directory }
    }

    fn client(&self) -> Client {
        Client::connect(self.gate.local_addr())
    }

    fn connections(&self) -> usize {
        self.gate.shared.connections.count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.api.release();
        self.gate.stop(Duration::ZERO);
        for _ in &self.handlers {
            self.tiny.unblock();
        }
        for handler in self.handlers.drain(..) {
            handler.join().unwrap();
        }
    }
}

impl Api {
    fn respond(&self, mut request: tiny_http::Request) {
        let url = request.url().to_string();
        if url == PROBE_PATH {
            return request.respond(tiny_http::Response::empty(204)).unwrap();
        }
        self.seen.fetch_add(1, SeqCst);
        let body = match url.split('?').next().unwrap() {
            "/echo" => {
                let mut body = Vec::new();
                request.as_reader().read_to_end(&mut body).unwrap();
                body
            }
            "/headers" => {
                let lines = request.headers().iter().map(|header| format!("{header}\n"));
                lines.collect::<String>().into_bytes()
            }
            "/big" => vec![b'x'; url[5..].parse().unwrap()],
            "/wait" => {
                let parked = self.permits.park(Some(client_number(&request)));
                self.waiting.fetch_add(1, SeqCst);
                while !*self.released.0.lock().unwrap() && !parked.client_has_hung_up() {
                    thread::sleep(Duration::from_millis(5));
                }
                self.waiting.fetch_sub(1, SeqCst);
                b"waited".to_vec()
            }
            "/drop" => return drop(request),
            "/nothing" => return request.respond(tiny_http::Response::empty(204)).unwrap(),
            "/hold" => {
                self.hold();
                b"held".to_vec()
            }
            _ => format!("{} {url}", request.method()).into_bytes(),
        };
        let number = client_number(&request);
        let mut unsent = Some((request, tiny_http::Response::from_data(body)));
        let is_delivered = self.handovers.deliver(number, || {
            let (request, response) = unsent.take().unwrap();
            let mut bytes = Vec::new();
            response.raw_print(&mut bytes, (1, 1).into(), &[], false, None).unwrap();
            drop(request.into_writer());
            bytes
        });
        self.delivered.fetch_add(usize::from(is_delivered), SeqCst);
        if let Some((request, response)) = unsent {
            let _ = request.respond(response);
        }
    }

    fn hold(&self) {
        self.waiting.fetch_add(1, SeqCst);
        let released = self.released.0.lock().unwrap();
        drop(self.released.1.wait_while(released, |released| !*released).unwrap());
        self.waiting.fetch_sub(1, SeqCst);
    }

    fn release(&self) {
        *self.released.0.lock().unwrap() = true;
        self.released.1.notify_all();
    }
}

fn client_number(request: &tiny_http::Request) -> u64 {
    let mut headers = request.headers().iter();
    let header = headers.find(|header| header.field.equiv(CLIENT_HEADER)).unwrap();
    header.value.as_str().parse().unwrap()
}

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Response {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Client(BufReader::new(stream))
    }

    fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Best effort: the gate may have closed the connection.
    fn send(&mut self, raw: impl AsRef<[u8]>) {
        let _ = self.stream().write_all(raw.as_ref());
    }

    fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        self.response().unwrap()
    }

    fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()));
        self.send(body);
        self.response().unwrap()
    }

    fn response(&mut self) -> io::Result<Response> {
        let mut response = self.response_head()?;
        let length = response.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        response.body.resize(length, 0);
        self.0.read_exact(&mut response.body)?;
        Ok(response)
    }

    fn response_head(&mut self) -> io::Result<Response> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(line.starts_with("HTTP/1.1 "), "{line:?}");
        let status = line[9..12].parse().unwrap();
        let mut headers = HashMap::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            assert!(headers.insert(name.to_lowercase(), value.to_string()).is_none(), "{name} twice");
        }
        Ok(Response { status, headers, body: Vec::new() })
    }

    /// Whether the gate has closed the connection, and sent nothing before.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

fn quick(request_ms: u64) -> Limits {
    let request_time = Duration::from_millis(request_ms);
    Limits { request_time, max_body: 100_000, ..Limits::default() }
}

fn check_error(response: &Response, input: &str) {
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert!(body["error"].as_str().unwrap().contains(' '), "{input:?}: {body}");
    assert!(!body["code"].as_str().unwrap().contains(' '), "{input:?}: {body}");
    assert_eq!(response.headers["content-type"], "application/json", "{input:?}");
    assert_eq!(response.headers["connection"], "close", "{input:?}");
}
