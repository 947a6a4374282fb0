//! Checks at start whether the system can execute a file. Without the check a missing interpreter would fail every job, with
//! the misleading error "No such file".
//!
//! The system executes a script with its interpreter, an ELF program with its loader, and other formats that are registered
//! with the kernel (binfmt_misc). The check follows interpreters up to the file that is executed in the end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::children::program::check_file;

/// How many bytes at the start of a file the kernel examines.
const HEAD: usize = 256;
/// How many interpreters the kernel follows, since an interpreter may be a script itself.
const DEPTH: usize = 5;
const ELF: &[u8] = b"\x7fELF";
/// The folder in which the kernel lists registered formats.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";

/// The conditions under which a program is executed.
pub(super) struct Place<'a> {
    /// The working directory. Relative paths of interpreters start there.
    pub dir: &'a Path,
    /// Finds a program by its bare name, as `env` does.
    pub find: &'a dyn Fn(&str) -> Option<PathBuf>,
}

/// Checks that the system can execute this file. The error completes a sentence that begins with the file.
pub(super) fn check_format(path: &Path, place: &Place) -> Result<(), String> {
    check(path, place, DEPTH)
}

fn check(path: &Path, place: &Place, depth: usize) -> Result<(), String> {
    let mut head = [0; HEAD];
    // The system can execute a program that it cannot read.
    let Ok(file) = File::open(path) else { return Ok(()) };
    let length = read_at(&file, &mut head, 0).map_err(|error| format!("cannot be read: {error}"))?;
    let head = &head[..length];
    if head.is_empty() {
        return Err("is empty".to_owned());
    }
    if is_registered(head, path) {
        return Ok(());
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        return check_script(line, place, depth);
    }
    if head.starts_with(ELF) {
        return check_elf(&file, head);
    }
    let allowed =
        "neither a program of this system nor a script with #! and its interpreter in the first line";
    Err(format!("is {allowed}"))
}

/// Checks a script. `line` is the text after `#!`.
fn check_script(line: &[u8], place: &Place, depth: usize) -> Result<(), String> {
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
    let line = &line[..end];
    if line.contains(&b'\r') {
        return Err("has a carriage return in its first line: save it with the line ends of Unix".to_owned());
    }
    // For the kernel any other white space belongs to the name.
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = &line[line.iter().position(|byte| !is_blank(byte)).unwrap_or(line.len())..];
    let end = line.iter().position(is_blank).unwrap_or(line.len());
    let (interpreter, argument) = (&line[..end], line[end..].trim_ascii());
    if interpreter.is_empty() {
        return Err("names no interpreter after the #! of its first line".to_owned());
    }
    let shown = String::from_utf8_lossy(interpreter);
    let path = place.dir.join(OsStr::from_bytes(interpreter));
    check_interpreter(&path, place, depth)
        .map_err(|problem| format!("cannot be executed: its interpreter {shown} {problem}"))?;
    if path.file_name() == Some(OsStr::new("env"))
        && let Some(name) = started_by_env(argument)
    {
        let found = if name.contains('/') { Some(place.dir.join(&name)) } else { (place.find)(&name) };
        let path = found.ok_or_else(|| format!("cannot be executed: the program {name:?} is not on PATH"))?;
        check_interpreter(&path, place, depth)
            .map_err(|problem| format!("cannot be executed: its interpreter {name} {problem}"))?;
    }
    Ok(())
}

fn check_interpreter(path: &Path, place: &Place, depth: usize) -> Result<(), String> {
    check_file(path).map_err(|problem| problem.to_string())?;
    match depth.checked_sub(1) {
        None | Some(0) => Err("is a script with an interpreter that is a script, and so on".to_owned()),
        Some(depth) => check(path, place, depth),
    }
}

/// The program that `env` starts. The kernel passes the rest of the line as one argument, which `env` splits only with `-S`.
fn started_by_env(argument: &[u8]) -> Option<String> {
    let argument = String::from_utf8_lossy(argument);
    let Some(words) = argument.strip_prefix("-S").or_else(|| argument.strip_prefix("--split-string=")) else {
        let is_name = !argument.is_empty() && !argument.starts_with('-') && !argument.contains('=');
        return is_name.then(|| argument.into_owned());
    };
    // Options and quotes are not interpreted here: then nothing is checked.
    let mut words = words.split_ascii_whitespace().skip_while(|word| word.contains('='));
    words
        .next()
        .filter(|word| !word.starts_with('-') && !word.contains(['"', '\'', '\\', '$']))
        .map(str::to_owned)
}

