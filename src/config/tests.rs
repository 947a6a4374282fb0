//! The configuration as a whole: who beats whom, what is refused, and that no secret shows.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::{TempDir, tempdir};

use std::ffi::OsString;
use std::time::Duration;

use super::*;
use crate::handler::Policy;
use crate::handler::limits::ResourceLimits;
use crate::handler::lines::Lines;
use crate::job::backoff::Backoff;
use crate::job::duration::to_text;
use crate::job::limit::{LimitName, LimitNumbers, Rate};

/// A folder that is removed at the end of the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn load(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env: HashMap<&str, &str> = env.iter().copied().collect();
    Config::load(args, |name| env.get(name).map(|text| text.to_string()))
}

fn load_file(text: &str) -> Result<Config, ConfigError> {
    let folder = Folder::new();
    load(&["--config", &folder.file("threadq.toml", text)], &[])
}

/// The error's line, which must be one.
fn refused(result: Result<Config, ConfigError>) -> String {
    let line = result.expect_err("should be refused").to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(line.contains("; allowed: "), "{line}");
    line
}

#[test]
fn without_anything_all_is_as_by_default() {
    let config = load(&[], &[]).unwrap();
    assert_eq!(config.config_dir, std::env::current_dir().unwrap());
    let expected = Config { config_dir: config.config_dir.clone(), ..Config::default() };
    assert_eq!(format!("{config:?}"), format!("{expected:?}"));
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    // Name, a value for each of file, environment and flag, and how to see which it is.
    type Seen = fn(&Config) -> String;
    let cases: [(&str, [&str; 3], Seen); 8] = [
        ("listen", ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], |c| c.listen.to_string()),
        ("workers", ["1", "2", "3"], |c| c.workers.to_string()),
        ("lease-timeout", ["1s", "2s", "3s"], |c| to_text(c.lease_timeout)),
        ("namespace", ["a", "b", "c"], |c| c.namespace.clone()),
        ("redis-url", ["redis://a", "redis://b", "redis://c"], |c| c.redis_url.as_ref().unwrap().redacted()),
        ("data-dir", ["a", "b", "c"], |c| c.data_dir.to_str().unwrap().to_owned()),
        ("log-level", ["error", "warn", "trace"], |c| c.log_level.to_string().to_lowercase()),
        ("demo", ["true", "false", "true"], |c| c.demo.to_string()),
    ];
    let folder = Folder::new();
    for (name, [in_file, in_env, in_flag], seen) in cases {
        let file = folder.file("threadq.toml", &format!("{name} = {in_file:?}"));
        let variable = settings::find(name).unwrap().env_name();
        let flag = format!("--{name}={in_flag}");
        let all = [("THREADQ_CONFIG", file.as_str()), (&variable, in_env)];
        let [with_file, with_env, with_flag] = [load(&[], &all[..1]), load(&[], &all), load(&[&flag], &all)]
            .map(|config| seen(&config.unwrap()));
        assert_eq!([with_file.as_str(), &with_env, &with_flag], [in_file, in_env, in_flag], "{name}");
    }
}

#[test]
fn flags_take_their_value_after_a_space_or_an_equals_sign() {
    let args = ["--workers", "7", "--queues=a=2,b", "--demo", "--insecure-no-token=false", "--workers", "8"];
    let config = load(&args, &[]).unwrap();
    assert_eq!((config.workers, config.demo, config.insecure_no_token), (8, true, false));
    assert_eq!(config.queues[0], QueueShare { name: "a".to_owned(), weight: 2, strict: false });
    assert!(!load(&["--demo=false"], &[("THREADQ_DEMO", "1")]).unwrap().demo);
}

#[test]
fn a_file_has_numbers_booleans_and_strings() {
    let config = load_file(
        "workers = 7\nmax-body = 2048\nmax-queue-length = '9'\ndemo = true\ninline-backoff = 0\nfsync = 'always'",
    );
    let config = config.unwrap();
    assert_eq!((config.workers, config.max_body, config.max_queue_length, config.demo), (7, 2048, 9, true));
    assert_eq!((config.inline_backoff, config.fsync.as_str()), (Duration::ZERO, "always"));
}

#[test]
fn port_and_redis_url_come_right_below_their_own_variables() {
    let listen = |args: &[&str], env: &[(&str, &str)]| load(args, env).unwrap().listen.to_string();
    let folder = Folder::new();
    let file = folder.file("threadq.toml", "listen = '127.0.0.1:1'");
    assert_eq!(listen(&[], &[("PORT", "9000")]), "127.0.0.1:9000");
    assert_eq!(listen(&["--config", &file], &[("PORT", "9000")]), "127.0.0.1:9000");
    assert_eq!(listen(&[], &[("PORT", "9000"), ("THREADQ_LISTEN", "127.0.0.1:2")]), "127.0.0.1:2");
    assert_eq!(listen(&[], &[("PORT", "tcp://x"), ("THREADQ_LISTEN", "127.0.0.1:2")]), "127.0.0.1:2");
    assert_eq!(listen(&["--listen", "127.0.0.1:3"], &[("PORT", "9000")]), "127.0.0.1:3");
    let url = |env: &[(&str, &str)]| load(&[], env).unwrap().redis_url.unwrap().expose().to_owned();
    assert_eq!(url(&[("REDIS_URL", "redis://a")]), "redis://a");
    assert_eq!(url(&[("REDIS_URL", "redis://a"), ("THREADQ_REDIS_URL", "redis://b")]), "redis://b");
    let line = refused(load(&[], &[("PORT", "70000")]));
    assert!(line.starts_with("listen (environment variable PORT): \"70000\" is too large;"), "{line}");
}

