//! Each test starts its own redis-server in its own folder.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};

use crate::net::percent::encode_path;
use crate::private_redis::folder::MAX_LOG_BYTES;
use crate::private_redis::program::{check_version, new_enough};
use crate::private_redis::socket::read_reply;
use crate::private_redis::*;
use crate::wait::{LIMIT, eventually};

/// The folder of one test. Dropping it ends the redis-server in it and removes the folder.
struct DataDir {
    data: PathBuf,
    _parent: TempDir,
}

impl DataDir {
    fn new() -> DataDir {
        DataDir::named("data")
    }

    fn named(name: &str) -> DataDir {
        let parent = tempdir().unwrap();
        DataDir { data: parent.path().join(name), _parent: parent }
    }

    fn start(&self) -> PrivateRedis {
        PrivateRedis::start(&self.data, "everysec", &|| false).unwrap()
    }

    /// The error of a start with this PATH and a short launch timeout.
    fn refusal(&self, search_path: &OsStr) -> StartError {
        let timeout = Duration::from_millis(200);
        match PrivateRedis::start_with(&self.data, "everysec", Some(search_path), timeout, &|| false) {
            Ok(redis) => panic!("started, pid {:?}", redis.pid()),
            Err(error) => error,
        }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Ok(folder) = Folder::open(&self.data) {
            let _ = socket::ask(&folder.socket(), "SHUTDOWN");
            let limit = Instant::now() + Duration::from_secs(10);
            while Instant::now() < limit && !matches!(folder.try_lock("redis.lock"), Ok(Some(_))) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn ask(redis: &PrivateRedis, command: &str) -> String {
    let answer = redis.ask(command).unwrap();
    answer.iter().map(|text| String::from_utf8_lossy(text)).collect::<Vec<_>>().join(" ")
}

#[test]
fn it_runs_with_its_settings_until_it_is_stopped() {
    let dir = DataDir::new();
    let redis = dir.start();
    let expected = [
        ("port", "0"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("aof-use-rdb-preamble", "yes"),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
    ];
    for (name, value) in expected {
        assert_eq!(ask(&redis, &format!("CONFIG GET {name}")), format!("{name} {value}"));
    }
    redis.stop(&|| false);
    assert!(matches!(redis.ask("PING"), Err(AskError::NotListening)));
    assert!(!redis.is_running());
}

#[test]
fn only_its_owner_can_read_the_data() {
    let dir = DataDir::new();
    let redis = dir.start();
    let mode = |name: &str| fs::metadata(dir.data.join(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("."), 0o700);
    assert_eq!(mode("appendonlydir"), 0o700);
    assert_eq!(mode("redis.sock"), 0o600);
    assert_eq!(mode("redis.log"), 0o600);
    assert_eq!(mode("server.lock"), 0o600);
    redis.stop(&|| false);
}

#[test]
fn data_survives_a_stop_and_a_kill() {
    let dir = DataDir::new();
    let redis = dir.start();
    ask(&redis, "SET stopped kept");
    redis.stop(&|| false);
    drop(redis);

    let redis = dir.start();
    assert_eq!(ask(&redis, "GET stopped"), "kept");
    ask(&redis, "SET killed kept");
    kill(redis.pid().unwrap());
    eventually(LIMIT, "the killed redis-server is gone", || !redis.is_running());
    drop(redis);

    let redis = dir.start();
    assert_eq!(ask(&redis, "GET killed"), "kept");
}

#[test]
fn a_second_server_on_the_same_data_dir_is_refused() {
    let dir = DataDir::new();
    let redis = dir.start();
    let error = dir.refusal(&path());
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
    assert!(error.is_configuration());
    assert!(error.to_string().starts_with("data-dir "), "{error}");
    assert!(redis.pid().is_some(), "the first one is not disturbed");
}

#[test]
fn the_redis_of_a_killed_server_is_adopted() {
    let dir = DataDir::new();
    let first = dir.start();
    let pid = first.pid();
    assert!(pid.is_some());
    drop(first);

    let second = PrivateRedis::start(&dir.data, "always", &|| false).unwrap();
    assert_eq!(second.pid(), pid);
    assert!(second.is_running());
    assert_eq!(ask(&second, "CONFIG GET appendfsync"), "appendfsync always");
    second.stop(&|| false);
    assert!(!second.is_running());
}

#[test]
fn a_redis_that_lost_its_socket_file_is_not_joined_by_a_second_one() {
    let dir = DataDir::new();
    let first = dir.start();
    let pid = first.pid().unwrap();
    drop(first);
    fs::remove_file(dir.data.join("redis.sock")).unwrap();

    let error = dir.refusal(&path());
    assert!(matches!(error, StartError::SocketInUse { .. }), "{error}");
    assert!(error.to_string().contains("redis.lock"), "{error}");

    kill(pid);
    assert_ne!(dir.start().pid(), Some(pid));
}

#[test]
fn a_redis_of_another_folder_is_refused() {
    let dir = DataDir::new();
    let elsewhere = DataDir::new();
    let other = elsewhere.start();
    Folder::open(&dir.data).unwrap();
    std::os::unix::fs::symlink(elsewhere.data.join("redis.sock"), dir.data.join("redis.sock")).unwrap();

    let error = dir.refusal(&path());
    assert!(matches!(error, StartError::SocketInUse { .. }), "{error}");
    assert!(error.to_string().contains(&elsewhere.data.display().to_string()), "{error}");
    fs::remove_file(dir.data.join("redis.sock")).unwrap();
    assert!(other.pid().is_some(), "the other one is not disturbed");
}

#[test]
fn a_process_that_is_not_a_redis_is_refused() {
    let dir = DataDir::new();
    Folder::open(&dir.data).unwrap();
    let listener = UnixListener::bind(dir.data.join("redis.sock")).unwrap();
    let foreign = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = dir.refusal(&path());
    assert!(error.to_string().contains("is not a redis-server"), "{error}");
    foreign.join().unwrap();
}

#[test]
fn without_redis_server_the_error_says_how_to_install_it() {
    let error = DataDir::new().refusal(OsStr::new(""));
    assert!(matches!(error, StartError::NotFound), "{error}");
    assert!(error.to_string().contains("apt-get install redis-server"), "{error}");
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn an_old_redis_server_is_refused_by_its_version() {
    let version = |text| new_enough(text).map_err(|error| error.to_string());
    assert_eq!(version("Redis server v=7.0.15 sha=00000000:0 bits=64"), Ok("7.0.15".to_owned()));
    assert_eq!(version("Valkey server v=8.0.1 sha=00000000:0 bits=64"), Ok("8.0.1".to_owned()));
    assert!(version("Redis server v=6.2.14 sha=00000000:0").unwrap_err().contains("version 6.2.14"));
    assert!(version("something else").unwrap_err().contains("an unknown version"));
}

#[test]
fn a_redis_that_cannot_read_its_data_says_so() {
    let dir = DataDir::new();
    dir.start().stop(&|| false);
    fs::write(dir.data.join("appendonlydir/appendonly.aof.manifest"), "no manifest\n").unwrap();
    let error = dir.refusal(&path());
    assert!(matches!(error, StartError::Died { .. }), "{error}");
    assert!(!error.is_configuration());
    assert!(error.to_string().contains("manifest"), "{error}");
}

#[test]
fn a_data_dir_that_is_a_file_is_refused() {
    let dir = DataDir::new();
    fs::create_dir_all(dir.data.parent().unwrap()).unwrap();
    fs::write(&dir.data, "").unwrap();
    let error = dir.refusal(&path());
    assert!(matches!(error, StartError::DataDir { .. }), "{error}");
}

#[test]
fn a_long_path_with_odd_characters_works() {
    let dir = DataDir::named(&format!("it's \"100% \u{e9}\" #1? {}", "x".repeat(150)));
    let redis = dir.start();
    assert!(redis.url().starts_with("redis+unix:///proc/self/fd/"), "{}", redis.url());
    ask(&redis, "SET long path");
    drop(redis);
    let redis = dir.start();
    assert_eq!(ask(&redis, "GET long"), "path");
    redis.stop(&|| false);
}

#[test]
fn the_url_is_percent_encoded() {
    let dir = DataDir::named("a b%#?");
    let folder = Folder::open(&dir.data).unwrap();
    let encoded = encode_path(folder.socket().as_os_str().as_bytes());
    assert!(encoded.ends_with("/a%20b%25%23%3F/redis.sock"), "{encoded}");
}

#[test]
fn a_running_one_is_found_without_touching_anything() {
    let dir = DataDir::new();
    assert!(RunningRedis::find(&dir.data).unwrap().is_none());
    let redis = dir.start();
    let found = RunningRedis::find(&dir.data).unwrap().unwrap();
    assert!(found.url().ends_with("/redis.sock"), "{}", found.url());
    redis.stop(&|| false);
    assert!(RunningRedis::find(&dir.data).unwrap().is_none());
    let missing = dir.data.join("missing");
    assert!(RunningRedis::find(&missing).unwrap().is_none());
    assert!(!missing.exists());
}

#[test]
fn watch_starts_a_killed_redis_again_until_stop() {
    let dir = DataDir::new();
    let redis = dir.start();
    ask(&redis, "SET watched kept");
    thread::scope(|scope| {
        let watching = scope.spawn(|| redis.watch());
        for _ in 0..2 {
            let pid = redis.pid().unwrap();
            kill(pid);
            eventually(LIMIT, "another redis-server answers", || redis.pid().is_some_and(|now| now != pid));
            eventually(LIMIT, "it has the data", || redis.ask("GET watched").is_ok());
        }
        assert_eq!(ask(&redis, "GET watched"), "kept");
        redis.stop(&|| false);
        eventually(LIMIT, "watch returns", || watching.is_finished());
    });
    assert!(!redis.is_running(), "watch must not restart it after stop");
}

#[test]
fn watch_looks_after_an_adopted_redis_too() {
    let dir = DataDir::new();
    drop(dir.start());
    let redis = dir.start();
    let pid = redis.pid().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| redis.watch());
        kill(pid);
        eventually(LIMIT, "another redis-server answers", || redis.pid().is_some_and(|now| now != pid));
        redis.stop(&|| false);
    });
}

#[test]
fn a_long_log_is_set_aside_at_the_next_start() {
    let dir = DataDir::new();
    let folder = Folder::open(&dir.data).unwrap();
    fs::write(dir.data.join("redis.log"), vec![b'x'; MAX_LOG_BYTES as usize + 1]).unwrap();
    assert_eq!(folder.open_log().unwrap().metadata().unwrap().len(), 0);
    assert!(dir.data.join("redis.log.1").exists());
}

#[test]
fn replies_are_texts_and_broken_replies_are_errors() {
    let read = |bytes: &[u8]| read_reply(bytes);
    assert_eq!(read(b"*2\r\n$3\r\ndir\r\n$2\r\n/a\r\n").unwrap(), [b"dir".to_vec(), b"/a".to_vec()]);
    assert_eq!(read(b"+PONG\r\n").unwrap(), [b"PONG".to_vec()]);
    let error = read(b"-LOADING wait\r\n").unwrap_err();
    assert!(matches!(error, AskError::Server(_)) && error.to_string() == "LOADING wait", "{error}");
    for broken in ["", "+PONG", "$5\r\nabc", "*2\r\n$1\r\na\r\n", "*1000000000\r\n"] {
        assert!(matches!(read(broken.as_bytes()), Err(AskError::Io(_))), "{broken:?}");
    }
    for broken in ["\r\n", "*1\r\n*1\r\n$1\r\na\r\n", "$18446744073709551615\r\n", "HTTP/1.1 400 Bad Request"]
    {
        assert!(matches!(read(broken.as_bytes()), Err(AskError::Invalid)), "{broken:?}");
    }
}

/// A program `redis-server` that runs this shell script.
fn fake_redis_server(dir: &DataDir, script: &str) -> PathBuf {
    fs::create_dir_all(&dir.data).unwrap();
    let program = dir.data.join("redis-server");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn a_redis_server_that_does_not_print_its_version_is_a_timeout() {
    let dir = DataDir::new();
    let program = fake_redis_server(&dir, "exec sleep 600");
    let begun = Instant::now();
    let error = check_version(&program, Duration::from_millis(200), &|| false).unwrap_err();
    assert!(matches!(error, StartError::VersionTimeout { .. }) && !error.is_configuration(), "{error}");
    assert!(error.to_string().contains("redis-server --version did not end within 200ms"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_stop_ends_the_wait_for_the_version() {
    let dir = DataDir::new();
    let program = fake_redis_server(&dir, "exec sleep 600");
    let begun = Instant::now();
    let stop = || begun.elapsed() > Duration::from_millis(100);
    let error = check_version(&program, Duration::from_secs(600), &stop).unwrap_err();
    assert!(matches!(error, StartError::Stopped), "{error}");
}

#[test]
fn a_process_that_keeps_the_output_open_does_not_delay_the_version() {
    let dir = DataDir::new();
    let program = fake_redis_server(&dir, "echo 'Redis server v=7.2.1'\nsleep 30 &");
    let begun = Instant::now();
    assert_eq!(check_version(&program, Duration::from_secs(60), &|| false).unwrap(), "7.2.1");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
