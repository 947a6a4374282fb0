//! The limit on the nesting of JSON.

/// How deep arrays and objects may be nested, so that no reader of the JSON runs out of stack.
pub const MAX_DEPTH: usize = 128;

/// Whether arrays and objects are nested more than `limit` deep.
///
/// serde_json accepts a `RawValue` at any depth, but a later reader of it has a limit. This does not check that the text is
/// JSON: it only counts brackets outside strings.
pub fn depth_exceeds(text: &str, limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' if depth == limit => return true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        "[".repeat(depth) + &"]".repeat(depth)
    }

    #[test]
    fn the_limit_itself_passes() {
        assert!(!depth_exceeds(&nested(128), 128));
        assert!(depth_exceeds(&nested(129), 128));
        assert!(depth_exceeds(&nested(1_000_000), 128));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert!(!depth_exceeds(r#"{"a[[[": "\"[[[\\"}"#, 1));
        assert!(depth_exceeds(r#"{"a": "\\", "b": [1]}"#, 1));
    }

    #[test]
    fn values_side_by_side_are_not_nested() {
        assert!(!depth_exceeds(&format!("[{}]", "[],".repeat(500)), 2));
        assert!(!depth_exceeds("17", 0));
    }
}
