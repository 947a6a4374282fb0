//! Files, headings, commands, flags, settings, scripts and benches that README.md and docs/ name must exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::server::{finish, program};
use crate::common::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents for users and developers, each with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"]
        .map(|path| root().join(path))
        .to_vec();
    for entry in fs::read_dir(root().join("docs")).expect("docs/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "md") {
            paths.push(path);
        }
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The targets of all links of a document: `[text](target)` and `<target>`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

/// The anchor of a heading: lower case, words joined by hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Every piece of code of a document: the lines of its code blocks, and the texts between backticks.
fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_in_block = !is_in_block;
        } else if is_in_block || line.starts_with("    ") {
            found.push(line.trim().trim_start_matches("$ ").to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

fn help(command: &str) -> Finished {
    let dir = TempDir::new();
    let mut process = program(&dir);
    process.arg("help");
    if !command.is_empty() {
        process.arg(command);
    }
    finish(process)
}

/// The flags in a text.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

fn assert_none(offences: Vec<String>, rule: &str) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut offences = Vec::new();
    let mut links_seen = 0;
    for (path, text) in documents() {
        for link in links(&text).filter(|link| !link.contains("://")) {
            links_seen += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().expect("a folder").join(file),
            };
            let is_there = match heading {
                "" => target.exists(),
                heading => fs::read_to_string(&target).is_ok_and(|text| headings(&text).contains(heading)),
            };
            if !is_there {
                offences.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_none(offences, "links that lead nowhere");
    assert!(links_seen > 20, "{links_seen} links");
}

#[test]
fn every_command_and_flag_of_the_documents_exists() {
    let mut offences = Vec::new();
    let mut commands_seen = BTreeSet::new();
    for (path, text) in documents() {
        for piece in code(&text) {
            let Some(at) = piece.find("threadq ").filter(|at| piece[..*at].ends_with('/') || *at == 0) else {
                continue;
            };
            // The rest is another program, or a comment.
            let line = piece[at..].split([';', '|', '#', '&']).next().expect("a part");
            let Some(command) = line.split_whitespace().nth(1) else { continue };
            if !command.chars().all(|c| c.is_ascii_lowercase()) || matches!(command, "listening") {
                continue;
            }
            let help = help(command);
            if help.code != Some(0) {
                offences.push(format!("{}: no command: {line}", path.display()));
                continue;
            }
            commands_seen.insert(command.to_owned());
            let known = flags(&help.stdout);
            let unknown = flags(line).into_iter().filter(|flag| !known.contains(flag));
            offences.extend(unknown.map(|flag| format!("{}: no flag {flag}: {line}", path.display())));
        }
    }
    assert_none(offences, "commands and flags that do not exist");
    assert!(commands_seen.len() > 10, "{commands_seen:?}");
}

#[test]
fn every_setting_script_and_bench_of_the_documents_exists() {
    /// Words with a hyphen that are neither a setting nor a flag.
    const OTHERS: &[&str] = &[
        "redis-server",
        "redis-cli",
        "valkey-server",
        "redis-url",
        "systemd-run",
        "systemd-analyze",
        "docker-compose",
        "cargo-deny",
        "rust-version",
        "threadq-data",
        // Threads.
        "api-stop",
        "api-waits",
        "asked-for",
        "redis-watch",
    ];
    let settings: BTreeSet<String> = ["serve", "doctor", "enqueue"]
        .iter()
        .flat_map(|command| flags(&help(command).stdout))
        .map(|flag| flag.trim_start_matches('-').to_owned())
        .collect();
    let mut offences = Vec::new();
    let mut settings_seen = BTreeSet::new();
    for (path, text) in documents() {
        let mut wrong = |what: &str| offences.push(format!("{}: {what}", path.display()));
        for piece in code(&text) {
            let is_setting = |c: char| c.is_ascii_lowercase() || c == '-';
            if piece.contains('-') && piece.chars().all(is_setting) && !piece.starts_with('-') {
                let is_known = settings.contains(&piece) || OTHERS.contains(&piece.as_str());
                if !is_known && !piece.contains("--") {
                    wrong(&format!("no setting {piece}"));
                }
                settings_seen.insert(piece.clone());
            }
            let words: Vec<&str> = piece.split_whitespace().collect();
            for word in words.iter().filter(|word| word.starts_with("script/") || word.starts_with(".ci/")) {
                if !root().join(word.trim_end_matches(['.', ','])).exists() {
                    wrong(&format!("no script {word}"));
                }
            }
            for pair in words.windows(2).filter(|pair| pair[0] == "--bench" && pair[1] != "..") {
                let places = [format!("bench/{}.rs", pair[1]), format!("bench/{}/main.rs", pair[1])];
                if !places.iter().any(|place| root().join(place).exists()) {
                    wrong(&format!("no bench {}", pair[1]));
                }
            }
            for pair in words.windows(2).filter(|pair| pair[0] == "--test") {
                let places = [format!("tests/{}.rs", pair[1]), format!("tests/{}/main.rs", pair[1])];
                if !places.iter().any(|place| root().join(place).exists()) {
                    wrong(&format!("no test {}", pair[1]));
                }
            }
            let is_path = |word: &str| {
                ["src/", "tests/", "examples/", "docs/", "fuzz/"]
                    .iter()
                    .any(|folder| word.starts_with(folder))
            };
            for word in words.iter().filter(|word| is_path(word)) {
                if !word.contains(['*', '<', '{', '.']) && !root().join(word).exists()
                    || word.ends_with(".rs") && !word.contains(['*', '<', '{']) && !root().join(word).exists()
                {
                    wrong(&format!("no file {word}"));
                }
            }
        }
    }
    assert_none(offences, "settings, scripts, benches and files that do not exist");
    assert!(settings_seen.len() > 10, "{settings_seen:?}");
}

/// All sources as one text, without the breaks of their long string literals.
fn sources() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text.push_str(&fs::read_to_string(path).expect("a source"));
            }
        }
    }
    let mut joined = String::new();
    for (number, part) in text.split("\\\n").enumerate() {
        joined.push_str(if number == 0 { part } else { part.trim_start() });
    }
    joined
}

#[test]
fn every_log_line_of_the_documents_is_logged() {
    let operations = fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    let table = operations.split_once("| line | what to do |").expect("the table of log lines").1;
    let sources = sources();
    let mut lines_seen = 0;
    let mut offences = Vec::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cell = row.split('|').nth(1).expect("a cell");
        for line in cell.split('`').skip(1).step_by(2) {
            lines_seen += 1;
            // Words in capitals are placeholders for numbers.
            let is_placeholder = |word: &&str| word.contains("..") || matches!(*word, "N" | "M");
            let words: Vec<&str> = line.split(' ').collect();
            for part in words.split(|word| is_placeholder(word)).filter(|part| part.len() > 1) {
                let part = part.join(" ");
                // The reason of an error that is logged once follows a colon.
                let part = part.trim_end_matches(':');
                if !sources.contains(part) {
                    offences.push(format!("{line}: {part:?} stands nowhere in src/"));
                }
            }
        }
    }
    assert_none(offences, "log lines that do not exist");
    assert!(lines_seen > 25, "{lines_seen} lines");
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    assert!(readme.lines().count() <= 150, "{} lines", readme.lines().count());
}
