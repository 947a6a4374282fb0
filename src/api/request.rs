//! A request as the handlers get it: admitted, with checked query parameters and content type.

use crate::api::query::Query;
use crate::api::response::Response;

/// A request.
pub struct Request<'a> {
    pub path: &'a str,
    pub query: Query<'a>,
    pub headers: Headers<'a>,
    pub body: &'a [u8],
}

/// The headers of a request.
#[derive(Clone, Copy)]
pub struct Headers<'a>(pub &'a [tiny_http::Header]);

impl<'a> Headers<'a> {
    /// The value of a header that may be given once.
    pub fn get(self, name: &'static str) -> Result<Option<&'a str>, Response> {
        let mut values =
            self.0.iter().filter(|header| header.field.equiv(name)).map(|header| header.value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Response::error(400, "invalid_header", format!("{name} is given twice"))),
            (value, None) => Ok(value.map(str::trim)),
        }
    }

    /// Checks that a body, if there is one, is declared as JSON and is not compressed.
    pub fn check_content_type(self, body: &[u8]) -> Result<(), Response> {
        let content_type = self.get("Content-Type")?.unwrap_or_default();
        if body.is_empty() {
            return Ok(());
        }
        self.check_content_encoding()?;
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        let sentence = "the body must be JSON, with the header Content-Type: application/json";
        Err(Response::error(415, "unsupported_media_type", sentence))
    }

    /// No encoding is supported, and `identity` is invalid in this header (RFC 9110, 8.4.1).
    fn check_content_encoding(self) -> Result<(), Response> {
        let values = self.0.iter().filter(|header| header.field.equiv("Content-Encoding"));
        let encodings: Vec<&str> =
            values.map(|header| header.value.as_str().trim()).filter(|value| !value.is_empty()).collect();
        if encodings.is_empty() {
            return Ok(());
        }
        let shown: String = encodings.join(", ").chars().take(50).collect();
        let sentence =
            format!("unsupported Content-Encoding {shown:?}; the body must be sent without an encoding");
        Err(Response::error(415, "unsupported_media_type", sentence).with("Accept-Encoding", "identity"))
    }
}
