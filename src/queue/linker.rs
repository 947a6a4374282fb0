//! Makes the text that Redis runs from the files of `lua/`.
//!
//! Redis runs the whole text of a script at each call. Each function that is defined there costs time, and so does each
//! local variable that a function uses. So a text has only those parts of the common files that the script needs, and
//! the constants (names of keys, default values) stand in it as literals.

use std::collections::HashSet;

/// Joins a script with the parts of the common files that it needs, each in its place. A part begins with `local` at
/// the beginning of a line. Comments are left out.
pub(super) fn link(common: &[&str], body: &str) -> String {
    let body = without_comments(body);
    let common = common.iter().map(|text| without_comments(text)).collect::<String>();
    let parts: Vec<&str> = parts(&common).collect();
    let mut needed: HashSet<&str> = words(&body).collect();
    let mut is_chosen = vec![false; parts.len()];
    loop {
        let mut has_more = false;
        for (part, is_chosen) in parts.iter().zip(&mut is_chosen) {
            if !*is_chosen && names(part).any(|name| needed.contains(name)) {
                *is_chosen = true;
                has_more = true;
                needed.extend(words(part));
            }
        }
        if !has_more {
            break;
        }
    }
    let chosen = parts.iter().zip(is_chosen).filter(|(_, is_chosen)| *is_chosen).map(|(part, _)| *part);
    chosen.chain([body.as_str()]).collect()
}

/// The text with each constant replaced by its value.
pub(super) fn with_constants(text: &str, constants: &[(String, String)]) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(is_word) {
        let (before, from_word) = rest.split_at(begin);
        let end = from_word.find(|c| !is_word(c)).unwrap_or(from_word.len());
        let (word, after) = from_word.split_at(end);
        let value = constants.iter().find(|(name, _)| name == word).map(|(_, value)| value.as_str());
        // A command such as 'SET' stands in quotes.
        let value = value.filter(|_| !before.ends_with('\''));
        replaced.push_str(before);
        replaced.push_str(value.unwrap_or(word));
        rest = after;
    }
    replaced + rest
}

/// The part that defines this function; empty if the text has none.
pub(super) fn part<'a>(text: &'a str, name: &str) -> &'a str {
    parts(text)
        .find(|part| part.starts_with("local function ") && names(part).next() == Some(name))
        .unwrap_or_default()
}

/// The words of a text: names, keywords, commands.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn without_comments(text: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("--") && !line.trim().is_empty();
    text.split_inclusive('\n').filter(is_code).collect()
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    let begins =
        text.match_indices("local ").map(|(at, _)| at).filter(|at| text[..*at].ends_with('\n') || *at == 0);
    let begins: Vec<usize> = begins.collect();
    let ends: Vec<usize> = begins.iter().skip(1).copied().chain([text.len()]).collect();
    begins.into_iter().zip(ends).map(|(begin, end)| &text[begin..end])
}

/// The names that a part defines: `local function NAME(..)` or `local NAME, NAME = ..`.
fn names(part: &str) -> impl Iterator<Item = &str> {
    let head = part.strip_prefix("local ").unwrap_or(part);
    let head = match head.strip_prefix("function ") {
        Some(function) => function.split('(').next(),
        None => head.split('=').next(),
    };
    words(head.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = "-- About b and c.\nlocal call = redis.call\n\n-- c\nlocal A, B = 1, 2\nlocal function c(x)\n  \
                          -- d\n  return A + x\nend\nlocal function d()\n  c(1)\nend\nlocal function e()\nend\n";

    #[test]
    fn a_script_gets_what_it_needs_and_no_comment() {
        assert_eq!(link(&[COMMON], "-- e\nreturn 1\n"), "return 1\n");
        assert_eq!(
            link(&[COMMON], "return d()\n"),
            "local A, B = 1, 2\nlocal function c(x)\n  return A + x\nend\nlocal function d()\n  c(1)\nend\nreturn d()\n"
        );
        assert_eq!(
            link(&[COMMON, "local f = call\n"], "return f\n"),
            "local call = redis.call\nlocal f = call\nreturn f\n"
        );
    }

    #[test]
    fn constants_are_replaced_where_they_are_whole_words_outside_of_quotes() {
        let constants =
            [("KEY".to_owned(), "'{n}:key'".to_owned()), ("SET".to_owned(), "'{n}:set'".to_owned())];
        assert_eq!(
            with_constants("call('SET', KEY .. id, SET, MY_KEY, KEYS)", &constants),
            "call('SET', '{n}:key' .. id, '{n}:set', MY_KEY, KEYS)"
        );
    }
}
