//! A plain `redis://` whose name comes to lead to another master, while the old master goes on: only one of the two is
//! used at a time.

use crate::common::node::Node;
use crate::common::*;
use crate::forwarder::Forwarder;

/// Two masters that know nothing of each other, and a port that leads to the first.
struct Two {
    old: Node,
    new: Node,
    port: Forwarder,
}

impl Two {
    fn start(settings: &str) -> Two {
        let (old, new) = (Node::new(settings), Node::new(settings));
        old.start();
        new.start();
        // Redis tells the time since its start in whole seconds. From it a server sees that the new master ran already while
        // the old one answered, and was not just started in its place.
        eventually(LIMIT, "it has run for a while", || {
            new.info("uptime_in_seconds").parse::<u64>().unwrap() > 2
        });
        let port = Forwarder::to(old.port());
        Two { old, new, port }
    }

    fn server(&self, login: &str) -> TestServer {
        let url = format!("redis://{login}{}", self.port.address());
        let server = TestServer::builder().flag("redis-url", &url).start();
        server.wait_until_ready();
        server.submit("echo", json!(1));
        server
    }

    /// Leads the name to the new master. All connections stay open, and the server needs more of them.
    fn move_name(&self, server: &TestServer) {
        let before = self.port.made();
        self.port.lead_to(&[self.new.port()]);
        eventually(LIMIT, "the server makes a new connection", || {
            submit_at_once(server);
            self.port.made() > before
        });
    }
}

/// Submits jobs at the same time, so that many connections are used. Returns those that were accepted.
fn submit_at_once(server: &TestServer) -> Vec<u64> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12).map(|_| scope.spawn(|| submit_some(server))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn submit_some(server: &TestServer) -> Vec<u64> {
    let mut accepted = Vec::new();
    for _ in 0..5 {
        let reply = server.post("/jobs", &json!({"type": "echo"}));
        assert!(reply.status == 202 || reply.status == 503, "{}", reply.text());
        accepted.extend(reply.json()["job_id"].as_u64());
        let reply = server.get("/jobs?limit=1");
        assert!(reply.status == 200 || reply.status == 503, "{}", reply.text());
    }
    accepted
}

/// How many of these jobs a Redis has.
fn has(redis: &Node, ids: &[u64]) -> usize {
    let mut command = ::redis::cmd("EXISTS");
    for id in ids {
        command.arg(format!("{{threadq}}:job:{id}"));
    }
    if ids.is_empty() { 0 } else { redis.try_command(&command).unwrap() }
}

#[test]
fn old_connections_are_left_when_a_name_leads_to_another_master() {
    let two = Two::start("");
    let server = two.server("");
    two.move_name(&server);
    eventually(LIMIT, "jobs go to the new master", || {
        let ids = submit_at_once(&server);
        !ids.is_empty() && has(&two.new, &ids) == ids.len()
    });
    for _ in 0..5 {
        let ids = submit_at_once(&server);
        assert_eq!((has(&two.old, &ids), has(&two.new, &ids)), (0, ids.len()));
    }
    let log = server.log_text();
    assert_eq!(log.matches("Redis has moved to").count(), 1, "{log}");
}

/// The mutant: a Redis user who may not run INFO, so that nothing tells the two masters apart.
#[test]
fn without_the_run_id_both_masters_get_jobs() {
    let two = Two::start("user nosy on >secret ~* &* +@all -info\n");
    // On a busy machine a connection may fail, and then the server leaves all older ones: another server is tried.
    eventually(LIMIT, "both masters get jobs", || {
        two.port.lead_to(&[two.old.port()]);
        let server = two.server("nosy:secret@");
        two.move_name(&server);
        (0..5).any(|_| {
            let ids = submit_at_once(&server);
            has(&two.old, &ids) > 0 && has(&two.new, &ids) > 0
        })
    });
}

#[test]
fn a_name_that_leads_to_two_masters_by_turns_is_an_error() {
    let two = Two::start("");
    let server = two.server("");
    two.port.lead_to(&[two.new.port(), two.old.port()]);
    let mut closed = Instant::now();
    eventually(LIMIT, "the log says that two masters answer", || {
        if closed.elapsed() > ms(200) {
            two.port.close_one();
            closed = Instant::now();
        }
        submit_some(&server);
        server.log_text().lines().any(|line| line.contains("ERROR") && line.contains("two masters"))
    });
}
