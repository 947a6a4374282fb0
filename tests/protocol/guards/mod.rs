//! Mutation tests of the Lua scripts: for every mutant of a script (see `lua.rs`) some protocol test must fail.
//!
//! A run of the tests with the name of a mutant in `THREADQ_MUTANT` runs with that mutant: `lua_proxy.rs` changes the
//! script on its way to Redis, so that no build is needed. `every_guard_is_needed` runs the tests once for each mutant
//! and fails with the mutants that no test notices. `exceptions.rs` names the mutants that no test has to notice.
//!
//! `cargo test --test protocol -- --ignored --nocapture every_guard_is_needed`. With `THREADQ_GUARDS=settle:` it runs
//! only the mutants whose name contains `settle:`. A stopped run can be continued: see [`Noticed`].
//!
//! For a change that `lua.rs` does not make, such as another bound or another order, `THREADQ_MUTANT` may be the name of a
//! file of Lua, a text in the file, and the text in its place, separated by tabs.

mod exceptions;
mod lua;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use threadq::internals::queue::{files_of_script, lua_files, script_text};

use crate::fixture::Place;
use exceptions::EXCEPTIONS;

/// A file of `src/queue/lua`.
struct Source {
    /// Its file name without `.lua`.
    name: &'static str,
    text: &'static str,
}

/// All files of the program.
static SOURCES: LazyLock<Vec<Source>> =
    LazyLock::new(|| lua_files().map(|(name, text)| Source { name, text: text.leak() }).collect());

/// A replacement of one text in a script.
#[derive(Clone)]
pub struct Change {
    source: &'static Source,
    place: Range<usize>,
    replacement: String,
}

impl Change {
    /// Panics unless the script has this text exactly once.
    pub fn new(script: &str, text: &str, replacement: &str) -> Change {
        let source = SOURCES.iter().find(|source| source.name == script);
        let source = source.unwrap_or_else(|| panic!("no script {script}"));
        let found: Vec<_> = source.text.match_indices(text).collect();
        assert_eq!(found.len(), 1, "{script}: {text:?}");
        let start = found[0].0;
        Change { source, place: start..start + text.len(), replacement: replacement.to_owned() }
    }

    /// The whole text of the script with this change.
    fn applied(&self) -> String {
        let (source, Range { start, end }) = (&self.source.text, &self.place);
        source[..*start].to_owned() + &self.replacement + &source[*end..]
    }
}

/// A file of Lua with these changes. If two changes overlap, only the one that begins later is made.
fn changed<'a>(file: &str, text: &str, changes: impl Iterator<Item = &'a Change>) -> String {
    let mut edits: Vec<&Change> = changes.filter(|change| change.source.name == file).collect();
    edits.sort_by_key(|change| std::cmp::Reverse(change.place.start));
    let mut changed = text.to_owned();
    let mut unchanged_until = text.len();
    for Change { place, replacement, .. } in edits {
        if place.end <= unchanged_until {
            unchanged_until = place.start;
            changed.replace_range(place.clone(), replacement);
        }
    }
    changed
}

/// A script with one change that the reader of Lua has made.
pub struct Mutant {
    change: Change,
    /// The change in words.
    words: String,
    /// The line of the script in which the change begins, from 1.
    number: usize,
    column: usize,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.change.source.name, self.number, self.column, self.words)
    }
}

