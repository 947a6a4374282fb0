//! The command-line flags of a bench.

use std::env::args;
use std::str::FromStr;

/// Prints the help for `--help`, and refuses flags that are not in it. Exits 0 without any flag: `cargo test` runs a
/// bench so, and only tests that it builds.
pub fn check(help: &str) {
    let words: Vec<String> = args().skip(1).collect();
    if words.is_empty() {
        println!("this is a bench: run it with cargo bench");
        std::process::exit(0);
    }
    if is_set("help") {
        print!("{help}");
        std::process::exit(0);
    }
    for word in words.iter().filter(|word| word.starts_with("--") && *word != "--bench") {
        if !help.split_whitespace().any(|known| known == word) {
            eprintln!("unknown flag {word}; --help lists the flags");
            std::process::exit(2);
        }
    }
}

/// Whether `--name` is on the command line.
pub fn is_set(name: &str) -> bool {
    args().any(|word| word.strip_prefix("--") == Some(name))
}

/// The value of `--name VALUE`.
pub fn flag<T: FromStr>(name: &str, default: T) -> T {
    match args().skip_while(|word| word.strip_prefix("--") != Some(name)).nth(1) {
        Some(text) => parse(name, &text),
        None => default,
    }
}

/// The values of `--name VALUE,VALUE,..`.
pub fn list<T: FromStr + Clone>(name: &str, default: &[T]) -> Vec<T> {
    match flag(name, String::new()).as_str() {
        "" => default.to_vec(),
        text => text.split(',').map(|value| parse(name, value)).collect(),
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> T {
    text.parse().unwrap_or_else(|_| {
        eprintln!("--{name}: invalid value {text:?}");
        std::process::exit(2);
    })
}
