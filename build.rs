//! Makes the program smaller: compresses its texts, and packs the addresses that the loader has to adjust.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `src/packed.rs` unpacks what these functions write.
    pack_file("src/api/openapi.json", without_indent);
    pack_folder("src/api/ui", &["html", "js", "css", "svg"], str::to_owned);
    pack_folder("src/queue/lua", &["lua"], without_comments);
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

/// A JSON document in one line.
fn without_indent(document: &str) -> String {
    document.lines().map(str::trim_start).collect()
}

/// The code of a script: Redis gets no comment.
fn without_comments(script: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("--") && !line.trim().is_empty();
    script.split_inclusive('\n').filter(is_code).collect()
}

/// Compresses a file.
fn pack_file(file: &str, prepare: fn(&str) -> String) {
    println!("cargo::rerun-if-changed={file}");
    let text = fs::read_to_string(file).expect("a text that can be read");
    write_packed(file, &prepare(&text));
}

/// Compresses the files of a folder that have one of these extensions. Files that resemble each other take less together than
/// each by itself: scripts half as much. In front of each file stand a zero byte, its name, and a line break.
fn pack_folder(folder: &str, extensions: &[&str], prepare: fn(&str) -> String) {
    println!("cargo::rerun-if-changed={folder}");
    let entries = fs::read_dir(folder).expect("a folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut all = String::new();
    for file in files {
        if file.extension().is_some_and(|end| extensions.iter().any(|extension| end == *extension)) {
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
            let text = fs::read_to_string(&file).expect("a text that can be read");
            all += &format!("\0{name}\n{}", prepare(&text));
        }
    }
    write_packed(folder, &all);
}

/// Writes a compressed text to the build folder, with `.packed` behind the name of its file or folder.
fn write_packed(path: &str, text: &str) {
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).expect("a name");
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let packed = miniz_oxide::deflate::compress_to_vec(text.as_bytes(), 10);
    fs::write(Path::new(&folder).join(format!("{name}.packed")), packed).expect("a file that can be written");
}
