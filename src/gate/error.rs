//! The answers that the gate makes itself: errors in the API's shape, after which the connection is closed.

/// Why the gate answers a request itself. Every refusal ends its connection, because after most of them nobody
/// knows where the next request would begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// No well-formed request; the sentence names the fault.
    BadRequest(&'static str),
    /// A header with a character that none, or not this one, may have.
    InvalidHeader,
    /// A CONNECT.
    NoTunnel,
    /// A path that is the gate's own.
    NotFound,
    /// The request did not come whole in time.
    Timeout,
    /// The body is over the limit, declared or chunked.
    BodyTooLarge,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// Request line and headers are too long.
    HeadersTooLarge,
    /// A `Transfer-Encoding` other than `chunked`.
    UnknownTransferCoding,
    /// No answer came from the server behind the gate.
    BadGateway,
    /// No connection, no memory or no place in time.
    Overloaded,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    UnknownVersion,
}

impl Refusal {
    /// Status code and reason, the word for programs, the sentence for persons.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Refusal::BadRequest(sentence) => ("400 Bad Request", "bad_request", sentence),
            Refusal::InvalidHeader => (
                "400 Bad Request",
                "invalid_header",
                "no header may hold control characters, and those that this server reads only hold ASCII",
            ),
            Refusal::NoTunnel => (
                "405 Method Not Allowed",
                "method_not_allowed",
                "this server is not a proxy: CONNECT is not supported",
            ),
            Refusal::NotFound => ("404 Not Found", "not_found", "there is nothing at this path"),
            Refusal::Timeout => {
                ("408 Request Timeout", "request_timeout", "the request did not come whole in time")
            }
            Refusal::BodyTooLarge => {
                ("413 Content Too Large", "body_too_large", "the body is longer than this server takes")
            }
            Refusal::ExpectationFailed => (
                "417 Expectation Failed",
                "expectation_failed",
                "the only expectation that is met is 100-continue",
            ),
            Refusal::HeadersTooLarge => (
                "431 Request Header Fields Too Large",
                "headers_too_large",
                "request line and headers are limited to 16 KiB together",
            ),
            Refusal::UnknownTransferCoding => (
                "501 Not Implemented",
                "unknown_transfer_encoding",
                "the only transfer encoding that is understood is chunked",
            ),
            Refusal::BadGateway => ("502 Bad Gateway", "bad_gateway", "the server did not answer"),
            Refusal::Overloaded => {
                ("503 Service Unavailable", "overloaded", "the server is busy, try again in a moment")
            }
            Refusal::UnknownVersion => (
                "505 HTTP Version Not Supported",
                "unknown_http_version",
                "the server speaks HTTP/1.1 and HTTP/1.0",
            ),
        }
    }

    /// The whole answer; to a HEAD request (`without_body`) only its head.
    pub fn to_bytes(self, without_body: bool) -> Vec<u8> {
        let (status, code, sentence) = self.parts();
        let body = format!("{{\"error\": \"{sentence}\", \"code\": \"{code}\"}}\n");
        let further = match self {
            Refusal::Overloaded => "Retry-After: 1\r\n",
            Refusal::NoTunnel => "Allow: GET, HEAD, POST, DELETE\r\n",
            _ => "",
        };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{further}\
             Connection: close\r\n\r\n",
            body.len()
        );
        if !without_body {
            answer.push_str(&body);
        }
        answer.into_bytes()
    }
}
