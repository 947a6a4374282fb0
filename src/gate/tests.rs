//! The gate with a real tiny_http behind it, and raw sockets in front.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::gate::{CLIENT_HEADER, Gate, Limits, PROBE_PATH, Room, Upstreams};

const HANDLERS: usize = 8;
/// Nothing in these tests takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails unless `condition` comes true in time.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A little API behind a gate.
///
/// `/nothing` answers 204, `/echo` with the body, `/headers` with the headers it got, `/big?N` with N bytes, `/wait`
/// (parked, until its client hangs up) and `/hold` (not parked) when `open_door` is called, anything else with method and URL.
struct Server {
    gate: Gate,
    api: Arc<Api>,
    tiny: Arc<tiny_http::Server>,
    handlers: Vec<JoinHandle<()>>,
    directory: PathBuf,
}

struct Api {
    upstreams: Arc<Upstreams>,
    seen: AtomicUsize,
    waiting: AtomicUsize,
    door: (Mutex<bool>, Condvar),
}

impl Server {
    fn start(limits: Limits) -> Server {
        Server::with_places(limits, HANDLERS)
    }

    fn with_places(limits: Limits, places: usize) -> Server {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("threadq-gate-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let socket = directory.join("api.sock");
        let tiny = Arc::new(tiny_http::Server::http_unix(&socket).unwrap());
        let upstreams = Arc::new(Upstreams::new(places));
        upstreams.lead_to(socket);
        let api = Arc::new(Api {
            upstreams: upstreams.clone(),
            seen: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            door: Default::default(),
        });
        let handlers = (0..HANDLERS)
            .map(|_| {
                let (tiny, api) = (tiny.clone(), api.clone());
                thread::spawn(move || {
                    while let Ok(request) = tiny.recv() {
                        api.answer(request);
                    }
                })
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate::start(listener, upstreams, limits).unwrap();
        Server { gate, api, tiny, handlers, directory }
    }

    fn client(&self) -> Client {
        Client::connect(self.gate.local_addr())
    }

    fn connections(&self) -> usize {
        self.gate.shared.clients.count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.api.open_door();
        self.gate.stop(Duration::ZERO);
        for _ in &self.handlers {
            self.tiny.unblock();
        }
        for handler in self.handlers.drain(..) {
            handler.join().unwrap();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Api {
    fn answer(&self, mut request: tiny_http::Request) {
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
                let mut headers = request.headers().iter();
                let number = headers.find(|header| header.field.equiv(CLIENT_HEADER)).unwrap();
                let parked = self.upstreams.park(number.value.as_str().parse().ok());
                self.waiting.fetch_add(1, SeqCst);
                while !*self.door.0.lock().unwrap() && !parked.client_has_hung_up() {
                    thread::sleep(Duration::from_millis(5));
                }
                self.waiting.fetch_sub(1, SeqCst);
                b"waited".to_vec()
            }
            "/nothing" => return request.respond(tiny_http::Response::empty(204)).unwrap(),
            "/hold" => {
                self.wait_at_door();
                b"held".to_vec()
            }
            _ => format!("{} {url}", request.method()).into_bytes(),
        };
        let _ = request.respond(tiny_http::Response::from_data(body));
    }

    fn wait_at_door(&self) {
        self.waiting.fetch_add(1, SeqCst);
        let open = self.door.0.lock().unwrap();
        drop(self.door.1.wait_while(open, |open| !*open).unwrap());
        self.waiting.fetch_sub(1, SeqCst);
    }

    fn open_door(&self) {
        *self.door.0.lock().unwrap() = true;
        self.door.1.notify_all();
    }
}

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Best effort: the server may have closed already.
    fn send(&mut self, raw: impl AsRef<[u8]>) {
        let _ = self.stream().write_all(raw.as_ref());
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        self.answer().unwrap()
    }

    fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()));
        self.send(body);
        self.answer().unwrap()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.answer_head()?;
        let length = answer.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body.resize(length, 0);
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    fn answer_head(&mut self) -> io::Result<Answer> {
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
        Ok(Answer { status, headers, body: Vec::new() })
    }

    /// Whether the server has closed, and sent nothing more before.
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

/// The table of hostile requests is in `tests/hostile_requests.rs`, against the whole server.
#[test]
fn nothing_that_is_refused_reaches_the_api() {
    let server = Server::start(quick(1000));
    let with = |headers: &str| format!("POST /echo HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    for (raw, status) in [
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + smuggled, 400),
        (with("Content-Length: 5\r\nContent-Length: 6\r\n") + "hello!", 400),
        (with("Content-Length: 100001\r\n"), 413),
        (with("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\nzz\r\n", 400),
        (with("Transfer-Encoding: chunked\r\n") + "5\r\nhel", 408),
        (format!("GET {PROBE_PATH} HTTP/1.1\r\nHost: h\r\n\r\n"), 404),
    ] {
        let mut client = server.client();
        client.send(&raw);
        let answer = client.answer().unwrap_or_else(|error| panic!("{raw:?}: {error}"));
        assert_eq!(answer.status, status, "{raw:?}: {answer:?}");
        check_refusal(&answer, &raw);
        assert!(client.is_closed(), "{raw:?}");
    }
    assert_eq!(server.api.seen.load(SeqCst), 0);
}

fn check_refusal(answer: &Answer, input: &str) {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["error"].as_str().unwrap().contains(' '), "{input:?}: {body}");
    assert!(!body["code"].as_str().unwrap().contains(' '), "{input:?}: {body}");
    assert_eq!(answer.headers["content-type"], "application/json", "{input:?}");
    assert_eq!(answer.headers["connection"], "close", "{input:?}");
}

#[test]
fn requests_that_are_cut_off_are_dropped() {
    let server = Server::start(quick(60_000));
    for raw in ["", "GET / HT", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello"] {
        let mut client = server.client();
        client.send(raw);
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed(), "{raw:?}");
    }
    eventually("all threads end", || server.connections() == 0);
    assert_eq!(server.api.seen.load(SeqCst), 0);
}

