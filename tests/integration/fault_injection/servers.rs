//! The life of a server: it connects, registers, sends heartbeats, is fenced, recovers lost jobs, reclaims jobs of dead
//! servers, and leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use threadq::internals::queue::{ServerFacts, ServerId};

use super::fixture::{Stage, Step};
use super::proxy::Call;
use crate::common::*;

const ONCE: &str = "completed: 1 runs, 1 attempts, 0 crashes";

/// A row for a command that a starting server sends.
const fn starts(command: &'static str, of: &'static str) -> Step {
    Step {
        command,
        of,
        before: "nothing",
        after: "nothing",
        end: ONCE,
        play: |stage| starts_up(stage, Stage::places),
    }
}

pub const STEPS: &[Step] = &[
    starts("auth", "a connection logs in"),
    starts("select", "a connection turns to its database"),
    starts("client setinfo", "a connection is made"),
    starts("client id", "a connection for a fetcher is made"),
    starts("info", "a connection looks which Redis this is"),
    starts("config get", "a server looks whether Redis keeps anything"),
    starts("hgetall", "a server looks for living servers of another protocol"),
    Step {
        command: "register",
        of: "a server enters",
        before: "0 servers",
        after: "1 servers",
        end: ONCE,
        play: |stage| starts_up(stage, servers),
    },
    Step {
        command: "heartbeat",
        of: "a server says that it lives",
        before: "1 servers",
        after: "1 servers",
        end: ONCE,
        play: beats,
    },
    Step {
        command: "hget",
        of: "a server that was held to be dead goes on under a new name",
        before: "0 servers",
        after: "0 servers",
        end: ONCE,
        play: rejoins,
    },
    Step {
        command: "lrange",
        of: "a server looks for jobs whose hand-over was lost",
        before: "queued in in_progress_queue",
        after: "queued in in_progress_queue",
        end: ONCE,
        play: finds_what_was_lost,
    },
    Step {
        command: "recover",
        of: "a job whose hand-over was lost goes back",
        before: "queued in in_progress_queue",
        after: "queued in work_queue:late",
        end: ONCE,
        play: finds_what_was_lost,
    },
    Step {
        command: "reclaim",
        of: "a dead server is taken over, processing -> queued",
        before: "processing in in_progress_queue",
        after: "queued in work_queue:default",
        end: "completed: 2 runs, 1 attempts, 1 crashes",
        play: takes_over,
    },
    Step {
        command: "reclaim",
        of: "the second step of taking over a long list",
        before: "100 left in the list",
        after: "0 left in the list",
        end: "completed: 0 runs, 1 attempts, 0 crashes",
        play: takes_over_the_rest,
    },
    Step {
        command: "reclaim",
        of: "a server leaves",
        before: "queued in in_progress_queue, 1 servers",
        after: "queued in work_queue:late, 0 servers",
        end: ONCE,
        play: leaves,
    },
    Step {
        command: "client unblock",
        of: "a server that stops wakes its fetchers",
        before: "nothing",
        after: "nothing",
        end: ONCE,
        play: wakes_its_fetchers,
    },
];

fn servers(stage: &Stage) -> String {
    format!("{} servers", stage.live_servers())
}

fn runs_a_job(stage: &Stage, server: &TestServer) {
    stage.is_at_rest(server);
    let id = stage.submit("note");
    stage.all_end(server, &[id]);
}

fn starts_up(stage: &Stage, look: fn(&Stage) -> String) {
    let server = stage.at_step(|| stage.builder().start(), || look(stage));
    runs_a_job(stage, &server);
}

fn beats(stage: &Stage) {
    let server = stage.server();
    let name = server.server_id();
    stage.at_step(|| (), || servers(stage));
    runs_a_job(stage, &server);
    assert_eq!(server.server_id(), name, "it was not held to be dead");
}

fn rejoins(stage: &Stage) {
    let server = stage.server();
    let name = server.server_id();
    let fence = || stage.redis_says::<u64>(&format!("HSET T:servers {name} D{}", now_ms()));
    stage.at_step(fence, || servers(stage));
    runs_a_job(stage, &server);
    assert_ne!(server.server_id(), name);
}

