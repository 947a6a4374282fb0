//! The latency of normal requests while hostile clients are connected.
//!
//!     cargo bench --bench hostile -- --idle 2000 --slow-heads 200 --slow-bodies 200 --never-reading 50 --nofile 256
//!
//! Starts a server with its own Redis, connects a crowd of hostile clients, and sends normal requests beside it: POST
//! /jobs, GET /stats and GET /healthz, each on a new connection. Prints the latency of the normal requests until the
//! server has closed the last slow connection, and the server's threads and descriptors before, at most, and
//! afterwards.

#[path = "../tests/common/mod.rs"]
mod rig;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rig::process::{descriptors, peak_memory, threads};
use rig::*;

fn main() {
    let sizes = Sizes {
        idle: flag("idle", 2_000),
        slow_heads: flag("slow-heads", 200),
        slow_bodies: flag("slow-bodies", 200),
        never_reading: flag("never-reading", 50),
    };
    let nofile: usize = flag("nofile", 0);
    let pause: usize = flag("pause-ms", 2);
    let redis = TestRedis::start();
    let mut builder = TestServer::builder().redis(&redis);
    if nofile > 0 {
        builder = builder.under(["prlimit".to_owned(), format!("--nofile={nofile}:{nofile}")]);
    }
    let server = builder.start();
    for _ in 0..25 {
        server.submit_job(json!({"type": "echo", "queue": "unserved", "payload": "x".repeat(16_000)}));
    }
    let held = || (threads(server.pid()), descriptors(server.pid()).len());
    let before = held();
    let is_over = AtomicBool::new(false);
    let mut times = Vec::new();
    let (mut failed, mut closed) = (0, 0);
    let mut most = before;
    let stay = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let mut crowd = Crowd::gather(server.addr(), sizes);
            while crowd.go_on() > 0 {
                std::thread::sleep(slow_clients::ROUND);
            }
            is_over.store(true, SeqCst);
            crowd.longest_stay()
        });
        let mut timed = |ask: &dyn Fn() -> io::Result<Reply>| {
            let begin = Instant::now();
            // The server may close a connection before it has read the request: a client then sends the request again.
            let reply = ask().or_else(|_| {
                closed += 1;
                ask()
            });
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
            failed += usize::from(!reply.is_ok_and(|reply| matches!(reply.status, 200 | 202)));
            std::thread::sleep(ms(pause as u64));
        };
        for round in 0.. {
            if is_over.load(SeqCst) {
                break;
            }
            let key = format!("round-{round}");
            let job = json!({"type": "echo", "payload": round});
            timed(&|| server.try_post("/jobs", &[("Idempotency-Key", &key)], &job));
            timed(&|| server.try_request("GET", "/stats", &[], None));
            timed(&|| server.try_request("GET", "/healthz", &[], None));
            let now = held();
            most = (most.0.max(now.0), most.1.max(now.1));
        }
        crowd.join().expect("no panic")
    });
    // tiny_http's surplus threads end after 5 s.
    std::thread::sleep(secs(7));
    let after = held();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    println!(
        "hostile idle={} slow_heads={} slow_bodies={} never_reading={} nofile={nofile}: {} requests, {failed} failed, \
         {closed} sent again, p50 {:.1} p99 {:.1} max {:.1} ms; slow connections closed after {:.1} s; threads {}/{}/{}, \
         descriptors {}/{}/{} before/most/after, peak {} MB",
        sizes.idle,
        sizes.slow_heads,
        sizes.slow_bodies,
        sizes.never_reading,
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        stay.as_secs_f64(),
        before.0,
        most.0,
        after.0,
        before.1,
        most.1,
        after.1,
        peak_memory(server.pid()),
    );
}

/// The number of `--name N` on the command line.
fn flag(name: &str, default: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != &format!("--{name}"));
    words.nth(1).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("--{name}: {text:?}")))
}
