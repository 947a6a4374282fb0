//! A real redis-server for each test, in a folder of its own.

use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::private_redis::folder::{MAX_LOG_BYTES, percent_encode};
use crate::private_redis::program::new_enough;
use crate::private_redis::socket::{read_answer, read_line};
use crate::private_redis::*;

/// A folder of its own for one test, and the end of the redis-server in it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        Place::named("data")
    }

    fn named(name: &str) -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("threadq-redis-{}-{number}", std::process::id());
        Place(std::env::temp_dir().join(unique).join(name))
    }

    fn start(&self) -> PrivateRedis {
        PrivateRedis::start(&self.0, "everysec", &|| false).unwrap()
    }

    /// The error of a start with this PATH that does not wait long.
    fn refusal(&self, search_path: &OsStr) -> StartError {
        let patience = Duration::from_millis(200);
        match PrivateRedis::start_with(&self.0, "everysec", Some(search_path), patience, &|| false) {
            Ok(redis) => panic!("started, pid {:?}", redis.pid()),
            Err(error) => error,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(folder) = Folder::open(&self.0) {
            let _ = socket::ask(&folder.socket(), "SHUTDOWN");
            let limit = Instant::now() + Duration::from_secs(10);
            while Instant::now() < limit && !matches!(folder.try_lock("redis.lock"), Ok(Some(_))) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < limit, "not within 60 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn ask(redis: &PrivateRedis, command: &str) -> String {
    let answer = redis.ask(command).unwrap();
    answer.iter().map(|text| String::from_utf8_lossy(text)).collect::<Vec<_>>().join(" ")
}

#[test]
fn it_runs_with_its_settings_until_it_is_stopped() {
    let place = Place::new();
    let redis = place.start();
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
    assert!(matches!(redis.ask("PING"), Err(Unanswered::Nobody)));
    assert!(!redis.is_running());
}

#[test]
fn only_its_owner_can_read_the_data() {
    let place = Place::new();
    let redis = place.start();
    let mode = |name: &str| fs::metadata(place.0.join(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("."), 0o700);
    assert_eq!(mode("appendonlydir"), 0o700);
    assert_eq!(mode("redis.sock"), 0o600);
    assert_eq!(mode("redis.log"), 0o600);
    assert_eq!(mode("server.lock"), 0o600);
    redis.stop(&|| false);
}

#[test]
fn data_survives_a_stop_and_a_kill() {
    let place = Place::new();
    let redis = place.start();
    ask(&redis, "SET stopped kept");
    redis.stop(&|| false);
    drop(redis);

    let redis = place.start();
    assert_eq!(ask(&redis, "GET stopped"), "kept");
    ask(&redis, "SET killed kept");
    kill(redis.pid().unwrap());
    eventually("the killed redis-server is gone", || !redis.is_running());
    drop(redis);

    let redis = place.start();
    assert_eq!(ask(&redis, "GET killed"), "kept");
}

#[test]
fn a_second_server_on_the_same_data_dir_is_refused() {
    let place = Place::new();
    let redis = place.start();
    let error = place.refusal(&path());
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
    assert!(error.is_configuration());
    assert!(error.to_string().starts_with("data-dir "), "{error}");
    assert!(redis.pid().is_some(), "the first one is not disturbed");
}

#[test]
fn the_redis_of_a_killed_server_is_adopted() {
    let place = Place::new();
    let first = place.start();
    let pid = first.pid();
    assert!(pid.is_some());
    drop(first);

    let second = PrivateRedis::start(&place.0, "always", &|| false).unwrap();
    assert_eq!(second.pid(), pid);
    assert!(second.is_running());
    assert_eq!(ask(&second, "CONFIG GET appendfsync"), "appendfsync always");
    second.stop(&|| false);
    assert!(!second.is_running());
}

#[test]
fn a_redis_that_lost_its_socket_file_is_not_joined_by_a_second_one() {
    let place = Place::new();
    let first = place.start();
    let pid = first.pid().unwrap();
    drop(first);
    fs::remove_file(place.0.join("redis.sock")).unwrap();

    let error = place.refusal(&path());
    assert!(matches!(error, StartError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("redis.lock"), "{error}");

    kill(pid);
    assert_ne!(place.start().pid(), Some(pid));
}

#[test]
fn a_redis_of_another_folder_is_refused() {
    let place = Place::new();
    let elsewhere = Place::new();
    let other = elsewhere.start();
    Folder::open(&place.0).unwrap();
    std::os::unix::fs::symlink(elsewhere.0.join("redis.sock"), place.0.join("redis.sock")).unwrap();

    let error = place.refusal(&path());
    assert!(matches!(error, StartError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains(&elsewhere.0.display().to_string()), "{error}");
    fs::remove_file(place.0.join("redis.sock")).unwrap();
    assert!(other.pid().is_some(), "the other one is not disturbed");
}

#[test]
fn what_is_no_redis_is_refused() {
    let place = Place::new();
    Folder::open(&place.0).unwrap();
    let listener = UnixListener::bind(place.0.join("redis.sock")).unwrap();
    let stranger = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_line(&mut BufReader::new(&stream)).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = place.refusal(&path());
    assert!(error.to_string().contains("is no redis-server"), "{error}");
    stranger.join().unwrap();
}

#[test]
fn without_redis_server_the_error_says_how_to_install_it() {
    let error = Place::new().refusal(OsStr::new(""));
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
    assert!(version("something else").unwrap_err().contains("unknown version"));
}

#[test]
fn a_redis_that_cannot_read_its_data_says_so() {
    let place = Place::new();
    place.start().stop(&|| false);
    fs::write(place.0.join("appendonlydir/appendonly.aof.manifest"), "no manifest\n").unwrap();
    let error = place.refusal(&path());
    assert!(matches!(error, StartError::Died { .. }), "{error}");
    assert!(!error.is_configuration());
    assert!(error.to_string().contains("manifest"), "{error}");
}

#[test]
fn a_data_dir_that_is_a_file_is_refused() {
    let place = Place::new();
    fs::create_dir_all(place.0.parent().unwrap()).unwrap();
    fs::write(&place.0, "").unwrap();
    let error = place.refusal(&path());
    assert!(matches!(error, StartError::DataDir { .. }), "{error}");
}

#[test]
fn a_long_path_with_odd_characters_works() {
    let place = Place::named(&format!("it's \"100% \u{e9}\" #1? {}", "x".repeat(150)));
    let redis = place.start();
    assert!(redis.url().starts_with("redis+unix:///proc/self/fd/"), "{}", redis.url());
    ask(&redis, "SET long path");
    drop(redis);
    let redis = place.start();
    assert_eq!(ask(&redis, "GET long"), "path");
    redis.stop(&|| false);
}

#[test]
fn the_url_is_percent_encoded() {
    let place = Place::named("a b%#?");
    let folder = Folder::open(&place.0).unwrap();
    let encoded = percent_encode(folder.socket().as_os_str().as_bytes());
    assert!(encoded.ends_with("/a%20b%25%23%3F/redis.sock"), "{encoded}");
}

#[test]
fn a_running_one_is_found_without_touching_anything() {
    let place = Place::new();
    assert!(RunningRedis::find(&place.0).unwrap().is_none());
    let redis = place.start();
    let found = RunningRedis::find(&place.0).unwrap().unwrap();
    assert!(found.url().ends_with("/redis.sock"), "{}", found.url());
    redis.stop(&|| false);
    assert!(RunningRedis::find(&place.0).unwrap().is_none());
    let missing = place.0.join("missing");
    assert!(RunningRedis::find(&missing).unwrap().is_none());
    assert!(!missing.exists());
}

#[test]
fn watch_starts_a_killed_redis_again_until_stop() {
    let place = Place::new();
    let redis = place.start();
    ask(&redis, "SET watched kept");
    thread::scope(|scope| {
        let watching = scope.spawn(|| redis.watch());
        for _ in 0..2 {
            let pid = redis.pid().unwrap();
            kill(pid);
            eventually("another redis-server answers", || redis.pid().is_some_and(|now| now != pid));
            eventually("it has the data", || redis.ask("GET watched").is_ok());
        }
        assert_eq!(ask(&redis, "GET watched"), "kept");
        redis.stop(&|| false);
        eventually("watch returns", || watching.is_finished());
    });
    assert!(!redis.is_running(), "stop is no reason to start it again");
}

#[test]
fn watch_looks_after_an_adopted_redis_too() {
    let place = Place::new();
    drop(place.start());
    let redis = place.start();
    let pid = redis.pid().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| redis.watch());
        kill(pid);
        eventually("another redis-server answers", || redis.pid().is_some_and(|now| now != pid));
        redis.stop(&|| false);
    });
}

#[test]
fn a_long_log_is_set_aside_at_the_next_start() {
    let place = Place::new();
    let folder = Folder::open(&place.0).unwrap();
    fs::write(place.0.join("redis.log"), vec![b'x'; MAX_LOG_BYTES as usize + 1]).unwrap();
    assert_eq!(folder.open_log().unwrap().metadata().unwrap().len(), 0);
    assert!(place.0.join("redis.log.1").exists());
}

#[test]
fn broken_answers_are_errors() {
    let read = |bytes: &[u8]| read_answer(&mut &bytes[..]);
    assert_eq!(read(b"*2\r\n$3\r\ndir\r\n$2\r\n/a\r\n").unwrap(), [b"dir".to_vec(), b"/a".to_vec()]);
    assert!(matches!(read(b"-LOADING wait\r\n"), Err(Unanswered::Error(text)) if text == "LOADING wait"));
    for broken in
        ["", "\r\n", "+PONG", "$5\r\nabc", "*2\r\n$1\r\na\r\n", "*1\r\n*1\r\n", "$18446744073709551615\r\n"]
    {
        assert!(matches!(read(broken.as_bytes()), Err(Unanswered::Io(_))), "{broken:?}");
    }
}
