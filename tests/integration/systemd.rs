//! The messages of a server to systemd, received on a real datagram socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::common::*;
use threadq::config::{Config, Secret};
use threadq::server::Server;

/// The side of the service manager: a datagram socket in a temporary folder.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = TempDir::new();
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager { socket, dir }
    }

    /// A server with this manager's socket in its environment.
    fn builder(&self) -> ServerBuilder {
        TestServer::builder().env("NOTIFY_SOCKET", self.dir.join("notify").to_str().unwrap())
    }

    #[track_caller]
    fn hear(&self) -> String {
        hear(&self.socket)
    }
}

/// Waits for the next datagram.
#[track_caller]
fn hear(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("nothing within {LIMIT:?}: {error}"));
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn ready(server: &TestServer) -> String {
    format!("READY=1\nSTATUS=listening on http://{}", server.addr())
}

#[test]
fn it_hears_once_when_the_server_answers_and_once_when_it_stops() {
    let redis = TestRedis::start();
    let manager = Manager::new();
    let mut server = manager.builder().redis(&redis).start();
    assert_eq!(manager.hear(), ready(&server));
    let id = server.submit("sleep", json!({"ms": 3000}));
    server.wait_for_status(id, "processing");
    server.sigterm();
    // Without WATCHDOG_USEC the server sends no other datagram in between. The running job has not ended yet.
    assert_eq!(manager.hear(), "STOPPING=1\nSTATUS=draining running jobs");
    assert!(crate::common::signal::is_running(server.pid()));
    assert_eq!(server.wait_exit(LIMIT), Some(0));
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 16]).is_err(), "there was more");
}

#[test]
fn a_socket_with_an_abstract_name_is_found_too() {
    let redis = TestRedis::start();
    let name = format!("threadq-test-{}-{}", std::process::id(), now_ms());
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&addr).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let server = TestServer::builder().redis(&redis).env("NOTIFY_SOCKET", &format!("@{name}")).start();
    assert_eq!(hear(&socket), ready(&server));
}

#[test]
fn the_watchdog_hears_of_a_working_server_also_while_redis_hangs_or_is_gone() {
    let redis = TestRedis::start();
    let manager = Manager::new();
    let token = ("THREADQ_API_TOKEN", "s3cret");
    let server = manager.builder().redis(&redis).env(token.0, token.1).env("WATCHDOG_USEC", "900000").start();
    let api = server.with_token(token.1);
    assert_eq!(manager.hear(), ready(&server));
    let hear_on = |times: usize| {
        for _ in 0..times {
            assert_eq!(manager.hear(), "WATCHDOG=1", "{}", server.log_tail());
        }
    };
    hear_on(3);
    redis.pause();
    eventually(LIMIT, "Redis is unavailable", || api.get("/readyz").status == 503);
    hear_on(10);
    redis.kill9();
    hear_on(10);
    redis.restart();
    api.wait_until_ready();
    hear_on(3);
    server.sigterm();
    let last = until_some(LIMIT, "it stops", || Some(manager.hear()).filter(|text| text != "WATCHDOG=1"));
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
}

#[test]
fn a_server_works_until_it_is_shut_down() {
    let redis = TestRedis::start();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        redis_url: Some(Secret::new(redis.url())),
        ..Config::default()
    };
    let server = Server::builder().config(config).start().unwrap();
    // 10 s are far more than the 3 s between two heartbeats of an idle server.
    let mut liveness = server.liveness().longest_silence(secs(10));
    holds_for(secs(12), "it works", || liveness.check(secs(5)).is_ok());
    server.stop();
    eventually(LIMIT, "it is found to be gone", || liveness.check(secs(1)).is_err());
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let redis = TestRedis::start();
    let manager = Manager::new();
    let server =
        manager.builder().redis(&redis).env("WATCHDOG_USEC", "300000").env("WATCHDOG_PID", "1").start();
    assert_eq!(manager.hear(), ready(&server));
    holds_for(secs(2), "nothing is heard", || {
        manager.socket.set_nonblocking(true).unwrap();
        manager.socket.recv(&mut [0; 64]).is_err()
    });
}

#[test]
fn the_servers_children_do_not_speak_for_it() {
    let manager = Manager::new();
    // This script precedes the real redis-server on PATH and writes its environment to a file.
    let real_path = std::env::var("PATH").unwrap();
    let script = "#!/bin/sh\ncase \"$*\" in *--unixsocket*) env > \"$0.env\";; esac\n\
                  PATH=${PATH#*:}; exec redis-server \"$@\"\n";
    let redis_server = manager.dir.write("redis-server", script);
    std::fs::set_permissions(&redis_server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut server = manager
        .builder()
        .env("PATH", &format!("{}:{real_path}", manager.dir.path().display()))
        .env("WATCHDOG_USEC", "9000000")
        .config("data-dir = \"data\"\n[handlers.env]\nexec = [\"env\"]\n")
        .start();
    assert_eq!(manager.hear(), ready(&server));
    let of_handler = server.complete("env", Value::Null)["result"].as_str().unwrap().to_owned();
    // Stop the server, so that its redis-server ends even if the test fails.
    server.sigterm();
    assert_eq!(server.wait_exit(LIMIT), Some(0));
    let of_redis = std::fs::read_to_string(manager.dir.join("redis-server.env")).unwrap();
    assert!(of_handler.contains("PATH=") && of_redis.contains("PATH="), "{of_handler} {of_redis}");
    assert!(!of_handler.contains("NOTIFY_SOCKET") && !of_handler.contains("WATCHDOG"), "{of_handler}");
    assert!(!of_redis.contains("NOTIFY_SOCKET"), "{of_redis}");
}

#[test]
fn a_socket_where_nobody_is_holds_up_no_server() {
    let redis = TestRedis::start();
    for socket in ["/nobody/is/here", "neither path nor name"] {
        let server = TestServer::builder()
            .redis(&redis)
            .env("NOTIFY_SOCKET", socket)
            .env("WATCHDOG_USEC", "300000")
            .start();
        server.complete("echo", json!(1));
        eventually(LIMIT, "the log says so", || server.log_text().contains(" WARN "));
    }
}
