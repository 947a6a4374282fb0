//! Percent-encoding of parts of a URL (RFC 3986).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// All bytes but letters, digits, `-`, `.`, `_` and `~`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes one segment of a path, or one name or value of a query.
pub(crate) fn encode_segment(text: &str) -> String {
    percent_encode(text.as_bytes(), RESERVED).to_string()
}

/// Decodes one segment of a path; `None` if it is not UTF-8 then.
pub(crate) fn decode_segment(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).ok()
}

/// Encodes a path; its slashes stay.
pub(crate) fn encode_path(path: &[u8]) -> String {
    const WITHOUT_SLASH: &AsciiSet = &RESERVED.remove(b'/');
    percent_encode(path, WITHOUT_SLASH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_byte_is_encoded_and_decoded() {
        assert_eq!(encode_segment("Encode Video/é?&+%-._~"), "Encode%20Video%2F%C3%A9%3F%26%2B%25-._~");
        assert_eq!(decode_segment("Encode%20Video%2f%C3%A9+%").as_deref(), Some("Encode Video/é+%"));
        assert_eq!(decode_segment("%FF"), None);
        assert_eq!(encode_path(b"/a b/\xff#?%"), "/a%20b/%FF%23%3F%25");
    }
}
