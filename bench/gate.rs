//! The cost of the gate: requests per second through the gate, and directly to tiny_http.
//!
//!     cargo bench --bench gate -- --clients 32 --seconds 3 --rounds 3
//!
//! Both use the same number of handler threads, which respond with a few bytes. Keep-alive clients send the next
//! request as soon as they have the response. tiny_http never serves some of its direct clients: these count as 0
//! requests.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use common::flag;
use threadq::internals::gate::{Gate, Handovers, Limits, PROBE_PATH, Permits, Upstreams};

const HANDLERS: usize = 8;

fn main() {
    let clients: usize = flag("clients", 32);
    let seconds: f64 = flag("seconds", 3.0);
    let rounds: usize = flag("rounds", 3);
    let only: String = flag("only", String::new());
    let folder = common::folder("gate");
    let socket = folder.path().join("http.sock");
    let behind = tiny_http::Server::http_unix(&socket).expect("a server");
    let direct = tiny_http::Server::http("127.0.0.1:0").expect("a server");
    let direct_addr = direct.server_addr().to_ip().expect("an address");
    for server in [behind, direct].map(Arc::new) {
        for _ in 0..HANDLERS {
            let server = server.clone();
            thread::spawn(move || answer_all(&server));
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let no_restart = || Err(std::io::ErrorKind::NotConnected.into());
    let upstreams = Upstreams::new(Permits::new(HANDLERS), socket, no_restart);
    let gate = Gate::start(listener, upstreams, Handovers::new(&[]), Limits::default()).expect("a gate");
    let get = "GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let body = format!(r#"{{"type":"no-op","payload":"{}"}}"#, "x".repeat(100));
    let post = format!(
        "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for round in 1..=rounds {
        for (name, request) in [("GET", &get), ("POST", &post)] {
            let run = |kind: &str, addr| {
                if only.is_empty() || only == kind { load(addr, request, clients, seconds) } else { f64::NAN }
            };
            let (direct, gate) = (run("direct", direct_addr), run("gate", gate.local_addr()));
            println!(
                "gate round {round} {name} clients={clients}: {gate:.0}/s through the gate, {direct:.0}/s directly, ratio {:.2}",
                gate / direct
            );
        }
    }
}

fn answer_all(server: &tiny_http::Server) {
    while let Ok(mut request) = server.recv() {
        if request.url() == PROBE_PATH {
            let _ = request.respond(tiny_http::Response::empty(204));
            continue;
        }
        let mut body = Vec::new();
        let _ = request.as_reader().read_to_end(&mut body);
        let _ = request.respond(tiny_http::Response::from_data(&b"{\"status\": \"ok\"}\n"[..]));
    }
}

/// Requests per second of `clients` clients.
fn load(addr: SocketAddr, request: &str, clients: usize, seconds: f64) -> f64 {
    let (count, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(addr).expect("it listens");
                stream.set_nodelay(true).expect("a socket");
                stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
                let mut piece = [0; 4096];
                while !is_over.load(Relaxed) {
                    stream.write_all(request.as_bytes()).expect("it takes requests");
                    // A response is short, so a single read returns it whole. A client without a response ends after 1 s.
                    match stream.read(&mut piece) {
                        Ok(length) if length > 0 => count.fetch_add(1, Relaxed),
                        _ => return,
                    };
                }
            });
        }
        thread::sleep(Duration::from_secs_f64(seconds));
        is_over.store(true, Relaxed);
    });
    count.load(Relaxed) as f64 / seconds
}