impl Mutant {
    /// Every mutant of every script.
    pub fn all() -> impl Iterator<Item = &'static Mutant> {
        static ALL: LazyLock<Vec<Mutant>> = LazyLock::new(|| SOURCES.iter().flat_map(mutants_of).collect());
        ALL.iter()
    }

    /// The mutants whose name contains the value of `THREADQ_GUARDS`.
    pub fn chosen() -> impl Iterator<Item = &'static Mutant> {
        let part = std::env::var("THREADQ_GUARDS").unwrap_or_default();
        Mutant::all().filter(move |mutant| mutant.to_string().contains(&part))
    }

    pub fn change(&self) -> Change {
        self.change.clone()
    }

    fn line(&self) -> &str {
        self.change.source.text.lines().nth(self.number - 1).unwrap_or_default().trim()
    }

    /// A key that is equal for the same mutant of the same script.
    fn hash(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.change.applied().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

fn mutants_of(source: &'static Source) -> Vec<Mutant> {
    let mutant = |edit: lua::Edit| {
        let before = &source.text[..edit.place.start];
        let number = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        let change = Change { source, place: edit.place, replacement: edit.replacement };
        Mutant { change, words: edit.change, number, column }
    };
    lua::read(source.text).edits.into_iter().map(mutant).collect()
}

/// A script as the queue loads it and as the tests run it.
pub struct OnTheWire {
    /// The script's own file.
    pub name: &'static str,
    /// This file, and the files in front of it.
    pub files: Vec<&'static str>,
    pub run: String,
}

/// The change of this run, if any.
static MUTANT: LazyLock<Option<Change>> = LazyLock::new(|| {
    let name = std::env::var("THREADQ_MUTANT").ok()?;
    if let [script, text, replacement] = name.split('\t').collect::<Vec<_>>()[..] {
        return Some(Change::new(script, text, replacement));
    }
    let mutant = Mutant::all().find(|mutant| mutant.to_string() == name);
    Some(mutant.unwrap_or_else(|| panic!("no mutant {name}")).change())
});

/// Applies these changes and the mutant of this run, and adds the check of numbers.
pub fn on_the_wire(loaded: &str, changes: &[Change]) -> OnTheWire {
    let name = loaded.lines().nth(1).and_then(|line| line.strip_prefix("-- ")).expect("the name of a script");
    let namespace = loaded.split_once("'{").and_then(|(_, rest)| rest.split_once('}')).expect("a key").0;
    let in_braces = |namespace: &str| format!("{{{namespace}}}");
    let here = |text: &str| text.replace(&in_braces(ANY_NAMESPACE), &in_braces(namespace));
    let (built, run) = texts_of(name, changes);
    assert_eq!(loaded, here(&built), "{name} is not as it was built in");
    let files: Vec<&'static str> = files_of_script(name).collect();
    let name = files.last().expect("a script of src/queue/lua");
    OnTheWire { name, files, run: crate::lua_proxy::with_checked_numbers(&here(&run)) }
}

/// Stands for the namespace of each test.
const ANY_NAMESPACE: &str = "ANY-NAMESPACE";

/// A script as it was built in, and with these changes. Every test needs all scripts, so they are made once.
fn texts_of(name: &str, changes: &[Change]) -> (Arc<str>, Arc<str>) {
    type Texts = HashMap<String, (Arc<str>, Arc<str>)>;
    static MADE: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);
    let key: String = changes
        .iter()
        .map(|Change { source, place, replacement }| format!("{} {place:?} {replacement}\n", source.name))
        .chain([name.to_owned()])
        .collect();
    if let Some(texts) = MADE.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return texts.clone();
    }
    let built = script_text(name, ANY_NAMESPACE, |_, text| text);
    let run = script_text(name, ANY_NAMESPACE, |file, text| {
        changed(file, &text, changes.iter().chain(MUTANT.as_ref()))
    });
    let texts: (Arc<str>, Arc<str>) = (built.into(), run.into());
    MADE.lock().unwrap_or_else(PoisonError::into_inner).insert(key, texts.clone());
    texts
}

/// A mutant, or several alike, that no test has to notice.
struct Exception {
    script: &'static str,
    /// A part of the line in which the change begins.
    line: &'static str,
    /// The change in words; empty for every change that begins in the line.
    change: &'static str,
    why: &'static str,
}

impl Exception {
    fn is_for(&self, mutant: &Mutant) -> bool {
        self.script == mutant.change.source.name
            && mutant.line().contains(self.line)
            && (self.change.is_empty() || self.change == mutant.words)
    }
}

