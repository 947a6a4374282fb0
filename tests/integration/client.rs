//! The client of the library against a real server: values arrive unchanged, each kind of refusal has its own error,
//! and a job whose request or response is lost is stored once.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use crate::common::*;
use serde::{Deserialize, Serialize};
use threadq::client::{Client, Error, Listing, Refusal, Submission, Unique};
use threadq::job::{JobId, Status};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Video {
    file: String,
    sizes: Vec<u32>,
}

fn video() -> Video {
    Video { file: "ü.mov".to_owned(), sizes: vec![480, 1080] }
}

fn client(addr: SocketAddr) -> Client {
    Client::new(&format!("http://{addr}")).unwrap()
}

/// A Redis, a server on it, and a client of that server.
fn all() -> (TestRedis, TestServer, Client) {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let client = client(server.addr());
    (redis, server, client)
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn a_typed_payload_goes_in_and_a_typed_result_comes_out() {
    let (_redis, _server, client) = all();
    let id = client.submit(&Submission::new("echo").payload(&video()).unwrap()).unwrap().id;
    let job = client.wait(id, LIMIT).unwrap();
    assert_eq!((job.id, job.status, job.attempts), (id, Status::Completed, 1));
    assert_eq!(job.result::<Video>().unwrap(), video());
    assert_eq!(client.get(id).unwrap().payload::<Video>().unwrap(), video());
    let error = job.result::<u64>().unwrap_err();
    assert!(matches!(error, Error::Unreadable(_)), "{error:?}");
    assert!(
        error.to_string().starts_with(&format!("the result of job {id} does not have the expected form: ")),
        "{error}"
    );
}

#[test]
fn jobs_are_listed_page_by_page() {
    let (_redis, server, client) = all();
    let batch: Vec<_> =
        (0..7).map(|n| Submission::new("Größe ☃").payload(&n).unwrap().queue("nobody")).collect();
    let ids = client.submit_batch(&batch).unwrap();
    let large = client.submit(&Submission::new("echo").payload(&"x".repeat(20_000)).unwrap()).unwrap().id;
    let job_type = Some("Größe ☃".to_owned());
    let mut listing = Listing { status: Some(Status::Queued), job_type, limit: 3, ..Listing::default() };
    let mut seen = Vec::new();
    let mut totals = Vec::new();
    loop {
        let page = client.list(&listing).unwrap();
        totals.push(page.total);
        seen.extend(page.jobs.iter().map(|job| job.id));
        let Some(next) = page.next else { break };
        listing.before = Some(next);
    }
    seen.reverse();
    assert_eq!((seen, totals), (ids, vec![7; 3]));

    server.wait_for_status(large.get(), "completed");
    let page = client.list(&Listing { limit: 1, ..Listing::default() }).unwrap();
    assert_eq!(page.jobs[0].omitted, ["payload", "result"]);
    for error in [page.jobs[0].payload::<String>().unwrap_err(), page.jobs[0].result::<String>().unwrap_err()]
    {
        assert!(
            matches!(&error, Error::Unreadable(cause) if cause.message().contains("too large for a listing")),
            "{error}"
        );
    }
    assert_eq!(client.get(large).unwrap().payload::<String>().unwrap().len(), 20_000);
    let error = client.list(&Listing { limit: 101, ..Listing::default() }).unwrap_err();
    assert_eq!(refusal(error).code, "invalid_query");
}

#[test]
fn a_batch_keeps_its_order() {
    let (_redis, _server, client) = all();
    let jobs: Vec<Submission> = (0..20).map(|n| Submission::new("echo").payload(&n).unwrap()).collect();
    let ids = client.submit_batch(&jobs).unwrap();
    let results: Vec<u32> = ids.iter().map(|id| client.wait(*id, LIMIT).unwrap().result().unwrap()).collect();
    assert_eq!(results, (0..20).collect::<Vec<_>>());
    assert_eq!(refusal(client.submit_batch(&[]).unwrap_err()).code, "invalid_job");
}

#[test]
fn everything_that_a_submission_says_is_stored() {
    let (_redis, _server, client) = all();
    let submission = Submission::new("Encode Video")
        .payload(&video())
        .unwrap()
        .queue("video")
        .delay(secs(3600))
        .max_attempts(7)
        .timeout(ms(1500))
        .unique_key("a key");
    let job = client.get(client.submit(&submission).unwrap().id).unwrap();
    let shown = (job.job_type.as_str(), job.queue.as_str(), job.status, job.max_attempts, job.timeout_ms);
    assert_eq!(shown, ("Encode Video", "video", Status::Scheduled, 7, 1500));
    assert_eq!(job.unique_key.as_deref(), Some("a key"));
    let delay = time_ms(&json!(job.scheduled_at)) - time_ms(&json!(job.created_at));
    assert!((3_600_000..3_601_000).contains(&delay), "{delay}");

    let at = SystemTime::UNIX_EPOCH + ms(now_ms() + 7_200_000);
    let job = client.get(client.submit(&Submission::new("a").run_at(at)).unwrap().id).unwrap();
    let at_ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert_eq!((job.status, time_ms(&json!(job.scheduled_at))), (Status::Scheduled, at_ms));
}

#[test]
fn extra_fields_are_stored_and_read_back() {
    let (_redis, _server, client) = all();
    let submission = Submission::new("a")
        .delay(secs(3600))
        .expires_in(secs(7200))
        .retain(secs(60))
        .tag("customer 42")
        .tag("é")
        .meta("traceparent", "00-4bf9")
        .unique(Unique::key("k").until_start());
    let job = client.get(client.submit(&submission).unwrap().id).unwrap();
    assert_eq!((job.tags, job.retain_ms), (vec!["customer 42".to_owned(), "é".to_owned()], Some(60_000)));
    assert_eq!(job.meta, BTreeMap::from([("traceparent".to_owned(), "00-4bf9".to_owned())]));
    assert_eq!((job.unique_key.as_deref(), job.snoozes, job.schedule), (Some("k"), 0, None));
    let life = time_ms(&json!(job.expires_at)) - time_ms(&json!(job.created_at));
    assert!((7_200_000..7_201_000).contains(&life), "{life}");
    assert_eq!(job.cancel_reason, None);
    assert_eq!(client.cancel(job.id).unwrap().cancel_reason.as_deref(), Some("request"));

    let at = SystemTime::UNIX_EPOCH + ms(now_ms() + 7_200_000);
    let job = client.get(client.submit(&Submission::new("a").expires_at(at)).unwrap().id).unwrap();
    let at_ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert_eq!(time_ms(&json!(job.expires_at)), at_ms);
}

#[test]
fn a_submission_says_whether_it_found_another_job() {
    let (_redis, server, client) = all();
    let job = |unique| Submission::new("a").queue("nobody").unique(unique);
    let stored = client.submit(&job(Unique::key("k").existing())).unwrap();
    assert_eq!((stored.status, stored.existing, stored.replaced), (Some(Status::Queued), false, false));
    let found = client.submit(&job(Unique::key("k").existing())).unwrap();
    assert_eq!((found.id, found.existing, found.replaced), (stored.id, true, false));

    let debounced = |n: u32| {
        let unique = Unique::key("l").replace().max_wait(secs(7200));
        client.submit(&job(unique).payload(&n).unwrap().delay(secs(3600))).unwrap()
    };
    let (first, second) = (debounced(1), debounced(2));
    assert_eq!((second.id, second.existing, second.replaced), (first.id, false, true));
    assert_eq!(second.status, Some(Status::Scheduled));
    assert_eq!(client.get(first.id).unwrap().payload::<u32>().unwrap(), 2);
    assert_eq!(server.total(""), 2);
}

#[test]
fn waiting_ends_with_its_time_and_the_job_goes_on() {
    let (_redis, _server, client) = all();
    let sleep = BTreeMap::from([("ms", 600_000)]);
    let id = client.submit(&Submission::new("sleep").payload(&sleep).unwrap()).unwrap().id;
    let begun = Instant::now();
    let job = client.wait(id, ms(700)).unwrap();
    assert!(begun.elapsed() >= ms(700) && !job.has_ended(), "{job:?} after {:?}", begun.elapsed());
    let error = job.result::<()>().unwrap_err();
    assert!(matches!(error, Error::NotCompleted { status, .. } if !status.is_final()), "{error:?}");

    // Another client waits for the job while this client cancels it.
    let waiting = thread::spawn({
        let client = client.clone();
        move || client.wait(id, LIMIT).unwrap().status
    });
    eventually(LIMIT, "it runs", || client.get(id).unwrap().status == Status::Processing);
    client.cancel(id).unwrap();
    assert_eq!(waiting.join().unwrap(), Status::Cancelled);
    assert_eq!(refusal(client.cancel(id).unwrap_err()).code, "wrong_status");
}

#[test]
fn where_too_many_wait_already_the_client_asks_again_and_again() {
    let redis = TestRedis::start();
    // Half as many requests may wait.
    let server = TestServer::builder().redis(&redis).flag("max-connections", "8").start();
    let held = server.submit("sleep", json!({"ms": 600_000}));
    let path = format!("/jobs/{held}?wait=60s");
    let mut waiting = Vec::new();
    eventually(LIMIT, "no more may wait", || {
        let mut connection = crate::common::http::Connection::open_with(server.addr(), ms(300)).unwrap();
        connection.send("GET", &path, &[], None).unwrap();
        match connection.receive(false) {
            Ok(reply) => reply.expect(503).json()["code"] == "too_many_waiting",
            Err(_) => {
                waiting.push(connection);
                false
            }
        }
    });
    let way = Way::to(server.addr());
    let client = client(way.addr);
    let sleep = BTreeMap::from([("ms", 1500)]);
    let id = client.submit(&Submission::new("sleep").payload(&sleep).unwrap()).unwrap().id;
    let begun = Instant::now();
    assert_eq!(client.wait(id, LIMIT).unwrap().status, Status::Completed);
    let most = begun.elapsed().as_millis() as usize / 250 + 2;
    let asked = way.take_heads(&format!("GET /jobs/{id} ")).len();
    assert!((2..=most).contains(&asked), "asked {asked} times in {:?}", begun.elapsed());
}

#[test]
fn a_failed_job_tells_why_and_can_be_sent_back_and_forgotten() {
    let (_redis, server, client) = all();
    let fail = json!({"permanent": true, "message": "no such film"});
    let id = client.submit(&Submission::new("fail").payload(&fail).unwrap()).unwrap().id;
    let job = client.wait(id, LIMIT).unwrap();
    assert_eq!((job.status, job.errors.len(), job.errors[0].attempt), (Status::Failed, 1, 1));
    assert!(job.errors[0].message.contains("no such film"), "{job:?}");
    match job.result::<Value>().unwrap_err() {
        Error::NotCompleted { id: of, status: Status::Failed, last_error: Some(error) } => {
            assert_eq!(of, id);
            assert!(error.contains("no such film"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // Paused, so that the next attempt does not begin before the response is made.
    server.act("/queues/default/pause").expect(200);
    assert_eq!(client.retry(id).unwrap().attempts, 0);
    server.act("/queues/default/resume").expect(200);
    assert_eq!(client.wait(id, LIMIT).unwrap().status, Status::Failed);
    client.delete(id).unwrap();
    let gone = refusal(client.get(id).unwrap_err());
    assert_eq!((gone.status, gone.code.as_str()), (404, "not_found"));
    assert_eq!(refusal(client.wait(id, LIMIT).unwrap_err()).status, 404);
}

#[test]
fn refusals_can_be_told_apart() {
    let redis = TestRedis::start();
    let server = TestServer::builder()
        .redis(&redis)
        .env("THREADQ_API_TOKEN", "s3cret")
        .flag("max-queue-length", "2")
        .start();
    let stranger = client(server.addr());
    let error = stranger.submit(&Submission::new("echo")).unwrap_err();
    assert_eq!((error.code(), error.is_transient()), (Some("unauthorized"), false));

    let client = stranger.token("s3cret").unwrap();
    let unique = Submission::new("a").queue("nobody").unique_key("k");
    let first = client.submit(&unique).unwrap().id;
    let duplicate = refusal(client.submit(&unique).unwrap_err());
    let shown = (duplicate.status, duplicate.code.as_str(), duplicate.job_id);
    assert_eq!(shown, (409, "duplicate", Some(first)));

    let wrong = refusal(client.submit(&Submission::new("a").max_attempts(101)).unwrap_err());
    assert_eq!((wrong.status, wrong.code.as_str()), (400, "invalid_job"));
    assert!(wrong.message.contains("max_attempts"), "{wrong:?}");

    client.submit(&Submission::new("a").queue("nobody")).unwrap();
    let error = client.submit(&Submission::new("a").queue("nobody")).unwrap_err();
    assert!(!error.is_transient(), "a full queue is the caller's to bear: {error:?}");
    let full = refusal(error);
    assert_eq!((full.code.as_str(), full.retry_after), ("queue_full", Some(secs(1))));
}

#[test]
fn the_same_key_is_the_same_job() {
    let (_redis, server, client) = all();
    let job = Submission::new("echo").payload("one").unwrap();
    let first = client.submit_once("order-17", &job).unwrap();
    assert_eq!(client.submit_once("order-17", &job).unwrap(), first);
    let other = Submission::new("echo").payload("two").unwrap();
    assert_eq!(refusal(client.submit_once("order-17", &other).unwrap_err()).code, "idempotency_mismatch");
    let ids = client.submit_batch_once("orders", &[job.clone(), other.clone()]).unwrap();
    assert_eq!(client.submit_batch_once("orders", &[job.clone(), other]).unwrap(), ids);
    assert_ne!(
        client.submit(&job).unwrap().id,
        client.submit(&job).unwrap().id,
        "without a key they are two"
    );
    assert_eq!(server.total(""), 5);
}

#[test]
fn a_job_whose_answer_is_lost_is_stored_once() {
    let (_redis, server, _) = all();
    let way = Way::to(server.addr());
    let client = client(way.addr).retry_requests_for(LIMIT);

    way.lose_answers(2);
    let id = client.submit(&Submission::new("echo").payload("x").unwrap()).unwrap().id;
    assert_eq!(way.take_heads("POST /jobs ").len(), 3, "it was sent three times");

    way.lose_answers(1);
    let ids = client.submit_batch(&[Submission::new("echo"), Submission::new("echo")]).unwrap();
    assert_eq!(way.take_heads("POST /jobs/batch ").len(), 2);
    assert_eq!(server.total(""), 3);

    way.lose_answers(2);
    assert_eq!(client.wait(id, LIMIT).unwrap().result::<String>().unwrap(), "x");
    way.lose_answers(1);
    assert_eq!(client.get(ids[1]).unwrap().id, ids[1]);
}

#[test]
fn without_retries_a_lost_response_is_an_error_and_the_key_finds_the_job() {
    let (_redis, server, _) = all();
    let way = Way::to(server.addr());
    let client = client(way.addr).retry_requests_for(Duration::ZERO);
    way.lose_answers(1);
    let job = Submission::new("echo");
    let error = client.submit_once("k", &job).unwrap_err();
    assert!(matches!(error, Error::NoResponse(_)) && error.is_transient(), "{error:?}");
    assert_eq!((way.take_heads("POST /jobs ").len(), server.total("")), (1, 1));
    client.submit_once("k", &job).unwrap();
    assert_eq!(server.total(""), 1);

    way.lose_answers(1);
    let error = client.cancel(JobId::new(1).unwrap()).unwrap_err();
    assert!(matches!(error, Error::NoResponse(_)), "{error:?}");
    assert_eq!(way.take_heads("POST /jobs/1/cancel").len(), 1, "what is not safe to repeat is sent once");
}

#[test]
fn a_redis_that_is_away_for_a_while_is_waited_for() {
    let (redis, server, _) = all();
    let way = Way::to(server.addr());
    let client = client(way.addr).retry_requests_for(LIMIT);
    redis.pause();
    let submitting = thread::spawn({
        let client = client.clone();
        move || client.submit(&Submission::new("echo").payload("x").unwrap())
    });
    eventually(LIMIT, "it was told twice that Redis is away", || way.count_of_status(503) >= 2);
    redis.resume();
    let id = submitting.join().unwrap().unwrap().id;
    assert_eq!(client.wait(id, LIMIT).unwrap().result::<String>().unwrap(), "x");
    assert_eq!(server.total(""), 1);

    redis.pause();
    let error = client.retry_requests_for(Duration::ZERO).submit(&Submission::new("echo")).unwrap_err();
    redis.resume();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(refusal(error).code, "store_unavailable");
}

#[test]
fn what_a_server_says_before_it_has_read_all_is_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(listener.local_addr().unwrap()).retry_requests_for(Duration::ZERO);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 4096]).unwrap();
        let body = r#"{"error": "the body is too large", "code": "body_too_large"}"#;
        let length = body.len();
        let answer = format!("HTTP/1.1 413 X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        // Write the response in one segment: a close with unread input discards data that is not sent yet.
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let large = Submission::new("echo").payload(&"x".repeat(12 << 20)).unwrap();
    let refusal = refusal(client.submit(&large).unwrap_err());
    assert_eq!((refusal.status, refusal.code.as_str()), (413, "body_too_large"));
    server.join().unwrap();
}

#[test]
fn a_server_that_is_not_there_is_unreachable_until_it_comes() {
    let addr = SocketAddr::from(([127, 0, 0, 1], node::free_port()));
    let nobody = client(addr).retry_requests_for(ms(300));
    let begun = Instant::now();
    let error = nobody.submit(&Submission::new("echo")).unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)) && error.is_transient(), "{error:?}");
    assert!(begun.elapsed() >= ms(300), "it was asked for longer than {:?}", begun.elapsed());

    let submitting = thread::spawn(move || nobody.retry_requests_for(LIMIT).submit(&Submission::new("echo")));
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).start_unheard(addr);
    submitting.join().unwrap().unwrap();
    assert_eq!(server.total(""), 1);
}

