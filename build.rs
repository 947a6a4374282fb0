//! Makes the program smaller: compresses its texts, and packs the addresses that the loader has to adjust.

use std::path::Path;
use std::{env, fs};

/// `src/packed.rs` unpacks these files.
const TEXTS: [&str; 2] = ["src/api/openapi.json", "src/api/ui"];
/// The scripts resemble each other: together they take half as much as each by itself.
const SCRIPTS: &str = "src/queue/lua";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for text in TEXTS {
        println!("cargo::rerun-if-changed={text}");
        match fs::read_dir(text) {
            Ok(files) => files.for_each(|file| pack(&file.expect("a file").path())),
            Err(_) => pack(Path::new(text)),
        }
    }
    println!("cargo::rerun-if-changed={SCRIPTS}");
    pack_scripts();
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        // 150 kB less. A linker that does not know the option ignores it.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if is("TARGET", "x86_64-unknown-linux-gnu") {
        // 40 kB less: of several equal functions one stays. Rust links this target with lld; other linkers may not know the
        // option.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// The code of a script: Redis gets no comment.
fn without_comments(script: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("--") && !line.trim().is_empty();
    script.split_inclusive('\n').filter(is_code).collect()
}

/// Writes the compressed file to the build folder, with `.packed` behind its name.
fn pack(file: &Path) {
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    write_packed(name, &fs::read(file).expect("a file that can be read"));
}

/// Writes all scripts, compressed together. In front of each script stand a zero byte, its name, and a line break.
fn pack_scripts() {
    let entries = fs::read_dir(SCRIPTS).expect("a folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut all = String::new();
    for file in files {
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a name");
        let script = fs::read_to_string(&file).expect("a text that can be read");
        all += &format!("\0{name}\n{}", without_comments(&script));
    }
    write_packed("lua", all.as_bytes());
}

fn write_packed(name: &str, text: &[u8]) {
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let packed = miniz_oxide::deflate::compress_to_vec(text, 10);
    fs::write(Path::new(&folder).join(format!("{name}.packed")), packed).expect("a file that can be written");
}
