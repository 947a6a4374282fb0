//! Makes the program smaller: compresses its texts, and packs the addresses that the loader has to adjust.

use std::path::Path;
use std::{env, fs};

/// `src/packed.rs` unpacks these files.
const TEXTS: [&str; 3] = ["src/api/openapi.json", "src/api/ui", "src/queue/lua"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for text in TEXTS {
        println!("cargo::rerun-if-changed={text}");
        match fs::read_dir(text) {
            Ok(files) => files.for_each(|file| pack(&file.expect("a file").path())),
            Err(_) => pack(Path::new(text)),
        }
    }
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        // 150 kB less. A linker that does not know the option ignores it.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Writes the compressed file to the build folder, with `.packed` behind its name.
fn pack(file: &Path) {
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    let text = fs::read(file).expect("a file that can be read");
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let packed = miniz_oxide::deflate::compress_to_vec(&text, 10);
    fs::write(Path::new(&folder).join(format!("{name}.packed")), packed).expect("a file that can be written");
}