#[test]
fn an_empty_variable_is_not_set() {
    let env = [
        ("THREADQ_WORKERS", ""),
        ("PORT", ""),
        ("THREADQ_CONFIG", ""),
        ("THREADQ_LISTEN", ""),
        ("REDIS_URL", ""),
    ];
    assert_eq!(load(&[], &env).unwrap().workers, 30);
    let env = [("THREADQ_LISTEN", ""), ("PORT", "9000")];
    assert_eq!(load(&[], &env).unwrap().listen.port(), 9000);
}

#[test]
fn bad_values_are_refused_from_every_source_with_the_same_words() {
    let cases = [
        ("listen", vec!["", "8080", "nowhere:80", "127.0.0.1", "127.0.0.1:65536"], "ADDR:PORT such as"),
        (
            "redis-url",
            vec![
                "h",
                "http://h",
                "redis://h:99999",
                "redis://h:6379abc/1",
                "rediss://h#insecure",
                "redis://",
                "unix://s",
            ],
            "[[USER]",
        ),
        ("ca-file", vec!["/nonexistent/ca", "/dev/zero", "/dev/null"], "authorities in PEM"),
        ("redis-ca-file", vec!["/nonexistent/ca", "/dev/zero", "/dev/null"], "authorities in PEM"),
        ("redis-cert-file", vec!["/nonexistent/cert", "/dev/zero", "/dev/null"], "a certificate in PEM"),
        ("redis-key-file", vec!["/nonexistent/key", "/dev/zero", "/dev/null"], "private key in PEM"),
        ("redis-replicas", vec!["6", "-1", "all"], "a whole number from 0 to 5"),
        ("data-dir", vec![""], "the path of a folder"),
        ("fsync", vec!["never", "ALWAYS"], "everysec, always"),
        ("namespace", vec!["a b", "{x}", "é"], "1 to 64 of A-Z"),
        (
            "queues",
            vec!["a,a", "a=0", "a=101", "a,", "a b", "a!=3"],
            "a comma list of NAME, NAME=WEIGHT or NAME!",
        ),
        (
            "workers",
            vec!["1001", "-1", "3.5", "many", "99999999999999999999"],
            "a whole number from 0 to 1000",
        ),
        ("fetchers", vec!["0", "17"], "a whole number from 1 to 16"),
        ("drain-timeout", vec!["5", "-5s", "3651d", "1h30m"], "0s to 3650d"),
        ("lease-timeout", vec!["0", "999ms", "1 s", "99999999999999999999d"], "1s to 3650d"),
        ("max-connections", vec!["0", "65537"], "a whole number from 1 to 65536"),
        ("max-waiting", vec!["0", "32769"], "a whole number from 1 to 32768"),
        ("max-body", vec!["1023", "65MiB", "1MB", "99999999999999999999GiB"], "1KiB to 64MiB"),
        ("max-queue-length", vec!["0", "9007199254740992"], "a whole number from 1 to 9007199254740991"),
        ("retain-completed", vec!["1y", "24"], "0s to 3650d"),
        ("retain-completed-max", vec!["-1", "1k"], "a whole number from 0 to 9007199254740991"),
        ("retain-failed", vec!["forever"], "0s to 3650d"),
        ("retain-failed-max", vec!["1_000"], "a whole number from 0 to 9007199254740991"),
        ("max-crashes", vec!["0", "101"], "a whole number from 1 to 100"),
        ("inline-backoff", vec!["200"], "0s to 3650d"),
        ("api-token", vec!["a b", "é", "a\nb"], "1 to 1024 visible ASCII characters"),
        ("api-token-file", vec!["/nonexistent/token", "/dev/zero", "/dev/null"], ""),
        ("worker-token", vec!["a b", "é", "a\nb"], "1 to 1024 visible ASCII characters"),
        ("worker-token-file", vec!["/nonexistent/token", "/dev/zero", "/dev/null"], ""),
        ("insecure-no-token", vec!["yes", "TRUE"], "true, false, 1, 0"),
        ("log-format", vec!["xml", "JSON"], "text, json"),
        ("log-level", vec!["loud", "3"], "off, error, warn, info, debug, trace"),
        ("demo", vec!["on"], "true, false, 1, 0"),
    ];
    assert_eq!(cases.len(), settings::SETTINGS.len(), "a setting has no bad values here");
    for (name, values, allowed) in cases {
        let variable = settings::find(name).unwrap().env_name();
        for value in values {
            let after = |line: &str, origin: &str| {
                let start = format!("{name} ({origin}");
                assert!(line.starts_with(&start), "{line}");
                assert!(line.contains(allowed), "{line}");
                line.split_once("): ").unwrap().1.to_owned()
            };
            let flag = after(&refused(load(&[&format!("--{name}={value}")], &[])), &format!("flag --{name}"));
            let file = after(&refused(load_file(&format!("{name} = {value:?}"))), "file ");
            assert_eq!(flag, file);
            if !value.is_empty() {
                let env = refused(load(&[], &[(&variable, value)]));
                assert_eq!(flag, after(&env, &format!("environment variable {variable}")));
            }
        }
    }
}