#[test]
fn every_file_of_lua_belongs_to_the_program() {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/queue/lua")).unwrap();
    let names: BTreeSet<_> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, SOURCES.iter().map(|source| format!("{}.lua", source.name)).collect());
}

#[test]
fn every_condition_of_a_script_has_mutants() {
    for source in SOURCES.iter() {
        let script = lua::read(source.text);
        assert_eq!(script.conditions.len(), lua::count_conditions(source.text), "{}", source.name);
        for condition in script.conditions {
            let of_it = script.edits.iter().filter(|edit| edit.place == condition);
            assert_eq!(of_it.count(), 2, "{}: {}", source.name, &source.text[condition]);
        }
    }
    assert!(Mutant::all().count() > 500);
}

#[test]
fn every_mutant_is_lua_and_has_a_name_of_its_own() {
    let place = Place::new();
    let mut names = BTreeSet::new();
    for mutant in Mutant::all() {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(format!("#!lua\n{}", mutant.change.applied()));
        place.try_run(&load).unwrap_or_else(|e| panic!("{mutant}: {e}"));
        assert!(names.insert(mutant.to_string()), "{mutant} stands for two mutants");
    }
}

#[test]
fn every_exception_is_for_a_mutant_and_has_a_reason() {
    for exception in EXCEPTIONS {
        let Exception { script, line, change, why } = exception;
        assert!(Mutant::all().any(|mutant| exception.is_for(mutant)), "{script}: {line:?}, {change:?}");
        assert!(!why.is_empty(), "{script}: {line:?}");
    }
}

#[test]
fn changes_are_made_in_the_script_that_they_name() {
    let source = &SOURCES[0];
    let (first, rest) = source.text.split_at(10);
    let changes = [Change::new(source.name, first, "A"), Change::new(source.name, rest, "B")];
    assert_eq!(changed(source.name, source.text, changes.iter()), "AB");
    assert_eq!(changed("another", "a file", changes.iter()), "a file");
}

