//! Clients that submit and read jobs while Redis fails, moves or is gone, and what became of the jobs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::common::api::is_final;
use crate::common::*;

/// The longest time of a response: 3 s, and 1 s for a busy machine.
const RESPONSE: Duration = Duration::from_secs(4);

/// What the clients have met so far.
#[derive(Default)]
struct Met {
    /// The submissions that were answered with 202, each with the time of its answer.
    accepted: Vec<(u64, Instant)>,
    /// The number of answers of each status.
    statuses: BTreeMap<u16, usize>,
    /// Responses that no fault of Redis excuses.
    wrong: Vec<String>,
}

/// Running clients.
pub struct Load {
    stops: Arc<AtomicBool>,
    met: Arc<Mutex<Met>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Two clients of each server submit a short job every few ms; a third one reads.
    pub fn start(servers: &[&TestServer]) -> Load {
        let (stops, met) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Met::default())));
        let mut clients = Vec::new();
        for server in servers {
            for client in 0..3 {
                let (stops, met, api) = (stops.clone(), met.clone(), Api::clone(server));
                clients.push(std::thread::spawn(move || {
                    let mut round = 0;
                    while !stops.load(Ordering::Relaxed) {
                        if client == 2 {
                            read(&api, &met, round);
                        } else {
                            submit(&api, &met);
                        }
                        round += 1;
                        std::thread::sleep(ms(10));
                    }
                }));
            }
        }
        Load { stops, met, clients }
    }

    pub fn accepted(&self) -> usize {
        self.met.lock().unwrap().accepted.len()
    }

    /// Waits until so many further submissions were accepted.
    #[track_caller]
    pub fn wait_for(&self, further: usize, what: &str) {
        let enough = self.accepted() + further;
        let begin = Instant::now();
        while self.accepted() < enough {
            assert!(begin.elapsed() < LIMIT, "no {further} submissions accepted: {what}; {}", self.report());
            std::thread::sleep(ms(20));
        }
    }

    fn report(&self) -> String {
        let met = self.met.lock().unwrap();
        format!("answers {:?}, wrong {:?}", met.statuses, met.wrong)
    }

    /// Ends the clients. Asserts that every response came in time and was 200, 202 or 503. Returns the accepted jobs.
    #[track_caller]
    pub fn stop(mut self) -> Vec<(u64, Instant)> {
        self.end();
        let met = std::mem::take(&mut *self.met.lock().unwrap());
        assert!(met.wrong.is_empty(), "{} wrong responses: {:#?}", met.wrong.len(), met.wrong);
        met.accepted
    }

    fn end(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn submit(api: &Api, met: &Mutex<Met>) {
    let begin = Instant::now();
    let reply = api.try_post("/jobs", &[], &json!({"type": "echo", "payload": 1}));
    note(met, "POST /jobs", begin, &reply);
    if let Ok(reply) = reply
        && reply.status == 202
    {
        let id = reply.json()["job_id"].as_u64().expect("an id");
        met.lock().unwrap().accepted.push((id, Instant::now()));
    }
}

fn read(api: &Api, met: &Mutex<Met>, round: usize) {
    let path = ["/jobs?limit=5", "/stats", "/readyz", "/queues", "/dlq", "/healthz"][round % 6];
    let begin = Instant::now();
    note(met, path, begin, &api.try_request("GET", path, &[], None));
}

fn note(met: &Mutex<Met>, request: &str, begin: Instant, reply: &std::io::Result<Reply>) {
    let took = begin.elapsed();
    let mut met = met.lock().unwrap();
    match reply {
        Ok(reply) => {
            *met.statuses.entry(reply.status).or_default() += 1;
            let is_right = match reply.status {
                200 | 202 => true,
                503 if request == "/readyz" => true,
                503 => {
                    let code = &reply.json()["code"];
                    let is_redis = code == "store_unavailable" || code == "not_replicated";
                    is_redis && reply.header("Retry-After").is_some()
                }
                _ => false,
            };
            if !is_right {
                met.wrong.push(format!("{request}: {} {}", reply.status, reply.text()));
            }
        }
        Err(error) => met.wrong.push(format!("{request}: {error}")),
    }
    if took > RESPONSE {
        met.wrong.push(format!("{request} was answered after {took:?}"));
    }
}

/// The accepted jobs that do not exist any more.
pub fn lost(api: &Api, accepted: &[(u64, Instant)]) -> Vec<(u64, Instant)> {
    let jobs = api.list_all("/jobs", "");
    let known: std::collections::HashSet<u64> = jobs.iter().filter_map(|job| job["id"].as_u64()).collect();
    accepted.iter().filter(|(id, _)| !known.contains(id)).copied().collect()
}

/// Waits until all jobs have ended. Asserts that the doctor finds nothing, and that all jobs are completed.
#[track_caller]
pub fn assert_sound(server: &TestServer, redis_url: &str) {
    server.wait_until_ready();
    wait_until_quiet(server, LIMIT);
    for job in server.list_all("/jobs", "") {
        assert!(is_final(&job) && job["status"] == "completed", "{job:#}");
    }
    let checked = TestServer::builder().flag("redis-url", redis_url).run("doctor");
    assert_eq!(checked.code, Some(0), "doctor: {} {}", checked.stdout, checked.stderr);
}

/// Asserts that no accepted job is lost, and all that [`assert_sound`] asserts.
#[track_caller]
pub fn assert_all_there(server: &TestServer, redis_url: &str, accepted: &[(u64, Instant)]) {
    assert_sound(server, redis_url);
    let lost = lost(server, accepted);
    assert!(lost.is_empty(), "{} of {} accepted jobs are lost: {lost:?}", lost.len(), accepted.len());
}

/// As [`assert_all_there`], after a master was killed or stopped at this time. It may have answered the last submission of
/// each client before it sent the same data to its replicas: it writes to all of them in one go, one after the other.
#[track_caller]
pub fn assert_all_there_but_the_last(
    server: &TestServer,
    redis_url: &str,
    accepted: &[(u64, Instant)],
    fault: Instant,
) {
    assert_sound(server, redis_url);
    let lost = lost(server, accepted);
    let is_last = |(_, at): &(u64, Instant)| (fault - secs(1)..fault + secs(1)).contains(at);
    let few = lost.len() <= 4 && lost.iter().all(is_last);
    assert!(few, "{} of {} accepted jobs are lost: {lost:?}; fault at {fault:?}", lost.len(), accepted.len());
}

/// Two servers on this Redis.
pub fn two_servers(redis_url: &str) -> [TestServer; 2] {
    let start = || {
        let server = TestServer::builder().flag("redis-url", redis_url).flag("workers", "4").start();
        server.wait_until_ready();
        server
    };
    [start(), start()]
}