#[test]
fn a_refused_value_is_shown_cut_and_on_one_line() {
    let line = refused(load(&["--workers", "a\nb\u{1b}[31m"], &[]));
    assert!(
        line.starts_with(r#"workers (flag --workers): "a\nb\u{1b}[31m" is not a whole number;"#),
        "{line}"
    );
    assert!(refused(load(&["--workers", &"é".repeat(10_000)], &[])).len() < 400);
}

#[test]
fn unknown_flags_and_stray_words_are_refused() {
    let line = refused(load(&["--wrokers", "3"], &[]));
    assert!(line.starts_with("--wrokers (command line): the name is not a flag"), "{line}");
    assert!(line.contains("--workers") && line.contains("--config"), "{line}");
    assert!(refused(load(&["-w3"], &[])).starts_with("-w (command line)"));
    assert!(!refused(load(&["--demo", "hunter2"], &[])).contains("hunter2"));
    assert!(!refused(load(&["--", "hunter2"], &[])).contains("hunter2"));
    assert!(!refused(load(&["--api-tokn=hunter2"], &[])).contains("hunter2"));
    for args in [&["--workers"][..], &["--workers", "--demo"], &["--config"], &["--data-dir", "--demo"]] {
        let line = refused(load(args, &[]));
        assert!(line.contains("has no value; allowed: --"), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn a_flag_that_is_no_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let args = [OsString::from("--namespace"), OsString::from_vec(vec![0xff])];
    let line = refused(Config::load(args, |_| None));
    assert!(line.starts_with("namespace (flag --namespace): the value is not UTF-8"), "{line}");
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_refused_with_its_line() {
    let line = refused(load(&["--config", "/nonexistent/threadq.toml"], &[]));
    assert!(
        line.starts_with("config (flag --config): \"/nonexistent/threadq.toml\" cannot be read"),
        "{line}"
    );
    let line = refused(load(&[], &[("THREADQ_CONFIG", "/nonexistent/threadq.toml")]));
    assert!(line.starts_with("config (environment variable THREADQ_CONFIG)"), "{line}");
    let endless = refused(load(&["--config", "/dev/zero"], &[]));
    assert!(endless.contains("longer than"), "{endless}");
    for (text, line_number) in [
        ("workers = 3\ndemo =\n", 2),
        ("\n\nworkers", 3),
        ("workers = 3\nworkers = 4", 2),
        ("api-token = hunter2", 1),
        ("x = 1\nredis-url = redis://:hunter2@h", 2),
        ("api-token = 'hunter2", 1),
        ("api-token = \"hunter2\\x\"", 1),
    ] {
        let line = refused(load_file(text));
        assert!(line.contains(&format!(", line {line_number}): the file is not valid TOML")), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn unknown_keys_and_values_of_a_wrong_type_are_refused() {
    for (text, start, part) in [
        ("wrokers = 3", "wrokers (file ", "the key is not a setting; allowed: listen, "),
        ("max_body = 3", "max_body (file ", "max-body"),
        ("config = 'x'", "config (file ", "the key is not a setting"),
        ("workers = [3]", "workers (file ", "the value is a list; allowed: a string"),
        ("[workers]\nn = 3", "workers (file ", "the value is a table"),
        ("workers = 1.5", "workers (file ", "\"1.5\" is not a whole number"),
        ("workers = true", "workers (file ", "\"true\" is not a whole number"),
        ("lease-timeout = 15", "lease-timeout (file ", "\"15\" has no unit"),
        ("handlers = 3", "handlers (file ", "the value is a number"),
    ] {
        let line = refused(load_file(text));
        assert!(line.starts_with(start) && line.contains(part), "{line}");
    }
}

#[test]
fn other_machines_need_a_token_or_an_explicit_word() {
    for address in ["0.0.0.0:0", "[::]:0", "192.168.1.2:80", "[::ffff:10.0.0.1]:80"] {
        let line = refused(load(&["--listen", address], &[]));
        assert!(line.starts_with("listen (") && line.contains("api-token"), "{line}");
        assert!(load(&["--listen", address, "--insecure-no-token"], &[]).is_ok());
        assert!(load(&["--listen", address], &[("THREADQ_API_TOKEN", "t")]).is_ok());
    }
    for address in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:80", "[::ffff:127.0.0.1]:80"] {
        assert!(load(&["--listen", address], &[]).is_ok(), "{address}");
    }
}

#[test]
fn one_byte_order_mark_at_the_start_of_a_file_is_skipped() {
    let folder = Folder::new();
    let file = folder.file("marked.toml", "\u{feff}workers = 7\r\n");
    assert_eq!(load(&["--config", &file], &[]).unwrap().workers, 7);
    let token = folder.file("marked-token", "\u{feff}hunter2\r\n");
    assert_eq!(load(&["--api-token-file", &token], &[]).unwrap().api_token.unwrap().expose(), "hunter2");
    let twice = folder.file("twice", "\u{feff}\u{feff}hunter2");
    assert!(refused(load(&["--api-token-file", &twice], &[])).contains("not visible ASCII"));
    let later = folder.file("later.toml", "\n\u{feff}workers = 7\n");
    assert!(refused(load(&["--config", &later], &[])).contains("is not valid TOML"));
}

#[test]
fn authorities_of_the_environment_count_only_where_tls_is_used() {
    let folder = Folder::new();
    let broken = folder.file("broken.pem", "hello");
    let env = [("SSL_CERT_FILE", broken.as_str())];
    assert!(load(&["--redis-url", "redis://h"], &env).unwrap().ca.is_none());
    let https = folder.file("https.toml", "[handlers.x]\nhttp = 'https://h/'\n");
    for flags in [["--redis-url", "rediss://h"], ["--config", &https]] {
        let line = refused(load(&flags, &env));
        assert!(line.starts_with("ca-file (environment variable SSL_CERT_FILE): "), "{line}");
        assert!(line.contains("broken.pem") && line.contains("holds no certificate"), "{line}");
    }
    let line = refused(load(&["--ca-file", &broken], &[]));
    assert!(line.starts_with("ca-file (flag --ca-file): ") && line.contains("broken.pem"), "{line}");
}

#[test]
fn a_token_may_come_from_a_file() {
    let folder = Folder::new();
    let token = folder.file("token", "  hunter2\n");
    let config = load(&["--api-token-file", &token], &[("THREADQ_API_TOKEN", "other")]).unwrap();
    assert_eq!(config.api_token.unwrap().expose(), "hunter2");
    let line = refused(load(&["--api-token-file", &token, "--api-token", "other"], &[]));
    assert!(
        line.starts_with("api-token-file (flag --api-token-file): the setting is given beside api-token"),
        "{line}"
    );
    let args = ["--api-token=all", "--worker-token-file", &token];
    assert_eq!(load(&args, &[]).unwrap().worker_token.unwrap().expose(), "hunter2");
    let line = refused(load(&["--worker-token-file", &token, "--worker-token", "other"], &[]));
    assert!(line.contains("the setting is given beside worker-token"), "{line}");
    let line = refused(load(&["--worker-token-file", &token], &[]));
    assert!(line.starts_with("worker-token (with the other settings): the value is set, but"), "{line}");
    let line = refused(load(&["--api-token-file", &folder.file("bad", "hunter2 hunter3")], &[]));
    assert!(line.contains("holds a token that has a space") && !line.contains("hunter"), "{line}");
    assert!(refused(load(&["--api-token-file", &folder.file("empty", "\n")], &[])).contains("is empty"));
}

#[test]
fn a_secret_shows_neither_in_debug_nor_in_errors() {
    let good = [("THREADQ_API_TOKEN", "hunter2"), ("THREADQ_REDIS_URL", "redis://:hunter3@h")];
    let shown = format!("{:?}", load(&[], &good).unwrap());
    assert!(!shown.contains("hunter"), "{shown}");
    for (name, value) in [
        ("api-token", "hunter2 x"),
        ("api-token", "hunter2\n"),
        ("redis-url", "rediss://:hunter2@h#insecure"),
        ("redis-url", "redis://:hunter2@"),
        ("redis-url", "hunter2"),
        ("redis-url", "hunter2://h"),
        ("redis-url", "redis://:hunter2 @h"),
    ] {
        let variable = settings::find(name).unwrap().env_name();
        let lines = [
            refused(load(&[&format!("--{name}"), value], &[])),
            refused(load(&[], &[(&variable, value)])),
            refused(load_file(&format!("{name} = {value:?}"))),
            refused(load_file(&format!("{name} = [{value:?}]"))),
        ];
        for line in lines {
            assert!(line.starts_with(name) && !line.contains("hunter"), "{line}");
        }
    }
}

#[test]
fn handlers_are_read_with_their_policies() {
    let folder = Folder::new();
    let file = folder.file(
        "threadq.toml",
        r#"
            workers = 2
            [handlers."Encode Video"]
            exec = ["./encode.sh", "--fast"]
            timeout = "10m"
            max_attempts = 3
            backoff = { base = "2s", cap = "5m" }
            silence = "1m"
            log = "stderr"
            limits = { memory = "512MiB", cpu = "1m", open_files = 256, niceness = 10 }
            protocol = "lines"
            processes = 4
            idle = "2m"

            [handlers.notify]
            http = "http://127.0.0.1:9000/notify"
            backoff.cap = "10s"
            concurrency = 5
            rate = "50/s"
            burst = 7
            limited_by = ["smtp", "tenant:42"]

            [handlers.echo]
            max_attempts = 1
            retain = "7d"

            [handlers.train]
            pull = true
            timeout = "6h"
        "#,
    );
    let config = load(&["--config", &file], &[]).unwrap();
    assert_eq!(config.config_dir, folder.0.path());
    let encode = HandlerEntry {
        job_type: "Encode Video".to_owned(),
        run: Some(Run::Exec(vec!["./encode.sh".to_owned(), "--fast".to_owned()])),
        limits: ResourceLimits {
            memory: Some(512 << 20),
            cpu: Some(Duration::from_secs(60)),
            open_files: Some(256),
            niceness: Some(10),
        },
        policy: Policy {
            timeout: Duration::from_secs(600),
            max_attempts: 3,
            backoff: Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(300) },
            retain: None,
            silence: Some(Duration::from_secs(60)),
        },
        stderr_is_log: true,
        lines: Some(Lines { processes: Some(4), max_jobs: 1_000, idle: Duration::from_secs(120) }),
        ..HandlerEntry::default()
    };
    let echo = HandlerEntry {
        job_type: "echo".to_owned(),
        policy: Policy {
            max_attempts: 1,
            retain: Some(Duration::from_secs(7 * 86_400)),
            ..Policy::default()
        },
        ..HandlerEntry::default()
    };
    let backoff = Backoff { cap: Duration::from_secs(10), ..Backoff::default() };
    let notify = HandlerEntry {
        job_type: "notify".to_owned(),
        run: Some(Run::Http("http://127.0.0.1:9000/notify".to_owned())),
        policy: Policy { backoff, ..Policy::default() },
        limit: Some(LimitNumbers { concurrency: Some(5), rate: Rate::parse("50/s"), burst: 7 }),
        limited_by: ["smtp", "tenant:42"].map(|name| LimitName::parse(name).unwrap()).to_vec(),
        ..HandlerEntry::default()
    };
    let train = HandlerEntry {
        job_type: "train".to_owned(),
        run: Some(Run::Pull),
        policy: Policy { timeout: Duration::from_secs(6 * 3600), ..Policy::default() },
        ..HandlerEntry::default()
    };
    assert_eq!(config.handlers, [encode, echo, notify, train]);
}

#[test]
fn limits_are_read_with_those_of_single_types() {
    let config = load_file(
        "[limits.tenant]\nconcurrency = 2\nrate = '100/m'\nburst = 20\n[limits.\"tenant:4 2\"]\nconcurrency = '9'\n\
         [limits.smtp]\nrate = '10/s'\n[handlers.\"Encode Video\"]\nconcurrency = 3\n[handlers.echo]\nlimited_by = ['smtp']\n",
    )
    .unwrap();
    let shown: Vec<String> =
        config.defined_limits().iter().map(|(name, numbers)| format!("{name}: {numbers}")).collect();
    let expected = [
        "smtp: rate 10/s, burst 1",
        "tenant: concurrency 2, rate 100/m, burst 20",
        "tenant:4 2: concurrency 9",
        "threadq.type:Encode Video: concurrency 3",
    ];
    assert_eq!(shown, expected);
    let of_types: Vec<String> =
        config.handlers.iter().flat_map(HandlerEntry::all_limits).map(|limit| limit.to_string()).collect();
    assert_eq!(of_types, ["threadq.type:Encode Video", "smtp"]);
}

#[test]
fn bad_limits_are_refused_by_name() {
    for (text, start, part) in [
        ("limits = 3", "limits (", "allowed: a table"),
        ("limits.x = 3", r#"limits."x" ("#, "allowed: a table"),
        ("[limits.x]", r#"limits."x" ("#, "has neither concurrency nor rate; allowed: at least one of them"),
        ("[limits.x]\nburst = 2\nconcurrency = 1", r#"limits."x" ("#, "has a burst, but no rate"),
        (
            "[limits.x]\nconcurrency = 0",
            r#"limits."x".concurrency ("#,
            "\"0\" is too small; allowed: a whole number from 1 to 100000",
        ),
        ("[limits.x]\nconcurrency = 100001", r#"limits."x".concurrency ("#, "is too large"),
        (
            "[limits.x]\nrate = 10",
            r#"limits."x".rate ("#,
            "\"10\" is not a rate; allowed: N/PERIOD such as 10/s, 100/m or 5/30s",
        ),
        ("[limits.x]\nrate = '1/31d'", r#"limits."x".rate ("#, "is not a rate"),
        ("[limits.x]\nrate = '1/s'\nburst = 0", r#"limits."x".burst ("#, "from 1 to 1000000"),
        (
            "[limits.x]\nrates = '1/s'",
            r#"limits."x" ("#,
            r#"the unknown key "rates"; allowed: concurrency, rate, burst"#,
        ),
        (
            "[limits.\"a b\"]\nrate = '1/s'",
            r#"limits."a b" ("#,
            "has no valid name; allowed: NAME or NAME:KEY",
        ),
        ("[limits.\"a:\"]\nrate = '1/s'", r#"limits."a:" ("#, "has no valid name"),
        (
            "[limits.\"a:1\"]\nrate = '1/s'\n[limits.b]\nrate = '1/s'",
            r#"limits."a:1" ("#,
            "gives a key numbers of its own, but there is no [limits.a]",
        ),
        ("[limits.\"threadq.x\"]\nrate = '1/s'", r#"limits."threadq.x" ("#, "not beginning with threadq."),
        ("[handlers.x]\nburst = 2", r#"handlers."x" ("#, "has a burst, but no rate"),
        ("[handlers.x]\nrate = '1'", r#"handlers."x".rate ("#, "is not a rate"),
        (
            "[handlers.x]\nlimited_by = 'a'",
            r#"handlers."x".limited_by ("#,
            "is a string; allowed: a list of different limits",
        ),
        (
            "[handlers.x]\nlimited_by = ['a', 1]",
            r#"handlers."x".limited_by ("#,
            "has the entry 1, which is no limit",
        ),
        (
            "[handlers.x]\nlimited_by = ['a', 'a']",
            r#"handlers."x".limited_by ("#,
            r#"has the entry "a" twice"#,
        ),
        (
            "[handlers.x]\nlimited_by = ['threadq.type:a']",
            r#"handlers."x".limited_by ("#,
            "which is no limit",
        ),
        (
            "[handlers.x]\nconcurrency = 1\nlimited_by = ['a', 'b', 'c', 'd']",
            r#"handlers."x" ("#,
            "has too many limits; allowed: up to 4 limits, that of its own numbers included",
        ),
    ] {
        let line = refused(load_file(text));
        assert!(line.starts_with(start) && line.contains(part), "{text}: {line}");
        assert!(line.contains("threadq.toml"), "{line}");
    }
}

#[test]
fn bad_handlers_are_refused_by_name() {
    let long = format!("handlers.{}.exec = ['x']", "n".repeat(101));
    for (text, start, part) in [
        ("[handlers.x]\nexec = ['a']\nhttp = 'http://h'", r#"handlers."x" ("#, "both exec and http"),
        ("[handlers.x]\nexec = ['a']\npull = true", r#"handlers."x" ("#, "has pull beside exec or http"),
        ("[handlers.x]\npull = 'yes'", r#"handlers."x".pull ("#, "allowed: true, false"),
        (
            "[handlers.x]\npull = true\nlimits = { cpu = '1s' }",
            r#"handlers."x" ("#,
            "limits only beside exec",
        ),
        (
            "[handlers.x]\nexec = ['a']\nprotocol = 'line'",
            r#"handlers."x".protocol ("#,
            "allowed: once, lines",
        ),
        ("[handlers.x]\nprotocol = 'lines'", r#"handlers."x" ("#, "protocol only beside exec"),
        (
            "[handlers.x]\nhttp = 'http://h'\nprotocol = 'once'",
            r#"handlers."x" ("#,
            "protocol only beside exec",
        ),
        ("[handlers.x]\nexec = ['a']\nidle = '5s'", r#"handlers."x" ("#, "only beside protocol = \"lines\""),
        (
            "[handlers.x]\nexec = ['a']\nprotocol = 'once'\nmax_jobs = 5",
            r#"handlers."x" ("#,
            "only beside protocol = \"lines\"",
        ),
        (
            "[handlers.x]\nexec = ['a']\nprotocol = 'lines'\nprocesses = 0",
            r#"handlers."x".processes ("#,
            "from 1 to 1000",
        ),
        (
            "[handlers.x]\nexec = ['a']\nprotocol = 'lines'\nmax_jobs = -1",
            r#"handlers."x".max_jobs ("#,
            "from 0 to 1000000000",
        ),
        (
            "[handlers.x]\nexec = ['a']\nprotocol = 'lines'\nidle = '0'",
            r#"handlers."x".idle ("#,
            "1ms to 365d",
        ),
        ("[handlers.x]\nexec = []", r#"handlers."x".exec ("#, "names no program"),
        ("[handlers.x]\nexec = ['']", r#"handlers."x".exec ("#, "names no program"),
        ("[handlers.x]\nexec = ['a', 1]", r#"handlers."x".exec ("#, "is not a string"),
        ("[handlers.x]\nexec = ['a', \"\\u0000\"]", r#"handlers."x".exec ("#, "NUL"),
        ("[handlers.x]\nexec = './a'", r#"handlers."x".exec ("#, "is a string; allowed: a list of strings"),
        ("[handlers.x]\nhttp = 'ftp://h'", r#"handlers."x".http ("#, "has an unknown scheme"),
        ("[handlers.x]\nhttp = 'http://h:99999/'", r#"handlers."x".http ("#, "has a port"),
        ("[handlers.x]\nhttp = ['http://h']", r#"handlers."x".http ("#, "is a list"),
        ("[handlers.x]\ntimeout = '0s'", r#"handlers."x".timeout ("#, "1ms to 24h"),
        ("[handlers.x]\ntimeout = '25h'", r#"handlers."x".timeout ("#, "is too large"),
        ("[handlers.x]\ntimeout = 5", r#"handlers."x".timeout ("#, "\"5\" has no unit"),
        ("[handlers.x]\nmax_attempts = 0", r#"handlers."x".max_attempts ("#, "from 1 to 100"),
        ("[handlers.x]\nmax_attempts = 101", r#"handlers."x".max_attempts ("#, "from 1 to 100"),
        (
            "[handlers.x]\nmax-attempts = 3",
            r#"handlers."x" ("#,
            r#"the unknown key "max-attempts"; allowed: exec,"#,
        ),
        ("[handlers.x]\nbackoff = '2s'", r#"handlers."x".backoff ("#, "is a string; allowed: a table"),
        ("[handlers.x]\nbackoff = { min = '2s' }", r#"handlers."x".backoff ("#, r#"unknown key "min""#),
        (
            "[handlers.x]\nbackoff = { base = '2s', cap = '1s' }",
            r#"handlers."x".backoff ("#,
            "the base 2s above the cap 1s",
        ),
        (
            "[handlers.x]\nbackoff = { base = '2h' }",
            r#"handlers."x".backoff ("#,
            "the base 2h above the cap 1h",
        ),
        ("[handlers.x]\nbackoff = { cap = '366d' }", r#"handlers."x".backoff.cap ("#, "0s to 365d"),
        ("[handlers.x]\nlimits = { cpu = '1s' }", r#"handlers."x" ("#, "limits, but no exec"),
        (
            "[handlers.x]\nlog = 'report'",
            r#"handlers."x" ("#,
            "has log, but no exec; allowed: log only beside",
        ),
        ("[handlers.x]\nexec = ['a']\nlog = 'all'", r#"handlers."x".log ("#, "allowed: report or stderr"),
        ("[handlers.x]\nsilence = '0s'", r#"handlers."x".silence ("#, "1ms to 24h"),
        (
            "[handlers.x]\nhttp = 'http://h'\nsilence = '1m'",
            r#"handlers."x" ("#,
            "has silence beside http or pull; allowed: silence for handlers that run",
        ),
        ("[handlers.x]\nexec = ['a']\nlimits = 3", r#"handlers."x".limits ("#, "allowed: a table"),
        ("[handlers.x]\nexec = ['a']\nlimits.ram = 3", r#"handlers."x".limits ("#, r#"unknown key "ram""#),
        ("[handlers.x]\nexec = ['a']\nlimits.memory = 3", r#"handlers."x".limits.memory ("#, "1MiB to"),
        (
            "[handlers.x]\nexec = ['a']\nlimits.cpu = '1500ms'",
            r#"handlers."x".limits.cpu ("#,
            "whole seconds",
        ),
        ("[handlers.x]\nexec = ['a']\nlimits.cpu = '100ms'", r#"handlers."x".limits.cpu ("#, "1s to 24h"),
        (
            "[handlers.x]\nexec = ['a']\nlimits.open_files = 3",
            r#"handlers."x".limits.open_files ("#,
            "from 4 to",
        ),
        (
            "[handlers.x]\nexec = ['a']\nlimits.niceness = 20",
            r#"handlers."x".limits.niceness ("#,
            "from 0 to 19",
        ),
        (
            "[handlers.x]\nexec = ['a']\nlimits.niceness = -1",
            r#"handlers."x".limits.niceness ("#,
            "from 0 to 19",
        ),
        ("handlers.x = 3", r#"handlers."x" ("#, "allowed: a table"),
        ("[handlers.\"\"]\nexec = ['a']", r#"handlers."" ("#, "no valid name"),
        ("[handlers.\"a\\nb\"]\nexec = ['a']", r#"handlers."a\nb" ("#, "no valid name"),
        (&long, "handlers.", "no valid name"),
    ] {
        let line = refused(load_file(text));
        assert!(line.starts_with(start) && line.contains(part), "{text}: {line}");
        assert!(line.contains("threadq.toml"), "{line}");
    }
}

#[test]
fn secrets_in_sight_of_others_are_warned_of_without_showing_them() {
    let folder = Folder::new();
    let warnings = |args: &[&str], env: &[(&str, &str)]| {
        let warnings = load(args, env).unwrap().warnings;
        assert!(!format!("{warnings:?}").contains("hunter2"), "{warnings:?}");
        warnings
    };
    let from_flag = warnings(&["--api-token", "hunter2", "--redis-url=redis://u:hunter2@h"], &[]);
    assert_eq!(from_flag.len(), 2);
    for part in ["api-token (flag --api-token)", "list of processes", "(THREADQ_API_TOKEN)", "api-token-file"]
    {
        assert!(from_flag[0].contains(part), "{from_flag:?}");
    }
    assert!(from_flag[1].starts_with("redis-url (flag --redis-url)"), "{from_flag:?}");
    let env = [("THREADQ_API_TOKEN", "hunter2"), ("REDIS_URL", "redis://:hunter2@h")];
    assert!(warnings(&["--redis-url", "redis://h:1/2"], &env).is_empty());

    let token = folder.file("token", "hunter2");
    let config = folder.file("threadq.toml", "redis-url = 'redis://:hunter2@h'");
    let harmless = folder.file("harmless.toml", "redis-url = 'redis://h'");
    let set_mode = |file: &str, mode| fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    let args = ["--api-token-file", &token, "--config", &config];
    for mode in [0o640, 0o604, 0o644] {
        set_mode(&token, mode);
        set_mode(&config, mode);
        let found = warnings(&args, &[]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|line| line.contains(&format!("{mode:04o}"))), "{found:?}");
    }
    set_mode(&token, 0o600);
    set_mode(&config, 0o400);
    assert!(warnings(&args, &[]).is_empty());
    set_mode(&harmless, 0o644);
    assert!(warnings(&["--config", &harmless], &[]).is_empty());
}

#[test]
fn a_configuration_that_is_printed_shows_no_secret() {
    let folder = Folder::new();
    let file = folder.file(
        "threadq.toml",
        "redis-url = 'redis://ann:hunter2@h'\napi-token = 'hunter2'\n[handlers.a]\nexec = ['a', 'hunter2']\n\
         [handlers.b]\nhttp = 'http://ann:hunter2@h/hunter2?key=hunter2'\n",
    );
    let config = load(&["--config", &file], &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn no_file_makes_the_reader_panic() {
    let good =
        "workers = 2\nqueues = 'a=1,b'\n[handlers.\"E V\"]\nexec = ['./a']\nbackoff = { base = '2s' }\n";
    let alphabet: Vec<char> = "[]{}=.,'\"\\\n #0sé\0\u{1b}".chars().collect();
    let folder = Folder::new();
    let mut random = fastrand::Rng::with_seed(31);
    for _ in 0..2_000 {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(0..text.len());
            match random.bool() {
                true => text[at] = alphabet[random.usize(0..alphabet.len())],
                false => text.truncate(at.max(1)),
            }
        }
        let file = folder.file("threadq.toml", &text.into_iter().collect::<String>());
        let result = load(&["--config", &file], &[]);
        if result.is_err() {
            refused(result);
        }
    }
}

fn schedules(text: &str) -> Result<Vec<crate::config::ScheduleEntry>, String> {
    super::file::parse(text, "test").map(|file| file.schedules).map_err(|error| error.to_string())
}

#[test]
fn schedules_are_read_with_the_job_as_json() {
    let text = r#"
        [[schedules]]
        name = "nightly"
        cron = "30 2 * * *"
        timezone = "Europe/Berlin"
        starts_at = 2026-12-01T00:00:00Z
        [schedules.job]
        type = "report"
        payload = { kind = "daily", list = [1, 2.5, true], at = 2026-12-01 }
        [[schedules]]
        name = "often"
        every = "15m"
        job = { type = "x" }
    "#;
    let [nightly, often] = &schedules(text).unwrap()[..] else { panic!() };
    assert_eq!(nightly.name, "nightly");
    assert_eq!(nightly.spec.starts_at.as_deref(), Some("2026-12-01T00:00:00Z"));
    let job: serde_json::Value = serde_json::from_str(&nightly.job).unwrap();
    let payload = serde_json::json!({"kind": "daily", "list": [1, 2.5, true], "at": "2026-12-01"});
    assert_eq!(job, serde_json::json!({"type": "report", "payload": payload}));
    assert_eq!(often.spec.every.as_deref(), Some("15m"));
}

#[test]
fn a_wrong_schedule_is_named_with_its_field() {
    let entry = |rest: &str| format!("[[schedules]]\nname = 'x'\n{rest}");
    for (text, expected) in [
        ("schedules = 5".to_owned(), "schedules (test): the value is a number"),
        ("[[schedules]]\ncron = '@daily'".to_owned(), "schedules (test): the entry has no name"),
        (
            "[[schedules]]\nname = 'preview'".to_owned(),
            "schedules.name (test): \"preview\" is no name of a schedule; allowed: 1 to 64",
        ),
        (entry("job = {}"), "schedules.\"x\".cron (test): the value is missing; allowed: a cron expression"),
        (entry("cron = '@daily'"), "schedules.\"x\" (test): the entry has no table as its job"),
        (entry("cron = '@daily'\njob = { payload = nan }"), "schedules.\"x\" (test): the entry has a number"),
        (
            entry("cron = '0 24 * * *'\njob = {}"),
            "schedules.\"x\".cron (test): \"0 24 * * *\" has the hour \"24\"; allowed: 0-23, with * , - /",
        ),
        (
            entry("every = '1h'\noverlap = 'queue'\njob = {}"),
            "schedules.\"x\".overlap (test): \"queue\" is none of the allowed words; allowed: skip, allow, wait, replace",
        ),
        (entry("evry = '1h'\njob = {}"), "schedules.\"x\" (test): the entry has the unknown key \"evry\""),
        (
            format!("{0}{0}", entry("every = '1h'\njob = {}\n")),
            "schedules (test): \"x\" is given twice; allowed: one entry for each name",
        ),
    ] {
        let error = schedules(&text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}