/// The time limit for the tests of one mutant: it ends a mutant with an endless loop.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs these tests in a new process and ends it at the first failure. Returns the failed test, if any.
fn first_failure(tests: &BTreeSet<String>, environment: &[(&str, &str)]) -> Option<String> {
    let folder = crate::common::TempDir::new();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .args(tests)
        .envs(environment.iter().copied())
        .env("TMPDIR", folder.path())
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let end = Instant::now() + LIMIT;
    let failure = loop {
        match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with("test result: ok") => break None,
            Ok(line) => {
                let failed = line.strip_prefix("test ").and_then(|test| test.strip_suffix(" ... FAILED"));
                if let Some(test) = failed {
                    break Some(test.to_owned());
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => break Some("no end".to_owned()),
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the tests end without a result"),
        }
    };
    // End its redis-server too, which a mutant may keep busy for ever.
    let _ = kill_process_group(Pid::from_child(&process), Signal::KILL);
    let _ = process.wait();
    failure
}

/// The tests that call each script, as a run of all tests without a mutant shows. The random test and the explorer are
/// left out: each mutant needs a test that shows the purpose of the condition. The next run of this program reuses the
/// result.
fn tests_by_script() -> BTreeMap<String, BTreeSet<String>> {
    let program = std::env::current_exe().unwrap();
    let calls = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("calls-of-tests");
    let modified = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    if modified(&calls) < modified(&program) {
        let recorded = crate::common::TempDir::new();
        let run = Command::new(&program)
            .args(["--skip", "random", "--skip", "explorer", "--skip", "guards", "--test-threads", "2"])
            .env("THREADQ_RECORD_CALLS", recorded.join("calls"))
            .output()
            .unwrap();
        assert!(run.status.success(), "without a mutant: {}", String::from_utf8_lossy(&run.stdout));
        std::fs::write(&calls, recorded.read("calls")).unwrap();
    }
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(calls).unwrap().lines() {
        let (script, test) = line.split_once(' ').unwrap();
        tests.entry(script.to_owned()).or_default().insert(test.to_owned());
    }
    tests
}

/// The mutants that tests have noticed, in a file in the target folder, so that a run can be stopped and continued. A
/// mutant of a changed script runs again. After a change of the tests, delete the file to run all mutants again.
struct Noticed {
    path: PathBuf,
    hashes: BTreeSet<String>,
    /// By script: the tests that have noticed a mutant. These tests run first, which saves most of the time.
    tests: BTreeMap<String, BTreeSet<String>>,
}

impl Noticed {
    fn read() -> Noticed {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("noticed-mutants");
        let mut noticed = Noticed { path, hashes: BTreeSet::new(), tests: BTreeMap::new() };
        let text = std::fs::read_to_string(&noticed.path).unwrap_or_default();
        for line in text.lines() {
            if let [hash, test, mutant] = line.split('\t').collect::<Vec<_>>()[..] {
                let script = mutant.split(':').next().unwrap_or_default();
                noticed.enter(hash.to_owned(), test, script);
            }
        }
        noticed
    }

    fn enter(&mut self, hash: String, test: &str, script: &str) {
        self.hashes.insert(hash);
        self.tests.entry(script.to_owned()).or_default().insert(test.to_owned());
    }

    fn contains(&self, mutant: &Mutant) -> bool {
        self.hashes.contains(&mutant.hash())
    }

    fn add(&mut self, mutant: &Mutant, test: &str) {
        let mut file = std::fs::File::options().create(true).append(true).open(&self.path).unwrap();
        writeln!(file, "{}\t{test}\t{mutant}", mutant.hash()).unwrap();
        self.enter(mutant.hash(), test, mutant.change.source.name);
    }

    /// The tests of a script in groups that run one after the other: first the tests that have noticed a mutant before;
    /// last the tests of long lists, which are slow.
    fn in_groups(&self, script: &str, tests: &BTreeSet<String>) -> [BTreeSet<String>; 3] {
        let known = self.tests.get(script);
        let mut groups = [const { BTreeSet::new() }; 3];
        for test in tests {
            let group = match known.is_some_and(|known| known.contains(test)) {
                true => 0,
                false => 1 + usize::from(test.starts_with("long_lists")),
            };
            groups[group].insert(test.clone());
        }
        groups
    }
}

/// The first of these tests that notices a mutant, if any.
fn noticing_test(mutant: &str, tests: &BTreeSet<String>) -> Option<String> {
    let environment = [("THREADQ_MUTANT", mutant)];
    let mut rest = tests.clone();
    while !rest.is_empty() {
        let test = first_failure(&rest, &environment)?;
        // A test may also fail because the machine is busy: then it passes when it runs alone.
        let alone = BTreeSet::from([test.clone()]);
        if !tests.contains(&test) || first_failure(&alone, &environment).is_some() {
            return Some(test);
        }
        rest.remove(&test);
    }
    None
}

#[test]
#[ignore = "runs the tests once for each mutant: about an hour"]
fn every_guard_is_needed() {
    let tests = tests_by_script();
    let mut noticed = Noticed::read();
    let mut survivors = Vec::new();
    for mutant in Mutant::chosen() {
        if noticed.contains(mutant) || EXCEPTIONS.iter().any(|exception| exception.is_for(mutant)) {
            continue;
        }
        let begin = Instant::now();
        let name = mutant.to_string();
        let script = mutant.change.source.name;
        let groups = noticed.in_groups(script, tests.get(script).unwrap_or(&BTreeSet::new()));
        let test = groups.iter().find_map(|tests| noticing_test(&name, tests));
        let seconds = begin.elapsed().as_secs_f64();
        println!("{seconds:>5.1} s  {name:<100} {}", test.as_deref().unwrap_or("NOT NOTICED"));
        match test {
            Some(test) => noticed.add(mutant, &test),
            None => survivors.push(name),
        }
    }
    assert!(survivors.is_empty(), "no test notices these mutants: {survivors:#?}");
}