#[test]
fn a_client_that_has_closed_its_half_gets_its_answer() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.send("GET /half HTTP/1.1\r\nHost: h\r\n\r\n");
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.answer().unwrap().body, b"GET /half");
    assert!(client.is_closed());
}

#[test]
fn a_connection_serves_request_after_request() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    for length in [0, 1, 100, 1024, 1025, 5000, 100_000, 1 << 20, 7] {
        let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let answer = client.post("/echo", &body);
        assert_eq!((answer.status, answer.body), (200, body));
    }
    assert_eq!(client.get("/last").body, b"GET /last");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_chunked_body_arrives_whole_however_it_is_sent() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n";
    let raw = format!("{head}5\r\nhello\r\n7;ext=\"1\"\r\n, world\r\n0\r\nX: trailer\r\n\r\n");
    client.send(&raw);
    assert_eq!(client.answer().unwrap().body, b"hello, world");
    for byte in raw.as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.answer().unwrap().body, b"hello, world");
    let large = "y".repeat(300_000);
    client.send(format!("{head}{:x}\r\n{large}\r\n{:X}\r\n{large}\r\n0\r\n\r\n", large.len(), large.len()));
    assert_eq!(client.answer().unwrap().body, large.repeat(2).into_bytes());
    client
        .send("POST /headers HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    let headers = String::from_utf8(client.answer().unwrap().body).unwrap();
    assert!(headers.contains("Content-Length: 2\n"), "{headers}");
    assert!(!headers.contains("Transfer-Encoding"), "{headers}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let mut raw = String::new();
    for n in 0..200 {
        raw += &format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n");
        raw += &format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n{n:03}");
    }
    client.send(raw);
    for n in 0..200 {
        assert_eq!(client.answer().unwrap().body, format!("GET /{n}").into_bytes());
        assert_eq!(client.answer().unwrap().body, format!("{n:03}").into_bytes());
    }
}

#[test]
fn a_client_that_pipelines_and_never_reads_is_dropped() {
    let server = Server::start(quick(500));
    let client = server.client();
    let request = b"GET /big?50000 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    // Ends when the server closes: it does not read on while its answers are not taken.
    let sent = (0..100_000).find(|_| (&mut client.stream()).write_all(&request).is_err());
    assert!(sent.is_some());
    eventually("its thread ends", || server.connections() == 0);
    assert!(server.api.seen.load(SeqCst) < 2000, "more was asked for than fits into the sockets");
}

#[test]
fn a_client_that_never_reads_a_large_answer_holds_up_nobody() {
    let server = Server::with_places(quick(4000), 1);
    let mut lazy: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut lazy {
        client.send("GET /big?3000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("all are at work", || server.api.seen.load(SeqCst) == lazy.len());
    assert_eq!(server.client().get("/").status, 200);
    eventually("their threads end", || server.connections() == 0);
}

#[test]
fn a_slow_reader_that_makes_progress_gets_a_large_answer() {
    let server = Server::start(quick(2000));
    let mut client = server.client();
    client.send("GET /big?20000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    let started = Instant::now();
    let mut taken = client.answer_head().unwrap().body.len();
    let mut piece = vec![0; 500_000];
    while taken < 20_000_000 {
        let count = client.0.read(&mut piece).unwrap();
        assert!(count > 0, "dropped after {taken} bytes");
        taken += count;
        thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() > Duration::from_millis(4000), "too fast to show anything");
}

#[test]
fn a_reader_that_is_steady_and_too_slow_is_closed() {
    let server = Server::start(quick(1000));
    let mut client = server.client();
    client.send("GET /big?20000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    // 640 KiB in the time in which it must take 1 MiB.
    let mut piece = vec![0; 32 << 10];
    eventually("its thread ends", || {
        thread::sleep(Duration::from_millis(50));
        let _ = client.0.read(&mut piece);
        server.connections() == 0
    });
}

/// So many clients ask for a large answer, of which the budget holds one, and take nothing of it.
fn hoarders(server: &Server, number: usize) -> Vec<Client> {
    let mut hoarders: Vec<Client> = (0..number).map(|_| server.client()).collect();
    for client in &mut hoarders {
        client.send("GET /big?3000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("all are at work", || server.api.seen.load(SeqCst) >= number);
    hoarders
}

#[test]
fn clients_that_take_no_answers_do_not_keep_large_ones_from_others() {
    // They have a minute, but not where others need the memory.
    let server = Server::start(Limits { max_buffered: 3_000_000, ..quick(60_000) });
    let hoarders = hoarders(&server, 4);
    for _ in 0..3 {
        let answer = server.client().get("/big?3000000");
        assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
    }
    eventually("the hoarders have gone", || server.connections() == 0);
    drop(hoarders);
}

#[test]
fn slow_headers_and_slow_bodies_are_dropped() {
    let server = Server::start(quick(300));
    for start in ["GET / HTTP/1.1\r\nX: ", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n"] {
        let mut client = server.client();
        let sender = client.stream().try_clone().unwrap();
        let started = Instant::now();
        let trickle = thread::spawn(move || {
            let mut sender = &sender;
            let mut next = start.as_bytes();
            while sender.write_all(next).is_ok() && started.elapsed() < PATIENCE {
                next = b"x";
                thread::sleep(Duration::from_millis(30));
            }
        });
        assert_eq!(client.answer().unwrap().status, 408);
        drop(client);
        trickle.join().unwrap();
        assert!(started.elapsed() < PATIENCE);
    }
    eventually("their threads end", || server.connections() == 0);
    assert_eq!(server.api.seen.load(SeqCst), 0);
}

#[test]
fn silent_and_idle_connections_are_closed_without_an_answer() {
    let server = Server::start(Limits { idle_time: Duration::from_millis(200), ..Limits::default() });
    let mut silent = server.client();
    let mut idle = server.client();
    assert_eq!(idle.get("/").status, 200);
    assert!(silent.is_closed());
    assert!(idle.is_closed());
}

#[test]
fn the_connection_that_waits_longest_makes_room() {
    let server = Server::start(Limits { max_connections: 4, ..Limits::default() });
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
        // The table counts in milliseconds.
        thread::sleep(Duration::from_millis(3));
    }
    // The first is no longer the one that has been idle longest, the second has an unfinished request.
    assert_eq!(clients[0].get("/").status, 200);
    clients[1].send("GET / HT");
    let mut newcomer = server.client();
    assert_eq!(newcomer.get("/").status, 200);
    assert_eq!(clients[0].get("/").status, 200);
    assert_eq!(server.connections(), 4);
    let closed = clients.iter_mut().skip(1).filter_map(|client| {
        client.stream().set_nonblocking(true).unwrap();
        client.is_closed().then_some(())
    });
    assert_eq!(closed.count(), 1);
}

#[test]
fn tricklers_make_room_however_many_they_are() {
    let server = Server::start(Limits { max_connections: 8, ..Limits::default() });
    let tricklers: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = server.client();
            client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nh");
            client
        })
        .collect();
    assert_eq!(server.client().get("/").status, 200);
    assert!(server.connections() <= 8);
    drop(tricklers);
}

#[test]
fn when_all_have_a_request_at_work_a_newcomer_is_sent_away() {
    let server = Server::start(Limits { max_connections: 2, ..Limits::default() });
    let mut busy = [server.client(), server.client()];
    for client in &mut busy {
        client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("both are at work", || server.api.waiting.load(SeqCst) == 2);
    let mut newcomer = server.client();
    let answer = newcomer.answer().unwrap();
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"));
    check_refusal(&answer, "newcomer");
    assert!(newcomer.is_closed());
    server.api.open_door();
    for client in &mut busy {
        assert_eq!(client.answer().unwrap().body, b"held");
    }
}

#[test]
fn a_client_that_is_slow_to_take_its_answer_makes_room() {
    let server = Server::start(Limits { max_connections: 2, ..quick(60_000) });
    let mut lazy = [server.client(), server.client()];
    for client in &mut lazy {
        client.send("GET /big?2000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("both are at work", || server.api.seen.load(SeqCst) == 2);
    // They have a minute, but not where others wait.
    eventually("a newcomer is served", || server.client().get("/").status == 200);
}

#[test]
fn a_client_that_pipelines_lets_others_in_between() {
    let server = Server::with_places(Limits::default(), 1);
    let mut greedy = server.client();
    greedy.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("it holds the only place", || server.api.waiting.load(SeqCst) == 1);
    let mut other = server.client();
    other.send("GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the other one waits", || server.api.upstreams.queue_length() == 1);
    greedy.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000));
    server.api.open_door();
    assert_eq!(other.answer().unwrap().body, b"GET /other");
    assert!(server.api.seen.load(SeqCst) < 500, "many of the greedy one's requests went before");
    assert_eq!(greedy.answer().unwrap().body, b"held");
    for _ in 0..1000 {
        assert_eq!(greedy.answer().unwrap().body, b"GET /next");
    }
}

#[test]
fn a_parked_request_learns_that_its_client_has_hung_up() {
    let server = Server::start(Limits::default());
    let (mut stayer, mut half, gone) = (server.client(), server.client(), server.client());
    for client in [&stayer, &half, &gone] {
        (&mut client.stream()).write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    eventually("all wait", || server.api.waiting.load(SeqCst) == 3);
    drop(gone);
    half.stream().shutdown(Shutdown::Write).unwrap();
    eventually("two end", || server.api.waiting.load(SeqCst) == 1);
    assert_eq!(half.answer().unwrap().body, b"waited");
    eventually("the gone one's thread ends", || server.connections() == 1);
    server.api.open_door();
    assert_eq!(stayer.answer().unwrap().body, b"waited");
}

#[test]
fn descriptors_are_kept_back_for_parked_requests_and_the_rest_of_the_process() {
    let most = Room { connections: 512, parked: 100 };
    let room = |descriptors| Room::within(descriptors, most, HANDLERS);
    assert_eq!(room(65_536), most);
    assert_eq!(room(1024), Room { connections: 512, parked: 85 });
    assert_eq!(room(256), Room { connections: 40, parked: 20 });
    assert_eq!(room(64), Room { connections: 8, parked: 4 });
    assert_eq!(Room::within(65_536, Room { connections: 1, parked: 100 }, 8).connections, 1);
}

#[test]
fn a_burst_of_keep_alive_connections_is_served() {
    let server = Server::start(Limits::default());
    thread::scope(|scope| {
        for n in 0..64 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for round in 0..20 {
                    let path = format!("/{n}/{round}");
                    assert_eq!(client.get(&path).body, format!("GET {path}").into_bytes());
                }
            });
        }
    });
}

#[test]
fn a_parked_request_gives_its_place_to_others() {
    let server = Server::with_places(quick(500), 1);
    let mut waiting: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for (n, client) in waiting.iter_mut().enumerate() {
        client.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
        eventually("it waits", || server.api.waiting.load(SeqCst) == n + 1);
    }
    assert_eq!(server.client().get("/").status, 200);
    server.api.open_door();
    for client in &mut waiting {
        assert_eq!(client.answer().unwrap().body, b"waited");
    }
    *server.api.door.0.lock().unwrap() = false;
    // All places are back, and no more than that: one holds up the other.
    let mut holder = server.client();
    holder.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("it holds", || server.api.waiting.load(SeqCst) == 1);
    let answer = server.client().get("/");
    assert_eq!(answer.status, 503);
    check_refusal(&answer, "no place");
    server.api.open_door();
    assert_eq!(holder.answer().unwrap().body, b"held");
    assert_eq!(server.client().get("/").status, 200);
}

#[test]
fn bodies_beyond_the_budget_wait_for_those_at_work_and_small_ones_do_not() {
    let server = Server::start(Limits { max_buffered: 100_000, ..quick(60_000) });
    // A client whose request is at work is not sent away.
    let mut holder = server.client();
    holder.send("POST /hold HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    holder.send(vec![b'x'; 100_000]);
    eventually("it is at work", || server.api.waiting.load(SeqCst) == 1);
    let mut other = server.client();
    other.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n");
    other.send(vec![b'x'; 90_000]);
    assert_eq!(server.client().post("/echo", &[b'x'; 10_000]).status, 200);
    // In the end it is refused.
    assert_eq!(other.answer().unwrap().status, 503);
    server.api.open_door();
    assert_eq!(holder.answer().unwrap().body, b"held");
    assert_eq!(server.client().post("/", &[b'x'; 90_000]).status, 200);
}

#[test]
fn clients_that_announce_large_bodies_and_do_not_send_them_make_room() {
    let server = Server::start(Limits { max_buffered: 100_000, ..quick(60_000) });
    let mut hoarders: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for (client, framing) in hoarders.iter_mut().zip([
        "Content-Length: 100000",
        "Transfer-Encoding: chunked",
        "Content-Length: 100000",
    ]) {
        client.send(format!("POST /echo HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\nC350\r\n"));
        client.send(vec![b'x'; 20_000]);
    }
    for _ in 0..3 {
        assert_eq!(server.client().post("/", &[b'x'; 90_000]).status, 200);
    }
}

#[test]
fn a_client_is_told_to_continue_only_when_its_body_is_wanted() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(head);
    assert_eq!(client.answer_head().unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.answer().unwrap().body, b"hello");
    client.send(format!("{head}hello"));
    assert_eq!(client.answer().unwrap().status, 200);
    client.send("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
}

#[test]
fn the_body_of_a_get_is_dropped_and_holds_nothing_up() {
    let server = Server::with_places(Limits::default(), 1);
    let mut client = server.client();
    client.send("GET /big?5000000 HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 1_000_000]);
    assert_eq!(client.answer().unwrap().body.len(), 5_000_000);
    client.send("GET /headers HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    let headers = String::from_utf8(client.answer().unwrap().body).unwrap();
    assert!(!headers.contains("Content-Length"), "{headers}");
    assert_eq!(client.get("/next").body, b"GET /next");
}

#[test]
fn a_refused_upload_still_sees_its_answer() {
    let server = Server::start(quick(5000));
    let mut client = server.client();
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n");
    client.send(vec![b'x'; 3_000_000]);
    assert_eq!(client.answer().unwrap().status, 413);
    assert!(client.is_closed());
}

#[test]
fn head_answers_have_no_body() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.send("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer_head().unwrap().headers["content-length"], "7");
    assert_eq!(client.get("/y").body, b"GET /y");
    client.send("HEAD * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer_head().unwrap().status, 400);
    assert!(client.is_closed());
}

#[test]
fn an_answer_without_content_has_no_length() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let answer = client.get("/nothing");
    assert_eq!((answer.status, answer.headers.get("content-length")), (204, None));
    client.send("GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().unwrap().headers["connection"], "close");
    assert!(client.is_closed());
}

#[test]
fn connections_are_kept_or_closed_as_the_client_asks() {
    let server = Server::start(Limits::default());
    let cases = [
        ("HTTP/1.1\r\nHost: h", None),
        ("HTTP/1.1\r\nHost: h\r\nConnection: keep-alive", None),
        ("HTTP/1.1\r\nHost: h\r\nConnection: foo, CLOSE", Some("close")),
        ("HTTP/1.0", Some("close")),
        ("HTTP/1.0\r\nConnection: Keep-Alive", Some("keep-alive")),
    ];
    for (rest, told) in cases {
        let mut client = server.client();
        client.send(format!("GET /x {rest}\r\n\r\n"));
        let answer = client.answer().unwrap();
        assert_eq!(answer.headers.get("connection").map(String::as_str), told, "{rest:?}");
        assert_eq!(answer.body, b"GET /x", "{rest:?}");
        if told == Some("close") {
            assert!(client.is_closed(), "{rest:?}");
        } else {
            assert_eq!(client.get("/y").body, b"GET /y", "{rest:?}");
        }
    }
}

#[test]
fn large_answers_keep_their_length() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    for length in [0, 900, 1100, 32_768, 40_000, 5_000_000, 10] {
        let answer = client.get(&format!("/big?{length}"));
        assert_eq!(answer.headers["content-length"], length.to_string());
        assert_eq!(answer.body.len(), length);
    }
}

#[test]
fn without_tiny_http_the_answer_is_502() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstreams = Arc::new(Upstreams::new(2));
    upstreams.lead_to("/nonexistent/api.sock".into());
    let gate = Gate::start(listener, upstreams, Limits::default()).unwrap();
    let answer = Client::connect(gate.local_addr()).get("/");
    assert_eq!(answer.status, 502);
    check_refusal(&answer, "no upstream");
}

#[test]
fn stopping_closes_idle_connections_and_answers_what_is_under_way() {
    let server = Server::start(Limits::default());
    let mut idle = server.client();
    assert_eq!(idle.get("/").status, 200);
    let mut busy = server.client();
    busy.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("it is at work", || server.api.waiting.load(SeqCst) == 1);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| server.gate.stop(PATIENCE));
        assert!(idle.is_closed());
        assert!(!stopping.is_finished());
        server.api.open_door();
        let answer = busy.answer().unwrap();
        assert_eq!((answer.body, answer.headers["connection"].as_str()), (b"held".to_vec(), "close"));
        assert!(busy.is_closed());
    });
    assert_eq!(server.connections(), 0);
    assert!(TcpStream::connect(server.gate.local_addr()).is_err());
}

#[test]
fn probes_ask_on_a_new_connection() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    assert_eq!(client.get("/first").status, 200);
    assert_eq!(client.get("/healthz").body, b"GET /healthz");
    assert_eq!(server.gate.shared.upstreams.idle_count(), 1, "the connection of a probe is not kept");
    std::fs::remove_file(server.directory.join("api.sock")).unwrap();
    assert_eq!(client.get("/second").status, 200, "on the kept connection");
    for probe in ["/healthz", "/readyz", "/readyz?x=1"] {
        let mut client = server.client();
        client.send(format!("GET {probe} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(client.answer().unwrap().status, 503, "{probe}");
    }
}

#[test]
fn stopping_does_not_wait_longer_than_its_grace() {
    let server = Server::start(Limits::default());
    let mut busy = server.client();
    busy.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("it is at work", || server.api.waiting.load(SeqCst) == 1);
    let started = Instant::now();
    server.gate.stop(Duration::from_millis(100));
    assert!(started.elapsed() < PATIENCE);
    assert!(busy.is_closed());
}

/// A server behind the gate that answers the hello and, on each connection, `answers` requests; after the next one
/// it closes without an answer. Gives the gate and the number of requests that it read.
fn unreliable(answers: usize) -> (Gate, Arc<AtomicUsize>, PathBuf) {
    let name = format!("threadq-gate-unreliable-{}-{answers}.sock", std::process::id());
    let socket = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&socket);
    let unix = UnixListener::bind(&socket).unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    thread::spawn(move || {
        for stream in unix.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            for turn in 0..answers + 2 {
                if read_until_empty_line(&mut stream).is_err() {
                    break;
                }
                counter.fetch_add(usize::from(turn > 0), SeqCst);
                let answer: &[u8] = match turn {
                    0 => b"HTTP/1.0 204 No Content\r\n\r\n",
                    turn if turn <= answers => b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
                    _ => b"",
                };
                stream.get_mut().write_all(answer).unwrap();
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstreams = Arc::new(Upstreams::new(1));
    upstreams.lead_to(socket.clone());
    (Gate::start(listener, upstreams, Limits::default()).unwrap(), seen, socket)
}

fn read_until_empty_line(stream: &mut impl BufRead) -> io::Result<()> {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[test]
fn a_get_is_repeated_when_a_kept_connection_fails_and_a_post_is_not() {
    let (gate, seen, socket) = unreliable(1);
    let mut client = Client::connect(gate.local_addr());
    assert_eq!(client.get("/1").status, 200);
    assert_eq!(client.get("/2").status, 200);
    assert_eq!(seen.load(SeqCst), 3, "the second was sent twice");
    assert_eq!(client.post("/3", b"").status, 502);
    assert_eq!(seen.load(SeqCst), 4, "the third was sent once");
    let _ = std::fs::remove_file(socket);
}

#[test]
fn nothing_is_repeated_on_a_new_connection() {
    let (gate, seen, socket) = unreliable(0);
    assert_eq!(Client::connect(gate.local_addr()).get("/").status, 502);
    assert_eq!(seen.load(SeqCst), 1);
    let _ = std::fs::remove_file(socket);
}
