//! Permits: many requests at a time, pipelining, and parked requests.

use std::net::Shutdown;

use super::*;

#[test]
fn a_client_that_pipelines_does_not_starve_others() {
    let server = Server::with_permits(Limits::default(), 1);
    let mut greedy = server.client();
    greedy.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request holds the only permit", || server.api.waiting.load(SeqCst) == 1);
    let mut other = server.client();
    other.send("GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the other request waits", || server.api.permits.queue_length() == 1);
    greedy.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000));
    server.api.release();
    assert_eq!(other.response().unwrap().body, b"GET /other");
    assert!(server.api.seen.load(SeqCst) < 500, "the other request was served among the pipelined ones");
    assert_eq!(greedy.response().unwrap().body, b"held");
    for _ in 0..1000 {
        assert_eq!(greedy.response().unwrap().body, b"GET /next");
    }
}

#[test]
fn a_parked_request_learns_that_its_client_has_hung_up() {
    let server = Server::start(Limits::default());
    let (mut stayer, mut half, gone) = (server.client(), server.client(), server.client());
    for client in [&stayer, &half, &gone] {
        (&mut client.stream()).write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    eventually("all are parked", || server.api.waiting.load(SeqCst) == 3);
    drop(gone);
    half.stream().shutdown(Shutdown::Write).unwrap();
    eventually("two are answered", || server.api.waiting.load(SeqCst) == 1);
    assert_eq!(half.response().unwrap().body, b"waited");
    eventually("the closed connection is removed", || server.connections() == 1);
    server.api.release();
    assert_eq!(stayer.response().unwrap().body, b"waited");
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
fn a_parked_request_frees_its_permit() {
    let server = Server::with_permits(quick(500), 1);
    let mut waiting: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for (n, client) in waiting.iter_mut().enumerate() {
        client.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
        eventually("the request is parked", || server.api.waiting.load(SeqCst) == n + 1);
    }
    assert_eq!(server.client().get("/").status, 200);
    server.api.release();
    for client in &mut waiting {
        assert_eq!(client.response().unwrap().body, b"waited");
    }
    *server.api.released.0.lock().unwrap() = false;
    // The only permit is back, and no more than one: the next request must wait.
    let mut holder = server.client();
    holder.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request holds the permit", || server.api.waiting.load(SeqCst) == 1);
    let response = server.client().get("/");
    assert_eq!(response.status, 503);
    check_error(&response, "no permit");
    server.api.release();
    assert_eq!(holder.response().unwrap().body, b"held");
    assert_eq!(server.client().get("/").status, 200);
}
