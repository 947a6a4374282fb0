//! The rules of the crate's structure, checked in its sources. `deny.toml` says on which crates it may depend.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A source file without its comments and tests.
struct Source {
    /// The path below `src/`.
    path: String,
    lines: Vec<(usize, String)>,
}

impl Source {
    /// The top-level module of the file.
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
                // After a quotation mark the name is part of a text, for example of a log target.
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
            // Tests are at the end of a file.
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
        (
            "rustls",
            &[
                "queue/tls.rs",
                "queue/connection.rs",
                "net/authorities.rs",
                "net/certificates.rs",
                "net/pem.rs",
            ],
        ),
        ("scheduled_thread_pool", &["queue/"]),
        ("tiny_http", &["api/"]),
        ("httparse", &["gate/"]),
        ("ureq", &["handler/", "client/", "net/"]),
        ("ctrlc", &["cli/commands/serve.rs", "cli/commands/top.rs"]),
        ("simplelog", &["logging/mod.rs"]),
        ("toml", &["config/"]),
        ("lexopt", &["config/", "cli/"]),
        ("url", &["net/http_url.rs"]),
        ("percent_encoding", &["net/"]),
        ("time", &["job/time.rs", "handler/http.rs", "schedule/cron.rs"]),
        ("croner", &["schedule/cron.rs"]),
        ("tz", &["schedule/zone.rs"]),
        ("nix", &["children/", "cli/commands/serve.rs"]),
        ("crossbeam_channel", &["engine/", "server/", "cli/commands/serve.rs"]),
    ] {
        let elsewhere = sources().into_iter().filter(|source| !source.is_in(places));
        let offences: Vec<String> = elsewhere.flat_map(|source| source.uses(name)).collect();
        assert_none(offences, &format!("{name} is used in {places:?} alone"));
        assert!(sources().iter().any(|source| !source.uses(name).is_empty()), "{name} is used nowhere");
    }
}

/// Each top-level module, and the top-level modules that it may import. Each module is listed after the modules that it
/// imports, so that no import cycle is possible.
const MODULES: &[(&str, &[&str])] = &[
    ("packed", &[]),
    ("sorting", &[]),
    ("sync", &[]),
    ("job", &[]),
    ("schedule", &["job"]),
    ("children", &[]),
    ("net", &[]),
    ("gate", &[]),
    ("logging", &["job"]),
    ("private_redis", &["children", "net"]),
    ("client", &["job", "net", "schedule"]),
    ("handler", &["children", "job", "logging", "net"]),
    ("queue", &["job", "logging", "net"]),
    ("config", &["handler", "job", "logging", "net", "schedule"]),
    ("engine", &["handler", "job", "logging", "queue", "schedule"]),
    ("api", &["config", "engine", "gate", "handler", "job", "logging", "net", "queue", "schedule"]),
    (
        "server",
        &["api", "client", "config", "engine", "gate", "handler", "job", "logging", "private_redis", "queue"],
    ),
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
            "schedule",
            "server",
        ],
    ),
    ("main", &["cli"]),
];

/// Modules that every other module may import.
const COMMON: &[&str] = &["packed", "sorting", "sync"];

/// Modules that only some files of `cli/` may import: most commands use the HTTP API.
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

/// The threads of the engine do not import each other: they communicate through shared data.
#[test]
fn no_thread_of_the_engine_imports_another_one() {
    const THREADS: &[&str] = &[
        "fetcher",
        "puller",
        "worker",
        "watchdog",
        "committer",
        "heartbeat",
        "reaper",
        "figures",
        "reporter",
        "scheduler",
        "janitor",
    ];
    let sources = sources();
    let has_run = |source: &&Source| source.lines.iter().any(|(_, line)| line.contains("fn run("));
    let runs: BTreeSet<&str> = sources
        .iter()
        .filter(has_run)
        .filter_map(|source| source.path.strip_prefix("engine/")?.strip_suffix(".rs"))
        .collect();
    assert_eq!(
        runs,
        THREADS.iter().copied().collect(),
        "THREADS names every file of the engine with a method run"
    );
    let starter = sources.iter().find(|source| source.path == "server/engine.rs").unwrap();
    let spawns = || starter.lines.iter().filter(|(_, line)| line.contains("spawn(\""));
    assert!(spawns().count() >= 5, "server/engine.rs starts the threads");
    let others = spawns().filter(|(_, line)| !line.contains(".run())"));
    let others = others.map(|(number, line)| format!("src/{}:{number}: {}", starter.path, line.trim()));
    assert_none(others.collect(), "a thread of the engine runs the method run of its file");

    let mut offences = Vec::new();
    for thread in THREADS {
        let path = format!("engine/{thread}.rs");
        let source = sources.iter().find(|source| source.path == path).expect(&path);
        for other in THREADS.iter().filter(|other| *other != thread) {
            for place in ["super", "crate::engine"] {
                offences.extend(source.uses(&format!("{place}::{other}")));
            }
        }
    }
    assert_none(offences, "a thread imports no other thread");
}

/// The module of a file, as a path below the crate: `queue/mod.rs` is `queue`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// Follows the imports from `module`. Returns the first cycle.
fn find_circle(
    module: &[String],
    imports: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
    way: &mut Vec<Vec<String>>,
    done: &mut BTreeSet<Vec<String>>,
) -> Option<String> {
    if let Some(at) = way.iter().position(|passed| passed == module) {
        let names: Vec<String> = way[at..].iter().map(|module| module.join("::")).collect();
        return Some(names.join(" -> "));
    }
    if done.contains(module) {
        return None;
    }
    way.push(module.to_vec());
    let circle = imports[module].iter().find_map(|imported| find_circle(imported, imports, way, done));
    way.pop();
    done.insert(module.to_vec());
    circle
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    // lib.rs declares the modules.
    let sources: Vec<Source> = sources().into_iter().filter(|source| source.path != "lib.rs").collect();
    let modules: BTreeSet<Vec<String>> = sources.iter().map(|source| module_of(&source.path)).collect();
    let mut imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for source in &sources {
        let module = module_of(&source.path);
        let imported = imports.entry(module.clone()).or_default();
        for (_, line) in &source.lines {
            for (prefix, base) in
                [("crate::", &[][..]), ("super::", &module[..module.len() - 1]), ("self::", &module[..])]
            {
                for (at, _) in line.match_indices(prefix) {
                    let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | ':');
                    if line[..at].chars().next_back().is_some_and(|c| is_word(&c)) {
                        continue;
                    }
                    let rest: String = line[at + prefix.len()..].chars().take_while(is_word).collect();
                    let rest = rest.split("::").filter(|part| !part.is_empty()).map(str::to_owned);
                    let path: Vec<String> = base.iter().cloned().chain(rest).collect();
                    // The longest part of the path that is a file.
                    let found = (1..=path.len()).rev().find(|length| modules.contains(&path[..*length]));
                    imported.extend(found.map(|length| path[..length].to_vec()));
                }
            }
        }
        imported.remove(&module);
    }
    let mut done = BTreeSet::new();
    let circle = modules.iter().find_map(|module| find_circle(module, &imports, &mut Vec::new(), &mut done));
    assert_eq!(circle, None, "a circle of imports");
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 300, "the imports were read");
}

#[test]
fn the_names_of_keys_stand_in_one_place() {
    // Only words that are unambiguous.
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
        "type_index:",
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