#[test]
fn a_silent_server_is_a_timeout() {
    // Accepts connections and never responds.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(listener.local_addr().unwrap()).timeout(ms(200)).retry_requests_for(Duration::ZERO);
    let begun = Instant::now();
    let error = client.submit(&Submission::new("echo")).unwrap_err();
    assert!(matches!(error, Error::NoResponse(_)), "{error:?}");
    assert!(begun.elapsed() < secs(9), "given up after {:?}", begun.elapsed());
}

#[test]
fn a_server_that_sends_its_headers_byte_by_byte_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(listener.local_addr().unwrap()).timeout(ms(500)).retry_requests_for(Duration::ZERO);
    let sending = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let begun = Instant::now();
        // Each pause is shorter than the timeout.
        while begun.elapsed() < LIMIT && stream.write_all(b"H").is_ok() {
            thread::sleep(ms(50));
        }
    });
    let begun = Instant::now();
    let error = client.get(JobId::new(1).unwrap()).unwrap_err();
    assert!(matches!(error, Error::NoResponse(_)), "{error:?}");
    assert!(begun.elapsed() < secs(9), "an error after {:?}", begun.elapsed());
    sending.join().unwrap();
}

#[test]
fn an_error_keeps_the_error_below_it() {
    use std::error::Error as _;
    let closed = SocketAddr::from(([127, 0, 0, 1], node::free_port()));
    let error = client(closed).retry_requests_for(Duration::ZERO).get(JobId::new(1).unwrap()).unwrap_err();
    let source = error.source().expect("a source");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(source.to_string().contains("Connection refused"), "{source}");
}

