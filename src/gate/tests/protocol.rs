//! Requests and responses: framing, keep-alive, HEAD, rejections.

use std::net::Shutdown;

use super::*;

/// The whole table of hostile requests is in `tests/integration/hostile_requests.rs`.
#[test]
fn a_rejected_request_never_reaches_the_api() {
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
        let response = client.response().unwrap_or_else(|error| panic!("{raw:?}: {error}"));
        assert_eq!(response.status, status, "{raw:?}: {response:?}");
        check_error(&response, &raw);
        assert!(client.is_closed(), "{raw:?}");
    }
    assert_eq!(server.api.seen.load(SeqCst), 0);
}

#[test]
fn an_incomplete_request_is_dropped_when_the_client_closes() {
    let server = Server::start(quick(60_000));
    for raw in ["", "GET / HT", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello"] {
        let mut client = server.client();
        client.send(raw);
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed(), "{raw:?}");
    }
    eventually("all connections are closed", || server.connections() == 0);
    assert_eq!(server.api.seen.load(SeqCst), 0);
}

#[test]
fn a_client_that_has_closed_its_sending_half_gets_its_response() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.send("GET /half HTTP/1.1\r\nHost: h\r\n\r\n");
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.response().unwrap().body, b"GET /half");
    assert!(client.is_closed());
}

#[test]
fn a_connection_serves_request_after_request() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    for length in [0, 1, 100, 1024, 1025, 5000, 100_000, 1 << 20, 7] {
        let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let response = client.post("/echo", &body);
        assert_eq!((response.status, response.body), (200, body));
    }
    assert_eq!(client.get("/last").body, b"GET /last");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_chunked_body_is_forwarded_whole_however_it_is_sent() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n";
    let raw = format!("{head}5\r\nhello\r\n7;ext=\"1\"\r\n, world\r\n0\r\nX: trailer\r\n\r\n");
    client.send(&raw);
    assert_eq!(client.response().unwrap().body, b"hello, world");
    for byte in raw.as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.response().unwrap().body, b"hello, world");
    let large = "y".repeat(300_000);
    client.send(format!("{head}{:x}\r\n{large}\r\n{:X}\r\n{large}\r\n0\r\n\r\n", large.len(), large.len()));
    assert_eq!(client.response().unwrap().body, large.repeat(2).into_bytes());
    client
        .send("POST /headers HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    let headers = String::from_utf8(client.response().unwrap().body).unwrap();
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
        assert_eq!(client.response().unwrap().body, format!("GET /{n}").into_bytes());
        assert_eq!(client.response().unwrap().body, format!("{n:03}").into_bytes());
    }
}

#[test]
fn continue_is_sent_only_when_the_client_waits_for_it() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let head = "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(head);
    assert_eq!(client.response_head().unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.response().unwrap().body, b"hello");
    client.send(format!("{head}hello"));
    assert_eq!(client.response().unwrap().status, 200);
    client.send("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 200);
}

#[test]
fn the_body_of_a_get_is_discarded_and_blocks_nothing() {
    let server = Server::with_permits(Limits::default(), 1);
    let mut client = server.client();
    client.send("GET /big?5000000 HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 1_000_000]);
    assert_eq!(client.response().unwrap().body.len(), 5_000_000);
    client.send("GET /headers HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    let headers = String::from_utf8(client.response().unwrap().body).unwrap();
    assert!(!headers.contains("Content-Length"), "{headers}");
    assert_eq!(client.get("/next").body, b"GET /next");
}

#[test]
fn the_client_of_a_rejected_upload_can_read_the_response() {
    let server = Server::start(quick(5000));
    let mut client = server.client();
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n");
    client.send(vec![b'x'; 3_000_000]);
    assert_eq!(client.response().unwrap().status, 413);
    assert!(client.is_closed());
}

#[test]
fn a_response_to_head_has_no_body() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    client.send("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_head().unwrap().headers["content-length"], "7");
    assert_eq!(client.get("/y").body, b"GET /y");
    client.send("HEAD * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_head().unwrap().status, 400);
    assert!(client.is_closed());
}

#[test]
fn a_204_response_has_no_content_length() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    let response = client.get("/nothing");
    assert_eq!((response.status, response.headers.get("content-length")), (204, None));
    client.send("GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().unwrap().headers["connection"], "close");
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
    for (rest, expected) in cases {
        let mut client = server.client();
        client.send(format!("GET /x {rest}\r\n\r\n"));
        let response = client.response().unwrap();
        assert_eq!(response.headers.get("connection").map(String::as_str), expected, "{rest:?}");
        assert_eq!(response.body, b"GET /x", "{rest:?}");
        if expected == Some("close") {
            assert!(client.is_closed(), "{rest:?}");
        } else {
            assert_eq!(client.get("/y").body, b"GET /y", "{rest:?}");
        }
    }
}

#[test]
fn a_large_response_keeps_its_content_length() {
    let server = Server::start(Limits::default());
    let mut client = server.client();
    for length in [0, 900, 1100, 32_768, 40_000, 5_000_000, 10] {
        let response = client.get(&format!("/big?{length}"));
        assert_eq!(response.headers["content-length"], length.to_string());
        assert_eq!(response.body.len(), length);
    }
}
