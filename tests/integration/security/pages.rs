//! Web pages of other sites, in a browser next to a server without a token.

use super::program::{Redis, Server};

fn server(redis: &Redis, env: &[(&str, &str)]) -> Server {
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let env: Vec<_> = env.iter().copied().chain([("THREADQ_REDIS_URL", url.as_str())]).collect();
    Server::start(&["--demo"], &env)
}

#[test]
fn a_rebound_name_reaches_nothing() {
    let redis = Redis::start(&[]);
    let server = server(&redis, &[]);
    for (method, path) in
        [("GET", "/jobs"), ("GET", "/"), ("POST", "/queues/default/pause"), ("GET", "/nothing")]
    {
        let (status, body) = server.raw(method, path, "Host: evil.example:8080\r\n", "");
        assert_eq!(status, 403, "{method} {path}: {body}");
        assert!(body.contains("\"forbidden_host\"") && body.contains("IP address or localhost"), "{body}");
    }
    let port = server.addr().rsplit(':').next().unwrap().to_owned();
    for host in
        [server.addr().to_owned(), format!("localhost:{port}"), "localhost".to_owned(), "[::1]:1".to_owned()]
    {
        let (status, body) = server.raw("GET", "/stats", &format!("Host: {host}\r\n"), "");
        assert_eq!(status, 200, "{host}: {body}");
    }
}

#[test]
fn a_page_from_elsewhere_changes_nothing() {
    let redis = Redis::start(&[]);
    let server = server(&redis, &[]);
    let paused = || server.json("GET", "/queues", "")["queues"][0]["paused"].as_bool().unwrap();
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let (status, body) =
            server.request("POST", "/queues/default/pause", &format!("Origin: {origin}\r\n"), "");
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("\"forbidden_origin\""), "{body}");
    }
    assert!(!paused());
    let own = format!("Origin: http://{}\r\n", server.addr());
    assert_eq!(server.request("POST", "/queues/default/pause", &own, "").0, 200);
    assert!(paused());
}

#[test]
fn with_a_token_names_and_pages_do_not_matter() {
    let redis = Redis::start(&[]);
    let server = server(&redis, &[("THREADQ_API_TOKEN", "t0ken")]);
    let headers = "Host: jobs.example\r\nOrigin: http://dash.example\r\n";
    assert_eq!(server.raw("POST", "/queues/default/pause", headers, "").0, 401);
    let headers = format!("{headers}Authorization: Bearer t0ken\r\n");
    assert_eq!(server.raw("POST", "/queues/default/pause", &headers, "").0, 200);
}
