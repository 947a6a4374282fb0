//! Without `redis-url` the server runs a private Redis, and loses nothing in it.

use crate::common::private::{Cleanup, redis_servers_in};
use crate::common::*;

#[test]
fn a_private_redis_is_started_in_the_data_dir_and_loses_nothing() {
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let dir = data.join("jobs");
    let builder = TestServer::builder()
        .flag("data-dir", dir.to_str().expect("text"))
        .flag("lease-timeout", "1s")
        .flag("workers", "4");
    let mut server = builder.start();
    server.wait_until_ready();
    assert_eq!(redis_servers_in(data.path()).len(), 1);
    let done = server.complete("echo", json!({"kept": true}));
    let mut ids = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 300}}); 30]);
    ids.push(server.submit_job(json!({"type": "echo", "delay_ms": 1000})));
    for _ in 0..2 {
        server.kill9();
        server = builder.start();
        server.wait_until_ready();
        assert_eq!(redis_servers_in(data.path()).len(), 1, "one Redis, whatever happened");
    }
    for id in &ids {
        server.wait_for_status(*id, "completed");
    }
    assert_eq!(server.job(done["id"].as_u64().expect("an id")), done);
    assert_eq!(server.total(""), ids.len() as u64 + 1);
}

#[test]
fn a_clean_stop_ends_the_private_redis_and_a_start_finds_everything_again() {
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let builder = TestServer::builder().flag("data-dir", data.join("d").to_str().expect("text"));
    let mut server = builder.start();
    let done = server.complete("echo", json!(1));
    let later = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    assert_eq!(server.stop(secs(20)), Some(0), "{}", server.log_tail());
    eventually(secs(15), "its Redis is gone", || redis_servers_in(data.path()).is_empty());
    let server = builder.start();
    server.wait_until_ready();
    assert_eq!(server.job(done["id"].as_u64().expect("an id")), done);
    assert_eq!(server.job(later)["status"], "scheduled");
}

#[test]
fn a_private_redis_that_dies_is_started_again() {
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let builder = TestServer::builder()
        .flag("data-dir", data.join("d").to_str().expect("text"))
        .flag("fsync", "always");
    let server = builder.start();
    let done = server.complete("echo", json!(1));
    for pid in redis_servers_in(data.path()) {
        signal::kill9(pid);
    }
    eventually(LIMIT, "it is there again", || !redis_servers_in(data.path()).is_empty());
    server.wait_until_ready();
    server.complete("echo", json!(2));
    assert_eq!(server.job(done["id"].as_u64().expect("an id")), done);
}

#[test]
fn a_private_redis_is_reached_though_the_file_of_its_socket_was_removed() {
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let dir = data.join("d");
    let mut server = TestServer::builder().flag("data-dir", dir.to_str().expect("text")).start();
    server.complete("echo", json!(1));
    let socket = dir.join("redis.sock");
    let mut admin = std::os::unix::net::UnixStream::connect(&socket).expect("connects");
    std::fs::remove_file(&socket).expect("removed");
    eventually(LIMIT, "the log says so", || server.log_text().contains("redis.sock in "));
    // The server has to open every connection anew.
    let mut close_all = || {
        use std::io::{Read, Write};
        admin.write_all(b"CLIENT KILL TYPE normal SKIPME yes\r\n").expect("sent");
        let count = admin.read(&mut [0; 100]).expect("an answer");
        assert!(count > 2);
    };
    for number in 0..3 {
        close_all();
        server.wait_until_ready();
        let id = until_some(LIMIT, "a job is taken in", || {
            let key = format!("k-{number}");
            let job = json!({"type": "echo", "payload": number});
            let reply = server.try_post("/jobs", &[("Idempotency-Key", &key)], &job).ok()?;
            reply.json()["job_id"].as_u64()
        });
        server.wait_for_status(id, "completed");
    }
    assert_eq!(server.log_text().matches("redis.sock in ").count(), 1, "once is enough");
    // A restarted redis-server creates a new socket file, and the server finds it.
    for pid in redis_servers_in(data.path()) {
        signal::kill9(pid);
    }
    eventually(LIMIT, "there is a new one", || socket.exists());
    server.wait_until_ready();
    server.complete("echo", json!(2));
    std::fs::remove_file(&socket).expect("removed");
    assert_eq!(server.stop(secs(60)), Some(0), "{}", server.log_tail());
    assert_eq!(redis_servers_in(data.path()), [0; 0], "its redis-server has ended with it");
}

#[test]
fn a_second_server_on_the_same_data_dir_is_refused_or_shares_the_redis() {
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let dir = data.join("d");
    let builder = TestServer::builder().flag("data-dir", dir.to_str().expect("text"));
    let server = builder.start();
    server.complete("echo", json!(1));
    let finished = builder.clone().run_serve();
    assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
    assert!(
        finished.stderr.contains("data-dir") || finished.stderr.contains(dir.to_str().expect("text")),
        "{finished:?}"
    );
    assert_eq!(redis_servers_in(data.path()).len(), 1);
    server.complete("echo", json!(2));
}

#[test]
fn without_redis_server_on_path_the_exit_is_2_with_a_hint() {
    let data = TempDir::new();
    let empty = TempDir::new();
    let finished = TestServer::builder()
        .flag("data-dir", data.join("d").to_str().expect("text"))
        .env("PATH", empty.path().to_str().expect("text"))
        .run_serve();
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert!(finished.stderr.contains("redis-server") && finished.stderr.contains("install"), "{finished:?}");
}

#[test]
fn the_data_of_a_private_redis_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let dir = data.join("d");
    let server = TestServer::builder().flag("data-dir", dir.to_str().expect("text")).start();
    server.complete("echo", json!(1));
    let mode = std::fs::metadata(&dir).expect("exists").permissions().mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}
