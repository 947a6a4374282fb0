//! The rules of the crate's structure, checked in its sources. `deny.toml` says on which crates it may depend.

// What tests share is a test too.
use std::fs;
use std::path::{Path, PathBuf};

/// A source file without its comments and tests.
struct Source {
    /// From `src/` on.
    path: String,
    lines: Vec<(usize, String)>,
}

impl Source {
    /// The module directly below the crate that it belongs to.
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || place.ends_with('/') && self.path.starts_with(place))
    }

    /// The lines that name this crate in a path or a `use`.
    fn uses(&self, name: &str) -> Vec<String> {
        let path = format!("{name}::");
        let names = |line: &str| {
            line.match_indices(&path).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                // After a quotation mark it is a text, such as a log target.
                !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '"'))
            }) || line.trim_start().starts_with(&format!("use {name};"))
        };
        let lines = self.lines.iter().filter(|(_, line)| names(line));
        lines.map(|(number, line)| format!("src/{}:{number}: {}", self.path, line.trim())).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let is_test = |path: &Path| {
        path.with_extension("").iter().any(|part| part == "tests" || part == "testing" || part == "fuzzing")
    };
    let relative = |path: &Path| path.strip_prefix(&src).unwrap().to_owned();
    let files = files_below(&src, "rs").into_iter().filter(|path| !is_test(&relative(path)));
    files
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            // Tests stand at the end of a file.
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
            let lines = code.map(|(index, line)| (index + 1, line.to_owned())).collect();
            Source { path: file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(), lines }
        })
        .collect()
}

fn assert_none(offences: Vec<String>, rule: &str) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn every_dependency_has_its_place() {
    for (name, places) in [
        ("redis", &["queue/", "private_redis/socket.rs"][..]),
        ("r2d2", &["queue/"]),
        ("rustls", &["queue/tls.rs", "queue/connection.rs", "net/authorities.rs"]),
        ("scheduled_thread_pool", &["queue/"]),
        ("tiny_http", &["api/"]),
        ("httparse", &["gate/"]),
        ("ureq", &["handler/", "client/", "net/"]),
        ("ctrlc", &["cli/commands/serve.rs", "cli/commands/top.rs"]),
        ("simplelog", &["logging/mod.rs"]),
        ("toml", &["config/"]),
        ("lexopt", &["config/", "cli/"]),
        ("url", &["net/http_url.rs"]),
        ("nix", &["children/", "cli/commands/serve.rs"]),
        ("crossbeam_channel", &["engine/", "server/", "cli/commands/serve.rs"]),
    ] {
        let elsewhere = sources().into_iter().filter(|source| !source.is_in(places));
        let offences: Vec<String> = elsewhere.flat_map(|source| source.uses(name)).collect();
        assert_none(offences, &format!("{name} is used in {places:?} alone"));
        assert!(sources().iter().any(|source| !source.uses(name).is_empty()), "{name} is used nowhere");
    }
}

/// Each top-level module with the top-level modules that it may import. A module stands below those that it imports, so
/// that no circle is possible.
const MODULES: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("job", &[]),
    ("children", &[]),
    ("net", &[]),
    ("gate", &[]),
    ("logging", &["job"]),
    ("private_redis", &["children", "net"]),
    ("client", &["job", "net"]),
    ("handler", &["children", "job", "logging", "net"]),
    ("queue", &["job", "logging", "net"]),
    ("config", &["handler", "job", "logging", "net"]),
    ("engine", &["handler", "job", "logging", "queue"]),
    ("api", &["config", "engine", "gate", "handler", "job", "logging", "queue"]),
    ("server", &["api", "config", "engine", "gate", "handler", "job", "logging", "private_redis", "queue"]),
    (
        "cli",
        &[
            "children",
            "client",
            "config",
            "engine",
            "job",
            "logging",
            "net",
            "private_redis",
            "queue",
            "server",
        ],
    ),
    ("main", &["cli"]),
];

/// Modules that every other module may import.
const COMMON: &[&str] = &["sync"];

/// Modules that only some files of `cli/` may import: most commands ask the HTTP API.
const FOR_SERVE_AND_DOCTOR: &[&str] = &["children", "engine", "private_redis", "queue", "server"];

#[test]
fn no_module_imports_upwards() {
    let mut offences = Vec::new();
    // lib.rs declares the modules.
    for source in sources().into_iter().filter(|source| source.path != "lib.rs") {
        let module = source.module();
        let position = MODULES.iter().position(|(name, _)| *name == module);
        let position = position.unwrap_or_else(|| panic!("{} is in no module of MODULES", source.path));
        let (_, allowed) = MODULES[position];
        let below: Vec<&str> = MODULES[..position].iter().map(|(name, _)| *name).collect();
        assert!(allowed.iter().all(|name| below.contains(name)), "{module} imports upwards: {allowed:?}");
        let is_restricted = module == "cli"
            && !source.is_in(&["cli/commands/serve.rs", "cli/commands/doctor.rs", "cli/systemd.rs"]);
        for (number, line) in &source.lines {
            for (at, path) in line.match_indices("crate::") {
                let name: String = line[at + path.len()..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let is_wrong =
                    name != module && !COMMON.contains(&name.as_str()) && !allowed.contains(&name.as_str())
                        || is_restricted && FOR_SERVE_AND_DOCTOR.contains(&name.as_str());
                if is_wrong {
                    offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert_none(offences, "a module imports only the modules that MODULES allows");
}

/// The threads of the engine do not know each other: they meet in what they share.
#[test]
fn no_thread_of_the_engine_imports_another_one() {
    const THREADS: &[&str] = &[
        "fetcher",
        "worker",
        "watchdog",
        "committer",
        "heartbeat",
        "reaper",
        "reporter",
        "scheduler",
        "janitor",
    ];
    let mut offences = Vec::new();
    for thread in THREADS {
        let path = format!("engine/{thread}.rs");
        let source = sources().into_iter().find(|source| source.path == path).expect(&path);
        for other in THREADS.iter().filter(|other| *other != thread) {
            for place in ["super", "crate::engine"] {
                offences.extend(source.uses(&format!("{place}::{other}")));
            }
        }
    }
    assert_none(offences, "a thread imports no other thread");
}

#[test]
fn the_names_of_keys_stand_in_one_place() {
    // Those that cannot mean anything else.
    const KEYS: &[&str] = &[
        "work_queue",
        "in_progress_queue",
        "dlq_queue",
        "idempotency:",
        "unique:",
        "job:",
        "server:",
        "cancels:",
        "index:",
        "history:",
        "activity:",
        "last_id",
        ":suspects",
    ];
    let mut offences = Vec::new();
    for source in sources().into_iter().filter(|source| source.path != "queue/keys.rs") {
        for (number, line) in &source.lines {
            if KEYS.iter().any(|key| line.contains(&format!("\"{key}"))) {
                offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    for file in files_below(&root().join("src/queue/lua"), "lua") {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let code = line.split("--").next().unwrap();
            if KEYS.iter().any(|key| code.contains(&format!("'{key}")) || code.contains(&format!("\"{key}")))
            {
                offences.push(format!("{}: {line}", file.display()));
            }
        }
    }
    assert_none(offences, "key names are written in src/queue/keys.rs and nowhere else");
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut in_dependencies = false;
    let mut explained = false;
    let mut offences = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if line.trim().is_empty() {
            explained = false;
        } else if in_dependencies && !explained {
            offences.push(line.to_owned());
        }
    }
    assert_none(offences, "a comment line stands in front of each dependency, or of a group of them");
}
