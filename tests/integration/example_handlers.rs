//! The handlers in `examples/` do what the README shows, and read files only from their own folder.
//!
//! The tests run them as the server does: in the folder of the configuration file, with the payload on standard input
//! and a bare environment. `script/setup` installs the programs that the handlers call.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{TempDir, Value, json};

/// A copy of `examples/`, so that the tests leave nothing in the source folder and disturb no server that uses it.
struct Examples(TempDir);

impl Examples {
    fn copy() -> Examples {
        let to = TempDir::new();
        for folder in ["input", "handlers"] {
            fs::create_dir_all(to.join(folder)).expect("temporary folders can be made");
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder);
            for file in fs::read_dir(from).expect("examples/ is there") {
                let file = file.expect("its files can be listed");
                fs::copy(file.path(), to.join(folder).join(file.file_name())).expect("files can be copied");
            }
        }
        Examples(to)
    }

    /// The result, or the exit code and the last line of standard error.
    fn run(&self, handler: &str, payload: &str) -> Result<Value, (Option<i32>, String)> {
        self.run_with_path(&std::env::var_os("PATH").expect("PATH is set"), handler, payload)
    }

    fn run_with_path(
        &self,
        path: &OsStr,
        handler: &str,
        payload: &str,
    ) -> Result<Value, (Option<i32>, String)> {
        let mut child = Command::new("/bin/bash")
            .arg(format!("handlers/{handler}.sh"))
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash is there");
        // A handler may end before it has read all of its input.
        let _ = child.stdin.take().expect("it is piped").write_all(payload.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).expect("a result is JSON"));
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err((output.status.code(), stderr.lines().last().unwrap_or_default().to_owned()))
    }
}

#[test]
fn a_thumbnail_has_the_requested_width() {
    let examples = Examples::copy();
    let result = examples.run("thumbnail", r#"{"input": "lake.jpg", "width": 160}"#).unwrap();
    assert_eq!((&result["output"], &result["width"]), (&json!("examples/output/lake-160.jpg"), &json!(160)));
    let picture = fs::read(examples.0.join("output/lake-160.jpg")).unwrap();
    assert_eq!(result["bytes"], json!(picture.len()));
    assert!(picture.starts_with(&[0xff, 0xd8]), "it is a JPEG");

    let result = examples.run("thumbnail", r#"{"input": "badge.png"}"#).unwrap();
    assert_eq!((&result["width"], &result["height"]), (&json!(200), &json!(200)));
}

#[test]
fn a_log_is_compressed_and_summed() {
    let examples = Examples::copy();
    let before = fs::metadata(examples.0.join("input/access.log")).unwrap().len();
    let result = examples.run("compress", r#"{"input": "access.log"}"#).unwrap();
    let after = fs::metadata(examples.0.join("output/access.log.gz")).unwrap().len();
    assert_eq!((&result["bytes_before"], &result["bytes_after"]), (&json!(before), &json!(after)));
    assert!(result["ratio"].as_f64().unwrap() > 2.0, "{result}");

    fs::write(examples.0.join("input/abc"), "abc").unwrap();
    let result = examples.run("checksum", r#"{"input": "abc"}"#).unwrap();
    let sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(result, json!({"input": "abc", "sha256": sha256_of_abc, "bytes": 3}));
}

#[test]
fn a_payload_that_can_never_work_fails_without_a_retry() {
    let examples = Examples::copy();
    fs::write(examples.0.join("input/broken.jpg"), "no picture").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", examples.0.join("input/link")).unwrap();
    for (handler, payload, reason) in [
        ("checksum", "{", "not a JSON object"),
        ("checksum", "[]", "not a JSON object"),
        ("checksum", "{}", "no \"input\""),
        ("checksum", r#"{"input": "missing"}"#, "no such file"),
        ("checksum", r#"{"input": "/etc/passwd"}"#, "examples/input"),
        ("checksum", r#"{"input": "../handlers/common.sh"}"#, "not a file in examples/input"),
        ("checksum", r#"{"input": "link"}"#, "not a file in examples/input"),
        ("thumbnail", r#"{"input": "access.log"}"#, "not a JPEG or PNG"),
        ("thumbnail", r#"{"input": "broken.jpg"}"#, "not a readable jpeg"),
        ("thumbnail", r#"{"input": "lake.jpg", "width": 0}"#, "\"width\""),
        ("thumbnail", r#"{"input": "lake.jpg", "width": "; id"}"#, "\"width\""),
    ] {
        let (code, stderr) = examples.run(handler, payload).unwrap_err();
        assert_eq!(code, Some(65), "{handler} {payload}: {stderr}");
        assert!(stderr.contains(reason), "{handler} {payload}: {stderr}");
    }
}

#[test]
fn a_missing_program_fails_the_attempt_and_is_named() {
    let examples = Examples::copy();
    let bin = examples.0.join("bin");
    fs::create_dir(&bin).unwrap();
    let run = |handler| examples.run_with_path(bin.as_os_str(), handler, r#"{"input": "access.log"}"#);
    let missing =
        |program| (Some(69), format!("the program {program} is not installed: run script/setup server"));
    assert_eq!(run("checksum").unwrap_err(), missing("jq"));
    for tool in ["jq", "cat", "realpath"] {
        let folders = std::env::var_os("PATH").unwrap();
        let found =
            std::env::split_paths(&folders).map(|folder| folder.join(tool)).find(|path| path.is_file());
        std::os::unix::fs::symlink(found.expect("it is on PATH"), bin.join(tool)).unwrap();
    }
    assert_eq!(run("compress").unwrap_err(), missing("gzip"));
    assert_eq!(run("checksum").unwrap_err(), missing("sha256sum"));
    assert_eq!(run("thumbnail").unwrap_err(), missing("identify"));
}

/// The packages that `script/setup` would install on a machine without any program.
fn packages(purpose: &str) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("script/setup");
    let mut command = Command::new("/bin/bash");
    let output = command.arg(script).args([purpose, "--print"]).env("PATH", "/nonexistent").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_server_needs_no_package_of_the_tests() {
    let (build, server, tests) = (packages("build"), packages("server"), packages("tests"));
    assert_eq!(build, ["gcc", "libc6-dev"]);
    for package in ["redis-server", "imagemagick", "jq", "gzip", "python3"] {
        assert!(server.iter().any(|found| found == package), "{package}: {server:?}");
    }
    for package in ["chromium", "nodejs", "faketime", "curl"] {
        assert!(!server.iter().any(|found| found == package), "{package}: {server:?}");
        assert!(tests.iter().any(|found| found == package), "{package}: {tests:?}");
    }
    assert!(server.iter().all(|package| tests.contains(package)), "{tests:?}");
}
