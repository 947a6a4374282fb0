//! `threadq health`: a liveness or readiness probe as a program, such as for HEALTHCHECK of the image.

use std::process::ExitCode;

use serde::Deserialize;

use crate::cli::args::{Args, Command, Flag, Run};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::terminal::console::Console;

pub(crate) static HEALTH: Command = Command {
    name: "health",
    operands: "",
    about: "Checks whether the server is live. Needs no token.\n\
            Exit code 0 if the server is live, else 1. With --ready: whether jobs can be submitted and taken,\n\
            which needs Redis too. Without --server and THREADQ_SERVER, the address comes from THREADQ_LISTEN\n\
            or PORT, as for serve.",
    flags: &[Flag { name: "ready", value: "", help: "request GET /readyz instead of GET /healthz" }],
    examples: &["health", "health --ready --server http://127.0.0.1:9000"],
    run: Run::Probe(health),
};

/// The response to GET /healthz and GET /readyz.
#[derive(Deserialize)]
struct Health {
    status: String,
}

fn health(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    args.no_operands()?;
    let path = if args.has("ready") { "/readyz" } else { "/healthz" };
    let health: Health = client.get(path)?.parse()?;
    console.print(&format!("{}\n", health.status))
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, run, run_with_env};

    #[test]
    fn a_live_server_is_checked_without_a_token() {
        let server = FakeServer::start(&[(200, r#"{"status": "ok"}"#), (200, r#"{"status": "ready"}"#)]);
        // A token that cannot be read must not make the check fail.
        let env = [
            ("THREADQ_SERVER", &*server.url),
            ("THREADQ_API_TOKEN_FILE", "/no/such"),
            ("THREADQ_API_TOKEN", "x"),
        ];
        let done = run_with_env(&["health"], &env);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "ok\n", ""));
        let request = server.request();
        assert_eq!((request.line.as_str(), request.header("authorization")), ("GET /healthz", None));
        let done = run_with_env(&["health", "--ready"], &env);
        assert_eq!((done.code, done.out.as_str()), (0, "ready\n"));
        assert_eq!(server.request().line, "GET /readyz");
    }

    #[test]
    fn without_a_url_the_server_of_the_same_environment_is_checked() {
        let response = (200, r#"{"status": "ok"}"#);
        let server = FakeServer::start(&[response, response, response]);
        let port = server.url.rsplit(':').next().unwrap().to_owned();
        let everywhere = format!("0.0.0.0:{port}");
        assert_eq!(run_with_env(&["health"], &[("THREADQ_LISTEN", &*everywhere)]).code, 0);
        assert_eq!(run_with_env(&["health"], &[("PORT", &*port)]).code, 0);
        let named = [("THREADQ_SERVER", &*server.url), ("THREADQ_LISTEN", "127.0.0.1:1")];
        assert_eq!(run_with_env(&["health"], &named).code, 0);
        let wrong = run_with_env(&["health"], &[("PORT", "many")]);
        assert!(wrong.code == 2 && wrong.err.starts_with("threadq: PORT "), "{}", wrong.err);
    }

    #[test]
    fn a_server_that_is_unready_or_unreachable_is_a_failure() {
        let sick = r#"{"error": "Redis is away", "code": "store_unavailable"}"#;
        let server = FakeServer::start(&[(503, sick), (0, "")]);
        let done = server.run(&["health", "--ready"]);
        assert_eq!((done.code, done.out.as_str()), (1, ""));
        assert_eq!(done.err, "threadq: Redis is away (store_unavailable)\n");
        assert_eq!(server.run(&["health"]).code, 1);
        assert_eq!(run(&["health", "--server", &FakeServer::unused_url()]).code, 1);
        assert_eq!(run(&["health", "now"]).code, 2);
    }
}
