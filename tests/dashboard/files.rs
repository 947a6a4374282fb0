//! The files of the dashboard: they are small, hold no data, and have a policy that keeps the browser from running
//! other code.

use super::common::*;

const FILES: [(&str, &str); 4] = [
    ("/", "text/html; charset=utf-8"),
    ("/ui/app.js", "text/javascript; charset=utf-8"),
    ("/ui/style.css", "text/css; charset=utf-8"),
    ("/ui/icon.svg", "image/svg+xml"),
];

/// All files: those above, and the modules that these import.
fn all_files(server: &TestServer) -> Vec<(String, &'static str)> {
    let mut files: Vec<(String, &str)> = FILES.map(|(path, kind)| (path.to_owned(), kind)).into();
    let mut at = 0;
    while let Some((path, kind)) = files.get(at).cloned() {
        at += 1;
        let text = server.get(&path).expect(200).text();
        for part in text.split(" from \"./").skip(1) {
            let imported = format!("/ui/{}", part.split('"').next().expect("a name"));
            if files.iter().all(|(known, _)| *known != imported) {
                files.push((imported, kind));
            }
        }
    }
    assert!(files.len() >= 12, "{files:?}");
    files
}

#[test]
fn its_files_are_small_and_need_nothing_from_elsewhere() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut size = 0;
    for (path, kind) in all_files(&server) {
        let reply = server.get(&path).expect(200);
        assert_eq!(reply.header("Content-Type"), Some(kind), "{path}");
        let policy = reply.header("Content-Security-Policy").unwrap_or_else(|| panic!("{path}: no policy"));
        for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.split("; ").any(|given| given == rule), "{path}: {rule}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = reply.text();
        size += text.len();
        for part in text.split("http").skip(1) {
            // The names of XML's languages are no places to load from.
            let is_name = part.starts_with("://www.w3.org/2000/svg");
            assert!(
                is_name || !(part.starts_with("://") || part.starts_with("s://")),
                "{path}: http{part:.60}"
            );
        }
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "<style",
            " style=",
            "onclick=",
        ] {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
        for script in text.split("<script").skip(1) {
            assert!(script.starts_with(" src=\"/ui/"), "{path}: an inline script: {script:.60}");
        }
    }
    // A tab that is opened loads all files: in one second, if the line carries 1 Mbit/s.
    assert!(size < 125_000, "{size} bytes");
}

#[test]
fn it_is_there_without_the_token_that_its_data_needs() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("api-token", "s3cret-t0ken").start();
    for (path, _) in FILES {
        server.get(path).expect(200);
    }
    server.get("/ui/other").expect_error(404, "not_found", "a file that does not exist");
    for path in ["/stats", "/stats/history", "/jobs", "/dlq", "/queues", "/ui"] {
        server.get(path).expect_error(401, "unauthorized", path);
    }
}