/// Checks that an ELF file is a program for this machine, and that its loader exists.
fn check_elf(file: &File, head: &[u8]) -> Result<(), String> {
    const CUT: &str = "is an ELF program that is cut off";
    let number = |bytes: &[u8], at: usize, length: usize| -> Result<u64, String> {
        let field = bytes.get(at..at + length).ok_or(CUT)?;
        Ok(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (class, order) = (number(head, 4, 1)?, number(head, 5, 1)?);
    if order != if cfg!(target_endian = "little") { 1 } else { 2 } {
        return Err("is a program for another machine, with another order of bytes".to_owned());
    }
    if cfg!(target_endian = "big") {
        return Ok(());
    }
    let (kind, machine) = (number(head, 16, 2)?, number(head, 18, 2)?);
    if !runs_here(machine) {
        return Err(format!("is a program for another machine (its ELF machine number is {machine})"));
    }
    if !matches!(kind, 2 | 3) {
        return Err("is an ELF file, but no program".to_owned());
    }
    // The loader of a 32-bit program is not checked.
    if class != 2 {
        return Ok(());
    }
    let (table, entry_size, entries) = (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?);
    for index in 0..entries {
        let mut entry = [0; 56];
        let length = read_at(file, &mut entry, table.saturating_add(index * entry_size)).map_err(|_| CUT)?;
        let entry = &entry[..length];
        if number(entry, 0, 4)? == 3 {
            let mut path = vec![0; (number(entry, 32, 8)? as usize).min(4096)];
            let length = read_at(file, &mut path, number(entry, 8, 8)?).map_err(|_| CUT)?;
            let path = path[..length].split(|byte| *byte == 0).next().unwrap_or_default();
            let path = Path::new(OsStr::from_bytes(path));
            return check_file(path).map_err(|problem| {
                format!(
                    "cannot be executed: its loader {} {problem}: it was built for another system",
                    path.display()
                )
            });
        }
    }
    Ok(())
}

/// Whether this system executes ELF programs with this machine number: its own, and that of the 32-bit predecessor of the
/// machine.
fn runs_here(machine: u64) -> bool {
    const PREDECESSORS: [(u64, u64); 2] = [(62, 3), (183, 40)];
    let mut head = [0; 20];
    let own = File::open("/proc/self/exe").and_then(|file| read_at(&file, &mut head, 0));
    // Without the own machine number nothing can be checked.
    let Ok(20) = own else { return true };
    let own = u64::from(u16::from_le_bytes([head[18], head[19]]));
    machine == own || PREDECESSORS.contains(&(own, machine))
}

/// Whether a format that is registered with the kernel fits this file.
fn is_registered(head: &[u8], path: &Path) -> bool {
    let formats = fs::read_dir(FORMATS).into_iter().flatten().flatten();
    formats
        .filter_map(|format| fs::read_to_string(format.path()).ok())
        .any(|format| fits(&format, head, path))
}

/// Whether a registered format fits. Its description is `enabled`, then lines such as `extension .jar`, or `offset 0`, `magic 7f454c46` and perhaps `mask ffffffff`.
fn fits(format: &str, head: &[u8], path: &Path) -> bool {
    if format.lines().next() != Some("enabled") {
        return false;
    }
    let field = |name: &str| format.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if let Some(extension) = field("extension") {
        let wanted = OsStr::new(extension.trim_start_matches('.'));
        return path.extension() == Some(wanted);
    }
    let Some(magic) = field("magic").and_then(bytes) else { return false };
    let mask = field("mask").and_then(bytes).unwrap_or_else(|| vec![0xff; magic.len()]);
    let offset: usize = field("offset").and_then(|number| number.parse().ok()).unwrap_or(0);
    let Some(found) = head.get(offset..offset + magic.len()) else { return false };
    found.iter().zip(&magic).zip(&mask).all(|((found, magic), mask)| found & mask == magic & mask)
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Reads until the buffer is full or the file ends. Returns the number of bytes.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], at.saturating_add(length as u64)) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn problem_of(dir: &TempDir, content: &[u8]) -> Option<String> {
        let path = dir.path().join("program");
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let find = |name: &str| match name {
            "sh" => Some(PathBuf::from("/bin/sh")),
            _ => None,
        };
        check_format(&path, &Place { dir: dir.path(), find: &find }).err()
    }

    #[test]
    fn a_file_that_the_system_executes_passes() {
        let dir = tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/sh", dir.path().join("shell")).unwrap();
        for script in [
            "#!/bin/sh\n",
            "#! /bin/sh -e\nexit 1\r\n",
            "#!\t/bin/sh",
            "#!shell\n",
            "#!./shell -x\n",
            "#!/usr/bin/env sh\n",
            "#!/usr/bin/env -S sh -e\n",
            "#!/usr/bin/env -S A=b sh\n",
            "#!/usr/bin/env -i sh\n",
        ] {
            assert_eq!(problem_of(&dir, script.as_bytes()), None, "{script:?}");
        }
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(problem_of(&dir, &own), None);
    }

    #[test]
    fn a_file_that_the_system_does_not_execute_is_refused_with_the_reason() {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("text"), "echo").unwrap();
        for (content, wanted) in [
            ("", "is empty"),
            ("echo hello\n", "is neither a program of this system nor a script"),
            ("\n#!/bin/sh\n", "is neither a program of this system nor a script"),
            ("\u{feff}#!/bin/sh\n", "is neither a program of this system nor a script"),
            ("#!/bin/sh\r\necho\r\n", "has a carriage return in its first line"),
            ("#!/usr/bin/env sh\r\n", "has a carriage return in its first line"),
            ("#!\n/bin/sh\n", "names no interpreter"),
            ("#!/nowhere/sh\n", "cannot be executed: its interpreter /nowhere/sh does not exist"),
            ("#!python9\n", "cannot be executed: its interpreter python9 does not exist"),
            ("#!/bin\n", "cannot be executed: its interpreter /bin is not a file"),
            ("#!./text\n", "cannot be executed: its interpreter ./text is not executable"),
            ("#!./program\n", "cannot be executed: its interpreter ./program cannot be executed"),
            ("#!/usr/bin/env python9\n", "cannot be executed: the program \"python9\" is not on PATH"),
            ("#!/usr/bin/env sh -e\n", "cannot be executed: the program \"sh -e\" is not on PATH"),
            ("#!/usr/bin/env -S python9 -u\n", "cannot be executed: the program \"python9\" is not on PATH"),
            ("#!/usr/bin/env ./gone\n", "cannot be executed: its interpreter ./gone does not exist"),
        ] {
            let problem = problem_of(&dir, content.as_bytes()).unwrap_or_else(|| panic!("{content:?}"));
            assert!(problem.starts_with(wanted), "{content:?}: {problem}");
        }
    }

    #[test]
    fn a_program_for_another_machine_or_system_is_refused() {
        let dir = tempdir().unwrap();
        let own = fs::read("/bin/sh").unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = own.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            problem_of(&dir, &changed).unwrap_or_default()
        };
        // SPARC, which runs nowhere else.
        assert!(with(18, &[2, 0]).starts_with("is a program for another machine"), "{}", with(18, &[2, 0]));
        assert!(with(5, &[2]).contains("another order of bytes"));
        assert_eq!(with(16, &[1, 0]), "is an ELF file, but no program");
        assert_eq!(problem_of(&dir, &own[..30]).unwrap_or_default(), "is an ELF program that is cut off");
        let loader = b"/lib64/ld-linux-x86-64.so.2";
        if let Some(at) = own.windows(loader.len()).position(|bytes| bytes == loader) {
            let problem = with(at, b"/nowhere");
            assert!(problem.starts_with("cannot be executed: its loader /nowhere"), "{problem}");
        }
    }

    #[test]
    fn registered_formats_pass() {
        let wine = "enabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n";
        let masked = "enabled\ninterpreter x\nflags: \noffset 1\nmagic 454c4600\nmask ffffff00\n";
        let jar = "enabled\ninterpreter x\nflags: \nextension .jar\n";
        let path = Path::new("/x/y.jar");
        assert!(fits(wine, b"MZ\x90", path) && !fits(wine, b"ZM", path) && !fits(wine, b"M", path));
        assert!(fits(masked, b"\x7fELF\x02", path) && !fits(masked, b"\x7fELG\x02", path));
        assert!(fits(jar, b"PK", path) && !fits(jar, b"PK", Path::new("/x/jar")));
        assert!(!fits(&wine.replace("enabled", "disabled"), b"MZ\x90", path) && !fits("", b"MZ", path));
    }
}
