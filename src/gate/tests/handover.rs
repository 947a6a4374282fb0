//! Handed-over requests: the API writes their responses to the clients.

use std::net::Shutdown;

use super::*;

const HOLD: &str = "POST /hold HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";

impl Server {
    /// A client whose request is handed over and held.
    fn held_client(&self) -> Client {
        let before = self.api.waiting.load(SeqCst);
        let mut client = self.client();
        client.send(HOLD);
        eventually("the request is held", || self.api.waiting.load(SeqCst) == before + 1);
        client
    }
}

#[test]
fn the_api_responds_to_quick_requests_only() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    for number in 0..20 {
        let body = format!("body {number}");
        let response = client.post("/echo", body.as_bytes());
        assert_eq!((response.status, response.body), (200, body.into_bytes()));
        assert!(!response.headers.contains_key("connection"));
    }
    eventually("the API wrote all responses", || server.api.delivered.load(SeqCst) == 20);
    eventually("one connection to tiny_http serves all", || server.gate.shared.upstreams.idle_count() == 1);
    assert_eq!(client.post("/echo?x", b"a").body, b"a");
    assert_eq!(client.post("/echo", &[b'a'; 20_000]).body.len(), 20_000);
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
    assert_eq!(client.response().unwrap().body, b"a");
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
    assert_eq!(client.response().unwrap().headers["connection"], "close");
    assert_eq!(server.api.delivered.load(SeqCst), 20, "none of these was handed over");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(Limits::default());
    let mut client = server.held_client();
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na".repeat(50));
    client.send("GET /last HTTP/1.1\r\nHost: h\r\n\r\n");
    server.api.release();
    assert_eq!(client.response().unwrap().body, b"held");
    for _ in 0..50 {
        assert_eq!(client.response().unwrap().body, b"a");
    }
    assert_eq!(client.response().unwrap().body, b"GET /last");
}

#[test]
fn a_client_that_closes_its_sending_half_gets_the_response() {
    let server = Server::start(Limits::default());
    let mut client = server.held_client();
    client.stream().shutdown(Shutdown::Write).unwrap();
    let gone = server.held_client();
    drop(gone);
    server.api.release();
    assert_eq!(client.response().unwrap().body, b"held");
    assert!(client.is_closed());
    eventually("no connection is left", || server.connections() == 0);
}

#[test]
fn a_request_that_the_api_drops_has_a_response() {
    let server = Server::start(Limits { idle_time: Duration::from_millis(100), ..Limits::default() });
    assert_eq!(server.client().post("/drop", b"x").status, 500);
}

#[test]
fn stop_waits_for_handed_over_requests() {
    let server = Server::start(Limits::default());
    let mut client = server.held_client();
    thread::scope(|scope| {
        let stopping = scope.spawn(|| server.gate.stop(LIMIT));
        eventually("the gate stops", || server.gate.shared.is_stopping());
        assert!(!stopping.is_finished());
        server.api.release();
        let response = client.response().unwrap();
        assert_eq!((response.body, response.headers["connection"].as_str()), (b"held".to_vec(), "close"));
        assert!(client.is_closed());
    });
    assert_eq!(server.connections(), 0);
    eventually("the API wrote the response", || server.api.delivered.load(SeqCst) == 1);
}