/// A proxy to a server that can lose responses.
struct Way {
    addr: SocketAddr,
    shared: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The number of next responses to lose.
    lose: usize,
    /// The first line of each request to the server.
    heads: Vec<String>,
    /// The status of each response of the server, lost or not.
    statuses: Vec<u16>,
}

impl Way {
    fn to(server: SocketAddr) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way { addr: listener.local_addr().unwrap(), shared: Arc::default() };
        let shared = way.shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let shared = shared.clone();
                thread::spawn(move || carry(client, server, &shared));
            }
        });
        way
    }

    /// Loses the responses to the next requests: the server executes the requests, and the connection breaks.
    fn lose_answers(&self, number: usize) {
        self.shared.lock().unwrap().lose = number;
    }

    /// The first lines of all requests so far that begin with this text.
    fn take_heads(&self, start: &str) -> Vec<String> {
        let heads = std::mem::take(&mut self.shared.lock().unwrap().heads);
        heads.into_iter().filter(|head| head.starts_with(start)).collect()
    }

    fn count_of_status(&self, status: u16) -> usize {
        self.shared.lock().unwrap().statuses.iter().filter(|seen| **seen == status).count()
    }
}

/// Carries the requests and responses of one connection, one by one, until it ends or breaks.
fn carry(mut client: TcpStream, mut server: TcpStream, shared: &Mutex<Seen>) {
    let mut requests = BufReader::new(client.try_clone().unwrap());
    let mut answers = BufReader::new(server.try_clone().unwrap());
    while let Some((head, request)) = message(&mut requests) {
        shared.lock().unwrap().heads.push(head);
        let _ = server.write_all(&request);
        let Some((head, answer)) = message(&mut answers) else { return };
        let mut seen = shared.lock().unwrap();
        seen.statuses.push(head.split(' ').nth(1).unwrap().parse().unwrap());
        if seen.lose > 0 {
            seen.lose -= 1;
            return;
        }
        drop(seen);
        let _ = client.write_all(&answer);
    }
}

/// The next HTTP message, and its first line.
fn message(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut length = 0;
    loop {
        let begin = bytes.len();
        if reader.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&bytes[begin..]).trim_end().to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let head = String::from_utf8_lossy(&bytes).lines().next()?.to_owned();
    reader.take(length).read_to_end(&mut bytes).ok()?;
    Some((head, bytes))
}