/// Moves a job of a paused queue into a server's list, like a BRPOPLPUSH with a lost reply.
fn lose_a_hand_over(stage: &Stage, server: &TestServer) -> u64 {
    stage.queue.set_paused("late", true).unwrap();
    let id = stage.submit_with("note", |job| job.queue = "late".to_owned());
    let list = format!("{{threadq}}:in_progress_queue:{}", server.server_id());
    // A fetcher that waits claims the job first, and puts it back because the queue is paused.
    let moved = until_some(LIMIT, "it is in its queue", || {
        stage.redis.query::<Option<String>>(&["RPOPLPUSH", "{threadq}:work_queue:late", &list])
    });
    assert_eq!(moved, id.to_string());
    id
}

fn finds_what_was_lost(stage: &Stage) {
    let server = stage.builder().flag("queues", "default,late").start();
    stage.is_at_rest(&server);
    // A heartbeat may also see the job while a fetcher has claimed it, before its claim is lost.
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = is_lost.clone();
    let lose = || {
        let id = lose_a_hand_over(stage, &server);
        is_lost.store(true, Ordering::SeqCst);
        id
    };
    let look = || {
        stage.assert_sound();
        stage.places()
    };
    let id = stage.at_step_when(move |_| lost.load(Ordering::SeqCst), lose, look);
    stage.queue.set_paused("late", false).unwrap();
    stage.all_end(&server, &[id]);
}

fn takes_over(stage: &Stage) {
    let mut dead = stage.server();
    let id = stage.submit("crash");
    assert_eq!(dead.wait_exit(LIMIT), None, "by a signal");
    // A BRPOPLPUSH that waits would get the job at once, even that of the dead server.
    stage.queue.set_paused("default", true).unwrap();
    eventually(LIMIT, "no fetcher waits any more", || {
        !stage.redis.query::<String>(&["CLIENT", "LIST"]).contains("cmd=brpoplpush")
    });
    let server = stage.at_step(|| stage.builder().start(), || stage.place(id));
    stage.queue.set_paused("default", false).unwrap();
    stage.all_end(&server, &[id]);
}

fn takes_over_the_rest(stage: &Stage) {
    // More jobs than one step reclaims, claimed by a server that died before it started them.
    let dead = ServerId::generate();
    stage.queue.register(&dead, &ServerFacts::new(1, &[])).unwrap();
    let list = format!("{{threadq}}:in_progress_queue:{dead}");
    let jobs = vec![threadq::job::NewJob::new("echo"); 300];
    let submitted = stage.queue.submit(&jobs, None, 1_000).unwrap();
    let ids: Vec<u64> = submitted.ids().map(|id| id.get()).collect();
    for id in &ids {
        let moved: String = stage.redis.query(&["RPOPLPUSH", "{threadq}:work_queue:default", &list]);
        assert_eq!(moved, id.to_string());
    }
    let look = || format!("{} left in the list", stage.redis.list_len(&list));
    let is_second = |call: &Call| call.arg(1).starts_with(b"D");
    let server = stage.at_step_when(is_second, || stage.builder().start(), look);
    stage.all_end(&server, &ids);
}

fn leaves(stage: &Stage) {
    let mut first = stage.builder().flag("queues", "default,late").start();
    stage.is_at_rest(&first);
    let id = lose_a_hand_over(stage, &first);
    let code = stage.at_step(|| first.stop(LIMIT), || format!("{}, {}", stage.place(id), servers(stage)));
    assert_eq!(code, Some(0), "{}", first.log_tail());
    stage.queue.set_paused("late", false).unwrap();
    let next = stage.builder().flag("queues", "default,late").start();
    stage.all_end(&next, &[id]);
}

fn wakes_its_fetchers(stage: &Stage) {
    let mut server = stage.server();
    let code = stage.at_step(|| server.stop(LIMIT), || stage.places());
    assert_eq!(code, Some(0), "{}", server.log_tail());
    let next = stage.server();
    runs_a_job(stage, &next);
}
