//! Schedules: defined, shown, fired by their ticks and by an operator.

use super::fixture::{Stage, Step};
use super::proxy::Call;
use crate::common::http::Reply;
use crate::common::*;

const ONCE: &str = "completed: 1 runs, 1 attempts, 0 crashes";

pub const STEPS: &[Step] = &[
    Step {
        command: "define",
        of: "PUT /schedules/NAME",
        before: "0 schedules",
        after: "1 schedules",
        end: "0 jobs",
        play: is_defined,
    },
    Step {
        command: "define",
        of: "the schedules of a file, at the start of a server",
        before: "0 schedules",
        after: "1 schedules",
        end: "0 jobs",
        play: is_in_the_file,
    },
    Step {
        command: "schedules",
        of: "a tick is due",
        before: "0 jobs",
        after: "0 jobs",
        end: ONCE,
        play: has_a_tick,
    },
    Step {
        command: "fire",
        of: "a tick starts a job",
        before: "0 jobs",
        after: "1 jobs",
        end: ONCE,
        play: has_a_tick,
    },
    Step {
        command: "fire",
        of: "POST /schedules/NAME/run",
        before: "0 jobs",
        after: "1 jobs",
        end: ONCE,
        play: is_run,
    },
];

fn put(server: &TestServer, schedule: &Value) -> Reply {
    let json_type = [("Content-Type", "application/json")];
    server.request("PUT", "/schedules/x", &json_type, Some(schedule.to_string().as_bytes()))
}

fn hourly() -> Value {
    json!({"every": "1h", "overlap": "allow", "job": {"type": "note"}})
}

fn schedules(stage: &Stage) -> String {
    format!("{} schedules", stage.redis_says::<u64>("ZCARD T:schedules"))
}

fn jobs(stage: &Stage) -> String {
    format!("{} jobs", stage.ids().len())
}

/// The call that stores the schedule. The one before it asks for the time.
fn stores(call: &Call) -> bool {
    call.arg(7) != b"?"
}

fn is_defined(stage: &Stage) {
    let server = stage.server_with_used_connections();
    let reply = stage.at_step_when(stores, || put(&server, &hourly()), || schedules(stage));
    reply.expect(stage.repeated(201, 200));
    assert_eq!(schedules(stage), "1 schedules");
    stage.ends(&jobs(stage));
}

fn is_in_the_file(stage: &Stage) {
    let schedule = "[[schedules]]\nname = 'x'\nevery = '1h'\njob = { type = 'note' }\n";
    let start = || TestServer::builder().flag("redis-url", &stage.redis_url()).config(schedule).start();
    let server = stage.at_step_when(stores, start, || schedules(stage));
    eventually(LIMIT, "it is stored and noted", || {
        let servers = stage.redis.keys("{threadq}:server:*");
        let is_noted =
            |key: &String| stage.redis.query::<Option<String>>(&["HGET", key, "schedules"]).is_some();
        schedules(stage) == "1 schedules" && servers.iter().any(is_noted)
    });
    server.wait_until_ready();
    stage.ends(&jobs(stage));
}

fn has_a_tick(stage: &Stage) {
    let server = stage.server();
    let only_tick = rfc3339((now_ms() / 1000 + 2) * 1000);
    let schedule =
        json!({"every": "1s", "starts_at": only_tick, "ends_at": only_tick, "job": {"type": "note"}});
    // The response of PUT reads the schedule too.
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let is_read = stage.step_command() == "schedules";
    let of_scheduler =
        move |_: &Call| !is_read || reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
    stage.at_step_when(of_scheduler, || stage.until_answered(|| put(&server, &schedule)), || jobs(stage));
    eventually(LIMIT, "the job is there", || stage.ids().len() == 1);
    stage.all_end(&server, &stage.ids());
    assert_eq!(stage.redis_says::<u64>("ZCARD T:agenda"), 0);
}

fn is_run(stage: &Stage) {
    let server = stage.server_with_used_connections();
    put(&server, &hourly()).expect(201);
    let run = || server.act("/schedules/x/run");
    let reply = stage.at_step(run, || jobs(stage));
    reply.expect_error(503, "store_unavailable", "run");
    // Whether it has run is unknown, so it is run again.
    stage.until_answered(run).expect(202);
    let ids = stage.ids();
    assert_eq!(ids.len(), stage.repeated(1, 2));
    stage.all_end(&server, &ids);
}
