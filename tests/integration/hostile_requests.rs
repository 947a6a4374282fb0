//! Hostile requests, each with its response: what HTTP forbids, what two parsers could read in two ways, what is too
//! large, and what a browser can be made to send. The rows of the contract's table are in `api_bad_input.rs`.
//!
//! Every request that must be refused would submit a job if the server accepted it, so that the number of jobs shows
//! it.

use crate::common::*;

/// A raw request and its expected response.
struct Row {
    name: String,
    bytes: Vec<u8>,
    status: u16,
    /// The error code; empty if the response has no error.
    code: &'static str,
}

/// The list of rows.
#[derive(Default)]
struct Table(Vec<Row>);

const JOB: &str = r#"{"type":"echo","queue":"nobody"}"#;

impl Table {
    fn add(&mut self, name: &str, bytes: impl AsRef<[u8]>, status: u16, code: &'static str) {
        self.0.push(Row { name: name.to_owned(), bytes: bytes.as_ref().to_vec(), status, code });
    }

    /// Adds a row for each of these texts, which replace `{}`.
    fn each(&mut self, name: &str, parts: &[&str], template: &str, status: u16, code: &'static str) {
        for part in parts {
            self.add(&format!("{name} {part:?}"), template.replace("{}", part), status, code);
        }
    }
}

/// A POST of a job with further header lines, which must contain the framing.
fn post(headers: &str, body: &str) -> String {
    format!("POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n{body}")
}

