//! Slow clients, a full table of connections, and a spent memory budget.

use super::*;

#[test]
fn a_client_that_pipelines_and_never_reads_is_disconnected() {
    let server = Server::start(quick(500));
    let client = server.client();
    let request = b"GET /big?50000 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    // Ends when the gate closes the connection: it reads no further request while a response is not read.
    let sent = (0..100_000).find(|_| (&mut client.stream()).write_all(&request).is_err());
    assert!(sent.is_some());
    eventually("the connection is closed", || server.connections() == 0);
    assert!(
        server.api.seen.load(SeqCst) < 2000,
        "the gate read more requests than fit into the socket buffers"
    );
}

#[test]
fn a_client_that_never_reads_a_large_response_delays_no_other_client() {
    let server = Server::with_permits(quick(4000), 1);
    let mut lazy: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut lazy {
        client.send("GET /big?3000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("all requests are in progress", || server.api.seen.load(SeqCst) == lazy.len());
    assert_eq!(server.client().get("/").status, 200);
    eventually("their connections are closed", || server.connections() == 0);
}

#[test]
fn a_slow_reader_that_makes_progress_gets_a_large_response() {
    let server = Server::start(quick(2000));
    let mut client = server.client();
    client.send("GET /big?20000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    let started = Instant::now();
    let mut taken = client.response_head().unwrap().body.len();
    let mut chunk = vec![0; 500_000];
    while taken < 20_000_000 {
        let count = client.0.read(&mut chunk).unwrap();
        assert!(count > 0, "disconnected after {taken} bytes");
        taken += count;
        thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() > Duration::from_millis(4000), "too fast to show anything");
}

#[test]
fn a_steady_but_too_slow_reader_is_disconnected() {
    let server = Server::start(quick(1000));
    let mut client = server.client();
    client.send("GET /big?20000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    // 640 KiB in the time in which the client must read 1 MiB.
    let mut chunk = vec![0; 32 << 10];
    eventually("the connection is closed", || {
        thread::sleep(Duration::from_millis(50));
        let _ = client.0.read(&mut chunk);
        server.connections() == 0
    });
}

#[test]
fn clients_that_do_not_read_large_responses_are_evicted_when_others_need_the_memory() {
    // The hoarders have a minute, unless others need the memory, which is enough for one response.
    let server = Server::start(Limits { max_buffered: 3_000_000, ..quick(60_000) });
    let mut hoarders: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut hoarders {
        client.send("GET /big?3000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("all requests are in progress", || server.api.seen.load(SeqCst) >= hoarders.len());
    // Threads that wait for memory get it in no fixed order. A hoarder that gets it last keeps it until others need it.
    eventually("the hoarders are evicted", || {
        if server.connections() == 0 {
            return true;
        }
        let response = server.client().get("/big?3000000");
        assert_eq!((response.status, response.body.len()), (200, 3_000_000));
        false
    });
    drop(hoarders);
}

#[test]
fn slow_headers_and_slow_bodies_time_out() {
    let server = Server::start(quick(300));
    for start in ["GET / HTTP/1.1\r\nX: ", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n"] {
        let mut client = server.client();
        let sender = client.stream().try_clone().unwrap();
        let started = Instant::now();
        let trickle = thread::spawn(move || {
            let mut sender = &sender;
            let mut next = start.as_bytes();
            while sender.write_all(next).is_ok() && started.elapsed() < LIMIT {
                next = b"x";
                thread::sleep(Duration::from_millis(30));
            }
        });
        assert_eq!(client.response().unwrap().status, 408);
        drop(client);
        trickle.join().unwrap();
        assert!(started.elapsed() < LIMIT);
    }
    eventually("their connections are closed", || server.connections() == 0);
    assert_eq!(server.api.seen.load(SeqCst), 0);
}

#[test]
fn silent_and_idle_connections_are_closed_without_a_response() {
    let server = Server::start(Limits { idle_time: Duration::from_millis(200), ..Limits::default() });
    let mut silent = server.client();
    let mut idle = server.client();
    assert_eq!(idle.get("/").status, 200);
    assert!(silent.is_closed());
    assert!(idle.is_closed());
}

#[test]
fn the_connection_that_waits_longest_for_its_client_is_evicted() {
    let server = Server::start(Limits { max_connections: 4, ..Limits::default() });
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
        // The table records milliseconds.
        thread::sleep(Duration::from_millis(3));
    }
    // Now the first connection has not been idle longest, and the second has an incomplete request.
    assert_eq!(clients[0].get("/").status, 200);
    clients[1].send("GET / HT");
    let mut new_client = server.client();
    assert_eq!(new_client.get("/").status, 200);
    assert_eq!(clients[0].get("/").status, 200);
    assert_eq!(server.connections(), 4);
    let closed = clients.iter_mut().skip(1).filter_map(|client| {
        client.stream().set_nonblocking(true).unwrap();
        client.is_closed().then_some(())
    });
    assert_eq!(closed.count(), 1);
}

#[test]
fn any_number_of_slow_senders_is_evicted_for_a_new_client() {
    let server = Server::start(Limits { max_connections: 8, ..Limits::default() });
    let slow_senders: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = server.client();
            client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nh");
            client
        })
        .collect();
    assert_eq!(server.client().get("/").status, 200);
    assert!(server.connections() <= 8);
    drop(slow_senders);
}

#[test]
fn a_new_client_gets_503_when_all_connections_are_busy() {
    let server = Server::start(Limits { max_connections: 2, ..Limits::default() });
    let mut busy = [server.client(), server.client()];
    for client in &mut busy {
        client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("both requests are in progress", || server.api.waiting.load(SeqCst) == 2);
    let mut new_client = server.client();
    let response = new_client.response().unwrap();
    assert_eq!((response.status, response.headers["retry-after"].as_str()), (503, "1"));
    check_error(&response, "new_client");
    assert!(new_client.is_closed());
    server.api.release();
    for client in &mut busy {
        assert_eq!(client.response().unwrap().body, b"held");
    }
}

#[test]
fn a_client_that_is_slow_to_read_its_response_is_evicted_for_a_new_client() {
    let server = Server::start(Limits { max_connections: 2, ..quick(60_000) });
    let mut lazy = [server.client(), server.client()];
    for client in &mut lazy {
        client.send("GET /big?2000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("both requests are in progress", || server.api.seen.load(SeqCst) == 2);
    // They have a minute, unless others wait.
    eventually("a new client is served", || server.client().get("/").status == 200);
}

#[test]
fn large_bodies_wait_for_memory_and_small_ones_do_not() {
    let server = Server::start(Limits { max_buffered: 100_000, ..quick(60_000) });
    // A connection with a request in progress is not evicted.
    let mut holder = server.client();
    holder.send("POST /hold HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    holder.send(vec![b'x'; 100_000]);
    eventually("the request is in progress", || server.api.waiting.load(SeqCst) == 1);
    let mut other = server.client();
    other.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n");
    other.send(vec![b'x'; 90_000]);
    assert_eq!(server.client().post("/echo", &[b'x'; 10_000]).status, 200);
    // It is rejected after the timeout.
    assert_eq!(other.response().unwrap().status, 503);
    server.api.release();
    assert_eq!(holder.response().unwrap().body, b"held");
    assert_eq!(server.client().post("/", &[b'x'; 90_000]).status, 200);
}

#[test]
fn clients_that_announce_large_bodies_and_do_not_send_them_are_evicted() {
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
