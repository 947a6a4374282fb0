//! The mutants that no test has to notice, each with the reason.

use super::Exception;

macro_rules! exceptions {
    ($($script:literal: $line:literal, $change:literal => $why:literal;)*) => {
        &[$(Exception { script: $script, line: $line, change: $change, why: $why }),*]
    };
}

pub const EXCEPTIONS: &[Exception] = exceptions! {
    "common": "if indexed(from) ~= indexed(to) then", "indexed(from) ~= indexed(to) => true"
        => "an entry is taken out and put in again";
};
