//! The error responses that the gate writes itself, in the shape of the API's errors.

/// Why the gate rejects a request. Every rejection closes the connection, because after most of them the start of the
/// next request is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GateError {
    /// The request is malformed; the sentence says why.
    BadRequest(&'static str),
    /// A header value has a character that is not allowed there.
    InvalidHeader,
    /// The method is CONNECT.
    NoTunnel,
    /// The path is reserved for the gate.
    NotFound,
    /// The request did not arrive whole in time.
    Timeout,
    /// The body is longer than the limit, declared or chunked.
    BodyTooLarge,
    /// `Expect` is not `100-continue`.
    ExpectationFailed,
    /// Request line and headers are longer than 16 KiB.
    HeadersTooLarge,
    /// `Transfer-Encoding` is not `chunked`.
    UnknownTransferCoding,
    /// tiny_http sent no response.
    BadGateway,
    /// No connection, memory or permit was free in time.
    Overloaded,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    UnknownVersion,
}

impl GateError {
    /// Status line, error code and sentence.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            GateError::BadRequest(sentence) => ("400 Bad Request", "bad_request", sentence),
            GateError::InvalidHeader => (
                "400 Bad Request",
                "invalid_header",
                "a header value must not contain control characters, and the headers that this server reads only ASCII",
            ),
            GateError::NoTunnel => (
                "405 Method Not Allowed",
                "method_not_allowed",
                "this server is not a proxy; the method CONNECT is not supported",
            ),
            GateError::NotFound => ("404 Not Found", "not_found", "unknown path"),
            GateError::Timeout => {
                ("408 Request Timeout", "request_timeout", "the request did not arrive completely in time")
            }
            GateError::BodyTooLarge => (
                "413 Content Too Large",
                "body_too_large",
                "the body is longer than the setting max-body of this server",
            ),
            GateError::ExpectationFailed => {
                ("417 Expectation Failed", "expectation_failed", "unknown Expect; allowed: 100-continue")
            }
            GateError::HeadersTooLarge => (
                "431 Request Header Fields Too Large",
                "headers_too_large",
                "the request line and headers together are longer than 16 KiB",
            ),
            GateError::UnknownTransferCoding => (
                "501 Not Implemented",
                "unknown_transfer_encoding",
                "unknown Transfer-Encoding; allowed: chunked",
            ),
            GateError::BadGateway => ("502 Bad Gateway", "bad_gateway", "the server sent no response"),
            GateError::Overloaded => {
                ("503 Service Unavailable", "overloaded", "the server is overloaded; retry in a second")
            }
            GateError::UnknownVersion => (
                "505 HTTP Version Not Supported",
                "unknown_http_version",
                "unknown HTTP version; allowed: HTTP/1.1, HTTP/1.0",
            ),
        }
    }

    /// The whole response; for a HEAD request (`without_body`) only its head.
    pub fn to_bytes(self, without_body: bool) -> Vec<u8> {
        let (status, code, sentence) = self.parts();
        let body = format!("{{\"error\": \"{sentence}\", \"code\": \"{code}\"}}\n");
        let header = match self {
            GateError::Overloaded => "Retry-After: 1\r\n",
            GateError::NoTunnel => "Allow: GET, HEAD, POST, DELETE\r\n",
            _ => "",
        };
        let mut response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{header}\
             Connection: close\r\n\r\n",
            body.len()
        );
        if !without_body {
            response.push_str(&body);
        }
        response.into_bytes()
    }
}