/// A well-framed POST of a job with further header lines.
fn framed(headers: &str) -> String {
    post(&format!("Content-Length: {}\r\n{headers}", JOB.len()), JOB)
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Lengths and codings of bodies.
fn framing(table: &mut Table) {
    let whole = format!("{:x}\r\n{JOB}\r\n0\r\n\r\n", JOB.len());
    for length in ["1048577", "1000000000000", "9223372036854775807", "18446744073709551615"] {
        table.add(
            "a length over the limit",
            post(&format!("Content-Length: {length}\r\n"), ""),
            413,
            "body_too_large",
        );
        let get = format!("GET /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        table.add("a GET with a length over the limit", get, 413, "body_too_large");
    }
    let length = "Content-Length: 99999999999999999999999\r\n";
    table.add("a length beyond 64 bits", post(length, JOB), 413, "body_too_large");
    let lengths = ["-1", "+32", "0x20", "32, 32", "32,32", "", "3 2", "32.0", "32;", "five"];
    table.each("the length", &lengths, &post("Content-Length: {}\r\n", JOB), 400, "bad_request");
    table.add(
        "a length in Arabic digits",
        post("Content-Length: \u{663}\u{662}\r\n", JOB),
        400,
        "invalid_header",
    );
    let two = "Content-Length: 32\r\nContent-Length: 31\r\n";
    table.add("two lengths", post(two, JOB), 400, "bad_request");
    let twice = "Content-Length: 32\r\ncontent-length: 32\r\n";
    table.add("the same length twice", post(twice, JOB), 400, "bad_request");
    let smuggled = format!("0\r\n\r\n{}", framed(""));
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    table.add("length and chunked", post(both, &smuggled), 400, "bad_request");
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n";
    table.add("chunked and length", post(both, &whole), 400, "bad_request");
    let both = "Content-Length: 32\r\nTransfer-Encoding: identity\r\n";
    table.add("length and identity", post(both, JOB), 400, "bad_request");

    let codings = [
        "gzip",
        "identity",
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "",
    ];
    let template = post("Transfer-Encoding: {}\r\n", &whole);
    table.each("the coding", &codings, &template, 501, "unknown_transfer_encoding");
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    table.add("chunked twice", post(twice, &whole), 501, "unknown_transfer_encoding");
    table.add(
        "a space before the colon",
        post("Transfer-Encoding : chunked\r\n", &whole),
        400,
        "bad_request",
    );
    table.add(
        "a control byte before the coding",
        post("Transfer-Encoding: \x0bchunked\r\n", &whole),
        400,
        "invalid_header",
    );
    let old = format!("POST /jobs HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{whole}");
    table.add("chunked in HTTP/1.0", old, 400, "bad_request");

    let sizes = [
        "zz\r\n",
        "-3\r\nabc\r\n",
        "+3\r\nabc\r\n",
        "0x3\r\nabc\r\n",
        " 3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        ";ext\r\n",
        "00000000000000003\r\nabc\r\n",
        "10000000000000000\r\n",
        "3\nabc\r\n",
        "3\rabc\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a\x01\r\nabc\r\n",
        "0\r\n folded: x\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "\r\n",
    ];
    table.each("the chunk", &sizes, &chunked("{}"), 400, "bad_request");
    let long = "e".repeat(9000);
    table.add("a long chunk extension", chunked(&format!("1;{long}\r\na\r\n0\r\n\r\n")), 400, "bad_request");
    table.add("a long trailer", chunked(&format!("0\r\nT: {long}\r\n\r\n")), 400, "bad_request");
    table.add("a chunk of 2^64 - 1 bytes", chunked("FFFFFFFFFFFFFFFF\r\n"), 413, "body_too_large");
    table.add("a chunk over the limit", chunked("100001\r\n"), 413, "body_too_large");
    let half = "x".repeat(0x80000);
    table.add(
        "chunks over the limit",
        chunked(&format!("80000\r\n{half}\r\n80001\r\n")),
        413,
        "body_too_large",
    );
}

/// Rows about heads: size, lines, request line.
fn heads(table: &mut Table) {
    let long = "x".repeat(17_000);
    let huge = "x".repeat(1 << 20);
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: v\r\n")).collect::<String>();
    table.add("a target of 17,000 bytes", get(&format!("/{long}")), 431, "headers_too_large");
    table.add("a header of 17,000 bytes", framed(&format!("X: {long}\r\n")), 431, "headers_too_large");
    table.add("a header name of 17,000 bytes", framed(&format!("{long}: x\r\n")), 431, "headers_too_large");
    table.add("a header of 1 MiB without end", post(&format!("X: {huge}"), ""), 431, "headers_too_large");
    table.add("1 MiB without a line", &huge, 431, "headers_too_large");
    table.add("10,000 headers", framed(&many(10_000)), 431, "headers_too_large");
    table.add("5,000 headers of 4 bytes", framed(&"a:\r\n".repeat(5_000)), 431, "headers_too_large");

    let lines = [
        "NoColon",
        "Space : before",
        ": no name",
        " folded",
        "\tfolded",
        "A: b\r\n folded",
        "B@d: x",
        "A b: c",
    ];
    table.each("the line", &lines, &framed("{}\r\n"), 400, "bad_request");
    let values = ["nul\0", "bell\x07", "escape\x1b[31m", "delete\x7f"];
    table.each("the value", &values, &framed("X: {}\r\n"), 400, "invalid_header");
    table.add("a name that is not ASCII", framed("Caf\u{e9}: x\r\n"), 400, "bad_request");
    // The headers that the gate or the API reads.
    let lines = [
        "Host: localhost\u{e9}",
        "Origin: http://\u{1f4a3}",
        "Authorization: Bearer \u{e9}",
        "Content-Encoding: gz\u{ef}p",
        "Idempotency-Key: schl\u{fc}ssel",
        "Transfer-Encoding: ch\u{fc}nked",
        "Connection: cl\u{f6}se",
        "Expect: 100-c\u{f6}ntinue",
    ];
    table.each("the line", &lines, &framed("{}\r\n"), 400, "invalid_header");
    let breaks = ["cr\rlf", "lf\nX: y", "crcr\r\r\nX: y"];
    table.each("the value", &breaks, &framed("X: {}\r\n"), 400, "bad_request");
    table.add(
        "a value in Latin-1",
        b"GET /stats HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff\r\n\r\n",
        400,
        "invalid_header",
    );
    table.add("bare line feeds", "GET /stats HTTP/1.1\nHost: localhost\n\n", 400, "bad_request");
    table.add("one bare line feed", "GET /stats HTTP/1.1\r\nHost: localhost\n\r\n", 400, "bad_request");
    table.add("bare carriage returns", "GET /stats HTTP/1.1\rHost: localhost\r\r", 400, "bad_request");
    table.add(
        "a head that ends in a bare line feed",
        "GET /stats HTTP/1.1\r\nHost: localhost\r\n\n",
        400,
        "bad_request",
    );
    table.add("three empty lines before", format!("\r\n\r\n\r\n{}", get("/stats")), 400, "bad_request");
    table.add("a bare line feed before", format!("\n{}", get("/stats")), 400, "bad_request");

    let lines = [
        "GET /stats",
        "GET /stats ",
        "GET",
        "GET  /stats HTTP/1.1",
        "GET /stats  HTTP/1.1",
        "GET /stats x HTTP/1.1",
        "GET /stats http/1.1",
        "GET /stats HTTP/1.1 ",
        " GET /stats HTTP/1.1",
        "GET /stats HTTP/11",
        "GET /stats HTTP/1",
        "GET /stats HTTP/1.10",
        "GET /stats HTTX/1.1",
        "GET\t/stats\tHTTP/1.1",
        "GET /stats\0 HTTP/1.1",
        "GET /\u{fc} HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "G\0T /stats HTTP/1.1",
        "G(T /stats HTTP/1.1",
        "/stats HTTP/1.1",
        "GET https://localhost/stats HTTP/1.1",
        "GET ftp://localhost/stats HTTP/1.1",
        "GET http:///stats HTTP/1.1",
        "GET http://:80/stats HTTP/1.1",
        "GET http://me@localhost/stats HTTP/1.1",
        "GET http://localhost:99999/stats HTTP/1.1",
        "GET http://localhost:8o80/stats HTTP/1.1",
        "GET http://[::1/stats HTTP/1.1",
        "GET http:/stats HTTP/1.1",
        "GET localhost:80 HTTP/1.1",
        "GET stats HTTP/1.1",
        "GET * HTTP/1.1",
        "POST * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET  HTTP/1.1",
        "HTTP/1.1 200 OK",
    ];
    table.each("the request line", &lines, "{}\r\nHost: localhost\r\n\r\n", 400, "bad_request");
    let tunnel = "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    table.add("a tunnel", tunnel, 405, "method_not_allowed");
    table.add("a target in Latin-1", b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request");
    let versions = ["0.9", "1.2", "2.0", "3.0", "9.9"];
    let template = "GET /stats HTTP/{}\r\nHost: localhost\r\n\r\n";
    table.each("the version", &versions, template, 505, "unknown_http_version");
    table.add("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unknown_http_version");
    table.add("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request");
    table.add("an SSH greeting", "SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, "bad_request");
    table.add("a command of Redis", "*1\r\n$4\r\nPING\r\n\r\n", 400, "bad_request");
    table.add("5,000 zeros", [0; 5000], 400, "bad_request");
}

/// Rows about the `Host` of a request, and about the site whose page made a browser send it.
fn sites(table: &mut Table) {
    table.add("no Host", "GET /stats HTTP/1.1\r\n\r\n", 400, "bad_request");
    let two = "GET /stats HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
    table.add("two Hosts", two, 400, "bad_request");
    table.add("two Hosts in HTTP/1.0", two.replace("1.1", "1.0"), 400, "bad_request");
    let hosts = [
        "evil.example",
        "localhost.evil.example",
        "evil.example:8080",
        "127.0.0.1@evil.example",
        "127.0.0.1.evil.example",
        "localhost:evil",
        "0x7f.1",
        "[::1",
        "[evil.example]",
        "localhost evil.example",
        "a,localhost",
        "threadq",
        "threadq.default.svc.cluster.local:8080",
        "EVIL.EXAMPLE.",
        "",
    ];
    let template = "GET /stats HTTP/1.1\r\nHost: {}\r\n\r\n";
    table.each("the Host", &hosts, template, 403, "forbidden_host");
    let hosts = ["evil.example", "evil.example:80", "localhost.evil.example", "threadq", "2130706433"];
    let template = "GET http://{}/stats HTTP/1.1\r\nHost: localhost\r\n\r\n";
    table.each("the host of the URL", &hosts, template, 403, "forbidden_host");
    let hostless = "GET http://localhost/stats HTTP/1.1\r\n\r\n";
    table.add("a URL, but no Host", hostless, 400, "bad_request");
    let origin = framed("Origin: http://localhost\r\n").replace("/jobs", "http://127.0.0.1/jobs");
    table.add("the Origin is the Host, but not the URL", origin, 403, "forbidden_origin");
    let origins =
        ["http://evil.example", "null", "https://localhost.evil.example", "http://127.0.0.1:1", "localhost"];
    table.each("the Origin", &origins, &framed("Origin: {}\r\n"), 403, "forbidden_origin");
    table.add("another expectation", framed("Expect: pizza\r\n"), 417, "expectation_failed");
    let expects = "Expect: 100-continue\r\nContent-Length: 1048577\r\n";
    table.add("an expectation of too much", post(expects, ""), 413, "body_too_large");
    table.add("the gate's own path", get("/-/hello"), 404, "not_found");
    table.add("the gate's own path in a URL", get("http://localhost/-/hello"), 404, "not_found");
}

/// Rows of well-formed HTTP for unknown paths, methods and parameters.
fn routes(table: &mut Table) {
    let paths = [
        "//jobs",
        "/jobs/",
        "/jobs//cancel",
        "/jobs/../stats",
        "/jobs/%2e%2e/stats",
        "/stats/",
        "/Stats",
        "/jobs;x=1",
        "/jobs#x",
        "/%6Aobs",
        "/jobs%2f1",
        "/jobs/1/cancel/",
        "/../../etc/passwd",
        "/.git/config",
        "/\\jobs",
        "/-/hello/",
        "/-/hello?",
        "/queues/",
        "/index.php",
    ];
    table.each("the path", &paths, &get("{}"), 404, "not_found");
    let ids = ["..", "%", "%zz", "1;2", "1%00", "\u{7e}", "0x10", "1_000", "1,000", "NaN", "{threadq}:job:1"];
    table.each("the id", &ids, &get("/jobs/{}"), 400, "invalid_id");
    let queries = [
        "page=1&page=1",
        "page",
        "page=%2B1",
        "page=+1",
        "page=1%00",
        "page=0x1",
        "limit=1e1",
        "=1",
        "status=queued&status=failed",
        "type=a&type=b",
        "%70age=0",
        "a[]=1",
    ];
    table.each("the query", &queries, &get("/jobs?{}"), 400, "invalid_query");
    let methods = ["get", "FOO", "TRACE", "OPTIONS", "PROPFIND", "M-SEARCH", "!#$%&'*+-.^_`|~"];
    let template = "{} /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n";
    table.each("the method", &methods, template, 405, "method_not_allowed");
    table.add("two keys", framed("Idempotency-Key: a\r\nIdempotency-Key: b\r\n"), 400, "invalid_header");
    table.add("two types", framed("Content-Type: text/plain\r\n"), 400, "invalid_header");
    let bodies = [
        "\u{feff}{}",
        "{\"type\":\"\\x41\"}",
        "// x\n{}",
        "{type:1}",
        "[1,]",
        "+1",
        "0x1",
        "1 2",
        "\"\t\"",
        "\u{b}1",
    ];
    for body in bodies {
        let length = format!("Content-Length: {}\r\n", body.len());
        table.add(&format!("the body {body:?}"), post(&length, body), 400, "invalid_json");
    }
    for surrogate in [r"\ud800", r"\udc00\ud800", r"\ud800x"] {
        let body = format!(r#"{{"type":"{surrogate}"}}"#);
        let length = format!("Content-Length: {}\r\n", body.len());
        table.add(&format!("half a character {surrogate}"), post(&length, &body), 400, "invalid_job");
    }
}

fn table() -> Vec<Row> {
    let mut table = Table::default();
    framing(&mut table);
    heads(&mut table);
    sites(&mut table);
    routes(&mut table);
    table.0
}

/// Requests that are never completed. They are sent before all others, and checked at the end.
fn unfinished() -> Vec<(&'static str, String)> {
    vec![
        ("a body that does not come", post("Content-Length: 70000\r\n", "")),
        ("a body that lacks one byte", post("Content-Length: 33\r\n", JOB)),
        ("a chunk that lacks two bytes", chunked("5\r\n{\"t")),
        ("a head without its end", "GET /stats HTTP/1.1\r\nHost: localhost\r\n".to_owned()),
        ("half a word", "GE".to_owned()),
        ("half an empty line", "\r".to_owned()),
    ]
}

fn send(server: &TestServer, bytes: &[u8]) -> http::Connection {
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    // The server may have refused the request before all of it was sent.
    let _ = connection.send_raw(bytes);
    connection
}

#[test]
fn each_hostile_request_gets_its_answer_and_others_are_served_on() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let slow: Vec<_> =
        unfinished().into_iter().map(|(name, raw)| (name, send(&server, raw.as_bytes()))).collect();
    let mut friend = http::Connection::open(server.addr()).expect("connects");
    let mut serve_friend = |after: &str| {
        let reply =
            friend.request("GET", "/stats", &[], None).unwrap_or_else(|e| panic!("after {after}: {e}"));
        assert_eq!(reply.status, 200, "after {after}");
        let counts = reply.json()["counts"].clone();
        assert_eq!(counts["queued"], 0, "{after} has submitted a job");
    };
    let rows = table();
    assert!(rows.len() > 200, "{}", rows.len());
    let mut wrong = Vec::new();
    for Row { name, bytes, status, code } in rows {
        let mut connection = send(&server, &bytes);
        let reply = match connection.receive(false) {
            Ok(reply) => reply,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let word = if reply.body.is_empty() { Value::Null } else { reply.json()["code"].clone() };
        if (reply.status, word.as_str().unwrap_or_default()) != (status, code) {
            wrong.push(format!("{name}: {} {word} in place of {status} {code}", reply.status));
        }
        // After a malformed request its end is unknown.
        if reply.header("Connection") == Some("close") {
            assert_eq!(connection.read_to_close().expect("closed"), b"", "{name}: more than one answer");
        }
        serve_friend(&name);
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    for (name, mut connection) in slow {
        let reply = connection.receive(false).unwrap_or_else(|e| panic!("{name}: {e}"));
        reply.expect_error(408, "request_timeout", name);
        serve_friend(name);
    }
}

#[test]
fn what_is_odd_but_allowed_is_served() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: v\r\n")).collect::<String>();
    let with = |headers: &str| format!("GET /stats HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let at = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    for raw in [
        with(&many(63)),
        with(&many(65)),
        with(&many(1_000)),
        with(&"a:\r\n".repeat(4_000)),
        with("User-Agent: M\u{fc}ller\r\nCookie: \u{1f36a}\r\nTE: \u{e9}\r\n"),
        at("http://localhost/stats"),
        at("HTTP://LOCALHOST:8080/stats"),
        at("http://127.0.0.1:1/stats"),
        at("http://[::1]/stats?"),
        "GET http://localhost/stats HTTP/1.0\r\n\r\n".to_owned(),
        with("X:\r\nX:\t v \t\r\nY: a\tb:c\r\n"),
        with("!#$%&'*+-.^_`|~09: v\r\n"),
        with("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 2\r\n") + "{}",
        with("Gate-Client: 1\r\nGate-Client: x\r\n"),
        format!("\r\n\r\n{}", with("")),
        "GET /stats HTTP/1.0\r\n\r\n".to_owned(),
    ] {
        let reply = send(&server, raw.as_bytes()).receive(false);
        assert_eq!(reply.unwrap_or_else(|e| panic!("{raw:?}: {e}")).status, 200, "{raw:?}");
    }
}

#[test]
fn a_value_in_latin_1_that_nobody_reads_is_passed_over() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut raw =
        b"GET /stats HTTP/1.1\r\nHost: localhost\r\nUser-Agent: M\xfcller \xff\x80\r\n\r\n".to_vec();
    assert_eq!(send(&server, &raw).receive(false).expect("an answer").status, 200);
    raw = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    raw.extend_from_slice(format!("{:x}\r\n{JOB}\r\n0\r\n", JOB.len()).as_bytes());
    raw.extend_from_slice(b"X-Author: M\xfcller\r\n\r\n");
    assert_eq!(send(&server, &raw).receive(false).expect("an answer").status, 202);
}

#[test]
fn a_url_as_target_does_what_its_path_does() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    let post =
        framed("").replace("/jobs", "http://127.0.0.1/jobs").replace("Host: localhost", "Host: evil.example");
    connection.send_raw(post.as_bytes()).expect("sent");
    let reply = connection.receive(false).expect("an answer").expect(202);
    let id = reply.json()["job_id"].clone();
    assert_eq!(reply.header("Location"), Some(&*format!("/jobs/{id}")));
    // The next request on the same connection is still in step.
    let list = "GET http://localhost?x=1 HTTP/1.1\r\nHost: h\r\n\r\n\
                GET http://localhost/jobs?limit=5 HTTP/1.1\r\nHost: h\r\n\r\n";
    connection.send_raw(list.as_bytes()).expect("sent");
    connection.receive(false).expect("an answer").expect_error(
        400,
        "invalid_query",
        "the dashboard has no query",
    );
    assert_eq!(connection.receive(false).expect("an answer").expect(200).json()["jobs"][0]["id"], id);
    let same_site = framed("Origin: http://127.0.0.1:80\r\n").replace("/jobs", "http://127.0.0.1/jobs");
    connection.send_raw(same_site.replace(":80\r\n", "\r\n").as_bytes()).expect("sent");
    connection.receive(false).expect("an answer").expect(202);
}

#[test]
fn a_question_about_the_whole_server_is_answered_without_a_body() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    for target in ["*", "http://localhost"] {
        let options = format!("OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.send_raw(options.as_bytes()).expect("sent");
        let reply = connection.receive(false).expect("an answer");
        assert_eq!(
            (reply.status, reply.header("Allow")),
            (204, Some("GET, HEAD, POST, PUT, PATCH, DELETE")),
            "{target}"
        );
    }
    connection.request("GET", "/healthz", &[], None).expect("an answer").expect(200);
}
