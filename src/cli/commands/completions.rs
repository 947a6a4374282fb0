//! Completion scripts for shells, derived from the list of commands.

use std::fmt::Write as _;

use crate::cli::args::{Command, Flag, spelled};
use crate::job::Status;

/// The possible values of an argument.
#[derive(Debug, PartialEq)]
enum Values {
    /// One of these.
    Words(Vec<&'static str>),
    /// The path of a file.
    Files,
    /// Values that a shell cannot know.
    Unknown,
}

/// The values of a flag.
fn values_of(flag: Flag) -> Values {
    match flag.value {
        "STATUS" => Values::Words(Status::ALL.iter().map(|status| status.as_str()).collect()),
        value if value.contains("FILE") || value.contains("DIR") => Values::Files,
        value => alternatives(value),
    }
}

/// The possible operands of a command.
fn operands_of(command: &Command, all: &[&'static Command]) -> Values {
    match command.operands {
        "[COMMAND]" => Values::Words(all.iter().map(|command| command.name).collect()),
        words => alternatives(words),
    }
}

/// `a|b`, `[a|b C]`: a and b.
fn alternatives(text: &'static str) -> Values {
    let first = text.trim_start_matches('[').split([' ', ']']).next().unwrap_or_default();
    let words: Vec<&str> = first.split('|').collect();
    let is_literal = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    if words.len() > 1 && words.iter().all(is_literal) { Values::Words(words) } else { Values::Unknown }
}

/// The script for bash.
pub(crate) fn bash(commands: &[&'static Command]) -> String {
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let mut text = format!(
        "# Completion of threadq for bash.\n\
         _threadq() {{\n    \
             local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words=\n    \
             COMPREPLY=()\n    \
             if [ \"$COMP_CWORD\" -eq 1 ]; then\n        \
                 words='{} --help --version'\n    \
             else\n        \
                 case \"${{COMP_WORDS[1]}} $prev\" in\n",
        names.join(" ")
    );
    for command in commands {
        for flag in command.all_flags().filter(|flag| !flag.value.is_empty()) {
            let action = match values_of(flag) {
                Values::Words(words) => format!("words='{}'", words.join(" ")),
                Values::Files => {
                    "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return"
                        .to_owned()
                }
                Values::Unknown => "return".to_owned(),
            };
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "            '{} {}') {action} ;;", command.name, spelled(flag.name));
        }
    }
    for command in commands {
        let mut candidates = match operands_of(command, commands) {
            Values::Words(words) => words.into_iter().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        candidates.extend(command.all_flags().map(|flag| spelled(flag.name)));
        let _ = writeln!(text, "            '{} '*) words='{}' ;;", command.name, candidates.join(" "));
    }
    text.push_str(
        "        esac\n    \
             fi\n    \
             mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n\
         }\n\
         complete -F _threadq threadq\n",
    );
    text
}

/// The script for zsh.
pub(crate) fn zsh(commands: &[&'static Command]) -> String {
    let mut text = String::from(
        "#compdef threadq\n\
         # Completion of threadq for zsh.\n\
         _threadq() {\n    \
             local -a commands\n    \
             commands=(\n",
    );
    for command in commands {
        let _ = writeln!(text, "        {}", quote(&format!("{}:{}", command.name, command.summary())));
    }
    text.push_str(
        "    )\n    \
             if (( CURRENT == 2 )); then\n        \
                 _describe command commands\n        \
                 return\n    \
             fi\n    \
             local command=$words[2]\n    \
             shift words\n    \
             (( CURRENT-- ))\n    \
             case $command in\n",
    );
    for command in commands {
        let _ = write!(text, "        {}) _arguments", command.name);
        for flag in command.all_flags() {
            let help = escape_for_zsh(flag.help);
            let value = match values_of(flag) {
                _ if flag.value.is_empty() => String::new(),
                Values::Words(words) => format!(":value:({})", words.join(" ")),
                Values::Files => ":file:_files".to_owned(),
                Values::Unknown => ":value:".to_owned(),
            };
            let _ = write!(text, " {}", quote(&format!("{}[{help}]{value}", spelled(flag.name))));
        }
        if let Values::Words(words) = operands_of(command, commands) {
            let _ = write!(text, " {}", quote(&format!("1:word:({})", words.join(" "))));
        }
        text.push_str(" ;;\n");
    }
    text.push_str(
        "    esac\n\
         }\n\
         # Autoloaded from fpath under this name, or read by `source`.\n\
         if [ \"${funcstack[1]}\" = _threadq ]; then _threadq \"$@\"; else compdef _threadq threadq; fi\n",
    );
    text
}

/// The script for fish.
pub(crate) fn fish(commands: &[&'static Command]) -> String {
    let mut text = String::from(
        "# Completion of threadq for fish.\n\
         function __threadq_command\n    \
             set -l words (commandline -opc)\n    \
             test (count $words) -ge 2; and test $words[2] = $argv[1]\n\
         end\n\
         function __threadq_no_command\n    \
             test (count (commandline -opc)) -eq 1\n\
         end\n\
         complete -c threadq -f\n\
         complete -c threadq -n __threadq_no_command -l version -d 'print the version'\n",
    );
    for command in commands {
        let name = command.name;
        let summary = quote_for_fish(&command.summary());
        let _ = writeln!(text, "complete -c threadq -n __threadq_no_command -a {name} -d {summary}");
        let start = format!("complete -c threadq -n '__threadq_command {name}'");
        if let Values::Words(words) = operands_of(command, commands) {
            let _ = writeln!(text, "{start} -a '{}'", words.join(" "));
        }
        for flag in command.all_flags() {
            let value = match values_of(flag) {
                _ if flag.value.is_empty() => String::new(),
                Values::Words(words) => format!(" -x -a '{}'", words.join(" ")),
                Values::Files => " -r -F".to_owned(),
                Values::Unknown => " -x".to_owned(),
            };
            let name = name_for_fish(flag);
            let _ = writeln!(text, "{start} {name}{value} -d {}", quote_for_fish(flag.help));
        }
    }
    text
}

/// The option of `complete` that names a flag.
fn name_for_fish(flag: Flag) -> String {
    let option = if flag.name.len() == 1 { "-s" } else { "-l" };
    format!("{option} {}", flag.name)
}

/// A quoted word for bash and zsh.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A quoted word for fish.
fn quote_for_fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A text for the brackets of `_arguments`.
fn escape_for_zsh(text: &str) -> String {
    text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;
    use crate::cli::COMMANDS;
    use crate::cli::testing::run;

    #[test]
    fn possible_values_are_derived_from_the_help() {
        let flag = |value| Flag { name: "x", value, help: "" };
        assert_eq!(values_of(flag("everysec|always")), Values::Words(vec!["everysec", "always"]));
        assert_eq!(values_of(flag("JSON|@FILE|-")), Values::Files);
        assert_eq!(values_of(flag("ADDR:PORT")), Values::Unknown);
        assert!(matches!(values_of(flag("STATUS")), Values::Words(words) if words.len() == 7));
        assert_eq!(alternatives("[show|pause|resume NAME]"), Values::Words(vec!["show", "pause", "resume"]));
        assert_eq!(alternatives("ID"), Values::Unknown);
    }

    #[test]
    fn every_command_and_flag_is_in_every_script() {
        for shell in ["bash", "zsh", "fish"] {
            let done = run(&["completions", shell]);
            assert_eq!((done.code, done.err.as_str()), (0, ""));
            for command in COMMANDS {
                assert!(done.out.contains(command.name), "{shell}: {}", command.name);
                for flag in command.all_flags() {
                    let name = if shell == "fish" { name_for_fish(flag) } else { spelled(flag.name) };
                    let lines = done.out.lines().filter(|line| line.contains(command.name));
                    let count = lines.filter(|line| line.contains(&name)).count();
                    assert!(count > 0, "{shell}: {} {name}", command.name);
                }
            }
        }
        assert_eq!(run(&["completions"]).code, 2);
        assert_eq!(run(&["completions", "sh"]).code, 2);
    }

    /// The completions of bash for the last of these words.
    fn completed(words: &[&str]) -> Vec<String> {
        let script = format!(
            "{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\ncompopt() {{ :; }}\n_threadq\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash(&COMMANDS),
            words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        let output = Process::new("bash").args(["--norc", "-c", &script]).output().expect("bash");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_flags_operands_and_values() {
        assert_eq!(completed(&["threadq", "do"]), ["doctor"]);
        assert_eq!(completed(&["threadq", "dlq", "re"]), ["retry"]);
        assert_eq!(completed(&["threadq", "dlq", "retry", "--dr"]), ["--dry-run"]);
        assert_eq!(completed(&["threadq", "jobs", "--status", "c"]), ["completed", "cancelled"]);
        assert_eq!(completed(&["threadq", "serve", "--fsync", "al"]), ["always"]);
        assert_eq!(completed(&["threadq", "serve", "--redis-ca"]), ["--redis-ca-file"]);
        assert_eq!(completed(&["threadq", "help", "enq"]), ["enqueue"]);
        assert_eq!(completed(&["threadq", "limits", "s"]), ["show", "set"]);
        assert_eq!(completed(&["threadq", "serve", "--config", "Cargo.t"]), ["Cargo.toml"]);
        assert_eq!(completed(&["threadq", "jobs", "--type", ""]), [""]);
        assert!(completed(&["threadq", "schedules", "-"]).contains(&"-n".to_owned()));
    }
}
