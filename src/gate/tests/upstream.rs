//! The connections to tiny_http, health checks, and stopping.

use std::os::unix::net::UnixListener;

use super::*;

#[test]
fn without_tiny_http_the_response_is_502() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstreams = Upstreams::new(Permits::new(2), "/nonexistent/api.sock".into(), no_restart);
    let gate = Gate::start(listener, upstreams, Handovers::new(&[]), Limits::default()).unwrap();
    let response = Client::connect(gate.local_addr()).get("/");
    assert_eq!(response.status, 502);
    check_error(&response, "no upstream");
}

#[test]
fn stop_closes_idle_connections_and_waits_for_requests_in_progress() {
    let server = Server::start(Limits::default());
    let mut idle = server.client();
    assert_eq!(idle.get("/").status, 200);
    let mut busy = server.client();
    busy.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request is in progress", || server.api.waiting.load(SeqCst) == 1);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| server.gate.stop(LIMIT));
        assert!(idle.is_closed());
        assert!(!stopping.is_finished());
        server.api.release();
        let response = busy.response().unwrap();
        assert_eq!((response.body, response.headers["connection"].as_str()), (b"held".to_vec(), "close"));
        assert!(busy.is_closed());
    });
    assert_eq!(server.connections(), 0);
    assert!(TcpStream::connect(server.gate.local_addr()).is_err());
}

#[test]
fn a_health_check_uses_a_new_connection() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    assert_eq!(client.get("/first").status, 200);
    assert_eq!(client.get("/healthz").body, b"GET /healthz");
    assert_eq!(server.gate.shared.upstreams.idle_count(), 1, "the connection of a health check is not kept");
    std::fs::remove_file(server.directory.path().join("api.sock")).unwrap();
    assert_eq!(client.get("/second").status, 200, "on the kept connection");
    for path in ["/healthz", "/readyz", "/readyz?x=1"] {
        let mut client = server.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(client.response().unwrap().status, 503, "{path}");
    }
}

#[test]
fn stop_waits_no_longer_than_its_grace_period() {
    let server = Server::start(Limits::default());
    let mut busy = server.client();
    busy.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request is in progress", || server.api.waiting.load(SeqCst) == 1);
    let started = Instant::now();
    server.gate.stop(Duration::from_millis(100));
    assert!(started.elapsed() < LIMIT);
    assert!(busy.is_closed());
}

/// A server behind the gate that answers the probe and, on each connection, `answers` requests; it closes the connection
/// without a response to the next one. Returns the gate, the number of requests that the server read, and the folder of
/// its socket.
fn unreliable(answers: usize) -> (Gate, Arc<AtomicUsize>, TempDir) {
    let directory = tempdir().unwrap();
    let socket = directory.path().join("api.sock");
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
                let response: &[u8] = match turn {
                    0 => b"HTTP/1.0 204 No Content\r\n\r\n",
                    turn if turn <= answers => b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
                    _ => b"",
                };
                stream.get_mut().write_all(response).unwrap();
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstreams = Upstreams::new(Permits::new(1), socket, no_restart);
    (Gate::start(listener, upstreams, Handovers::new(&[]), Limits::default()).unwrap(), seen, directory)
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
    let (gate, seen, _directory) = unreliable(1);
    let mut client = Client::connect(gate.local_addr());
    assert_eq!(client.get("/1").status, 200);
    assert_eq!(client.get("/2").status, 200);
    assert_eq!(seen.load(SeqCst), 3, "the second was sent twice");
    assert_eq!(client.post("/3", b"").status, 502);
    assert_eq!(seen.load(SeqCst), 4, "the third was sent once");
}

#[test]
fn nothing_is_repeated_on_a_new_connection() {
    let (gate, seen, _directory) = unreliable(0);
    assert_eq!(Client::connect(gate.local_addr()).get("/").status, 502);
    assert_eq!(seen.load(SeqCst), 1);
}
