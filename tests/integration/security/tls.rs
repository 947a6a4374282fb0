//! Redis over TLS: the server connects only with the right certificate authority.

use std::process::Command;

use super::program::{Redis, Server, threadq};
use crate::common::{LIMIT, TempDir, eventually};

/// Runs openssl in a folder.
fn openssl(folder: &TempDir, line: &str) {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(folder.path())
        .output()
        .expect("openssl is on PATH");
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate authority, and a certificate from it for this host.
fn make_certificates(folder: &TempDir, host: &str) {
    let openssl = |line: &str| openssl(folder, line);
    folder.secret("san", &format!("subjectAltName={host}\nbasicConstraints=CA:FALSE\n"));
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
    openssl("req -newkey rsa:2048 -nodes -keyout redis.key -out redis.csr -subj /CN=redis");
    openssl(
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out redis.pem",
    );
}

/// A Redis with these certificates that asks its clients for none.
fn redis_with_tls(folder: &TempDir) -> Redis {
    tls_redis(folder, &["--tls-auth-clients", "no"])
}

/// A Redis with these certificates and flags. By default it asks its clients for a certificate of the same authority.
fn tls_redis(folder: &TempDir, flags: &[&str]) -> Redis {
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path("redis.pem"), path("redis.key"), path("ca.pem"));
    let certificates = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let others = ["--tls-port", "{port}", "--port", "0", "--requirepass", "s3cret"];
    Redis::start(&[&certificates[..], &others[..], flags].concat())
}

#[test]
fn jobs_run_over_tls_and_only_with_a_server_that_is_who_it_should_be() {
    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1,DNS:localhost");
    let redis = redis_with_tls(&folder);
    let ca = folder.path().join("ca.pem").to_str().unwrap().to_owned();
    let url = format!("rediss://:s3cret@127.0.0.1:{}", redis.port);
    let env = [("THREADQ_REDIS_URL", url.as_str()), ("THREADQ_REDIS_CA_FILE", ca.as_str())];

    let server = Server::start(&["--demo"], &env);
    assert_eq!(server.run(r#"{"type": "echo", "payload": {"n": 1}}"#)["result"]["n"], 1);
    let (status, log) = server.stop();
    assert!(status.success() && !log.contains("ERROR"), "{log}");
    assert!(redis.cli(&["-a", "s3cret", "EXISTS", "{threadq}:last_id"]).contains('1'));

    // Without the authority, and with another one.
    let stranger = TempDir::new();
    make_certificates(&stranger, "IP:127.0.0.1");
    let other_ca = stranger.path().join("ca.pem").to_str().unwrap().to_owned();
    for env in [&env[..1], &[env[0], ("THREADQ_REDIS_CA_FILE", other_ca.as_str())]] {
        let server = Server::start(&["--demo"], env);
        eventually(LIMIT, "it does not trust this Redis", || {
            server.log().contains("invalid peer certificate")
        });
        assert_eq!(server.request("POST", "/jobs", "", r#"{"type": "echo"}"#).0, 503);
        let (_, log) = server.stop();
        assert!(!log.contains("s3cret"), "{log}");
    }

    // Plain text to a TLS port fails too, and the password is not shown.
    let plain = url.replace("rediss:", "redis:");
    let output = threadq(&["check", "--redis-url", &plain]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"));
}

/// Environment variables.
type Env<'a> = &'a [(&'a str, &'a str)];

/// The output of `check` for a Redis that cannot be reached, and the response of `/readyz` of a server with that Redis.
fn reasons(url: &str, more: Env) -> [String; 2] {
    let env = [&[("THREADQ_REDIS_URL", url)], more].concat();
    let output = threadq(&["check"]).envs(env.iter().copied()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{url}: {error}");
    assert_eq!(error.lines().count(), 1, "{url}: {error}");
    let server = Server::start(&[], &env);
    eventually(LIMIT, "it is not ready", || server.request("GET", "/readyz", "", "").0 == 503);
    [error, server.request("GET", "/readyz", "", "").1]
}

#[test]
fn the_reason_why_there_is_no_connection_is_told() {
    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1");
    let ca = folder.path().join("ca.pem").to_str().unwrap().to_owned();
    let (plain, secured) = (Redis::start(&["--requirepass", "s3cret"]), redis_with_tls(&folder));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let web_port = web.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Write;
        // Keep the connection open, so that no part of the response is lost.
        let mut open = Vec::new();
        for mut stream in web.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            open.push(stream);
        }
    });
    let (plain, secured) = (plain.port, secured.port);
    let trusted = [("THREADQ_REDIS_CA_FILE", ca.as_str())];
    let cases: &[(String, Env, &str)] = &[
        (format!("rediss://:s3cret@127.0.0.1:{plain}"), &trusted, "redis://"),
        (format!("redis://:s3cret@127.0.0.1:{secured}"), &[], "rediss://"),
        (format!("rediss://:s3cret@127.0.0.1:{secured}"), &[], "invalid peer certificate"),
        (format!("rediss://:wrong@127.0.0.1:{secured}"), &trusted, "refuses the login: WRONGPASS"),
        (format!("redis://:wrong@127.0.0.1:{plain}"), &[], "refuses the login: WRONGPASS"),
        (
            format!("redis://:s3cret@127.0.0.1:{plain}/99"),
            &[],
            "refuses the database: ERR DB index is out of range",
        ),
        ("redis://127.0.0.1:1".to_owned(), &[], "Connection refused"),
        ("redis://no-such-host.invalid".to_owned(), &[], "\"no-such-host.invalid\""),
        (format!("redis://127.0.0.1:{silent_port}"), &[], "no reply in time"),
        (format!("rediss://127.0.0.1:{silent_port}"), &[], "TLS handshake takes"),
        (format!("redis://127.0.0.1:{web_port}"), &[], "not a Redis"),
        (format!("rediss://127.0.0.1:{web_port}"), &[], "does not use TLS"),
        ("unix:///no/such/redis.sock".to_owned(), &[], "No such file"),
    ];
    for (url, more, part) in cases {
        for reason in reasons(url, more) {
            assert!(
                reason.contains(&part.replace('"', "\\\"")) || reason.contains(part),
                "{url}: {part}: {reason}"
            );
            assert!(!reason.contains("waiting for connection"), "{url}: {reason}");
            assert!(!reason.contains("s3cret") && !reason.contains("wrong@"), "{url}: {reason}");
        }
    }
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let folder = TempDir::new();
    make_certificates(&folder, "DNS:elsewhere.example");
    let redis = redis_with_tls(&folder);
    let ca = folder.path().join("ca.pem").to_str().unwrap().to_owned();
    let url = format!("rediss://:s3cret@localhost:{}", redis.port);
    let output = threadq(&["check", "--redis-ca-file", &ca]).env("REDIS_URL", url).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("not valid for name"), "{error}");
}

/// A TLS proxy with the certificate of a folder; it forwards to a backend, or responds to each request itself.
struct TlsServer {
    process: std::process::Child,
    port: u16,
}

impl TlsServer {
    /// `backend` is a port, or empty.
    fn start(folder: &TempDir, backend: &str) -> TlsServer {
        const SCRIPT: &str = r#"
import socket, ssl, sys, threading
folder, backend = sys.argv[1], sys.argv[2]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + '/redis.pem', folder + '/redis.key')
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
def carry(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    b.close()
def serve(plain):
    try:
        client = context.wrap_socket(plain, server_side=True)
        if not backend:
            data = b''
            while b'\r\n\r\n' not in data or data.count(b'{') != data.count(b'}') or not data.endswith(b'}'):
                data += client.recv(65536)
            client.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n"safe"')
            client.close()
            return
        server = socket.create_connection(('127.0.0.1', int(backend)))
        threading.Thread(target=carry, args=(server, client), daemon=True).start()
        carry(client, server)
    except OSError:
        plain.close()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;
        use std::io::{BufRead, BufReader};
        let mut process = Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(folder.path())
            .arg(backend)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("python3 is on PATH");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        TlsServer { process, port: line.trim().parse().unwrap() }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn one_file_of_authorities_is_for_every_connection() {
    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1");
    let ca = folder.path().join("ca.pem").to_str().unwrap().to_owned();
    let stranger = TempDir::new();
    make_certificates(&stranger, "IP:127.0.0.1");
    let other_ca = stranger.path().join("ca.pem").to_str().unwrap().to_owned();
    let redis = redis_with_tls(&folder);
    let url = format!("rediss://:s3cret@127.0.0.1:{}", redis.port);
    let web = TlsServer::start(&folder, "");
    let config = format!("[handlers.web]\nhttp = 'https://127.0.0.1:{}/'\nmax_attempts = 1\n", web.port);
    let config = folder.secret("threadq.toml", &config);
    let flags = ["--config", config.as_str()];
    let web_of = |server: &Server| server.run(r#"{"type": "web"}"#);

    // The authority by the setting, by the system's variable, and by the setting for Redis beside another one.
    for more in [
        &[("THREADQ_CA_FILE", ca.as_str())][..],
        &[("SSL_CERT_FILE", &ca)],
        &[("THREADQ_CA_FILE", &ca), ("SSL_CERT_FILE", &other_ca)],
    ] {
        let server = Server::start(&flags, &[&[("THREADQ_REDIS_URL", url.as_str())], more].concat());
        assert_eq!(web_of(&server)["result"], "safe", "{more:?}");
    }
    let env = [
        ("THREADQ_REDIS_URL", url.as_str()),
        ("THREADQ_REDIS_CA_FILE", ca.as_str()),
        ("THREADQ_CA_FILE", other_ca.as_str()),
    ];
    let server = Server::start(&flags, &env);
    let error = web_of(&server)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("certificate"), "{error}");

    // The command line, through a proxy with TLS.
    let proxy = TlsServer::start(&folder, &server.port().to_string());
    let https = format!("https://127.0.0.1:{}", proxy.port);
    let stats = |flags: &[&str], env: &[(&str, &str)]| {
        let words = [&["stats", "--server", &https], flags].concat();
        let output = threadq(&words).envs(env.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (flags, env) in [
        (&["--ca-file", ca.as_str()][..], &[("THREADQ_CA_FILE", other_ca.as_str())][..]),
        (&[], &[("THREADQ_CA_FILE", ca.as_str()), ("SSL_CERT_FILE", &other_ca)]),
        (&[], &[("SSL_CERT_FILE", &ca)]),
    ] {
        assert_eq!(stats(flags, env), (Some(0), String::new()), "{flags:?} {env:?}");
    }
    for flags in [&[][..], &["--ca-file", &other_ca]] {
        let (code, error) = stats(flags, &[]);
        assert!(code == Some(1) && error.contains("certificate"), "{error}");
    }
    let (code, error) = stats(&["--ca-file", "/no/such.pem"], &[]);
    assert!(code == Some(2) && error.contains("--ca-file") && error.contains("/no/such.pem"), "{error}");

    // A program's client.
    let authorities = threadq::config::Authorities::from_file(std::path::Path::new(&ca)).unwrap();
    let client = threadq::client::Client::new(&https).unwrap().retry_requests_for(std::time::Duration::ZERO);
    let job = threadq::client::Submission::new("web");
    assert!(client.submit(&job).unwrap_err().to_string().contains("certificate"));
    client.trusting(&authorities).submit(&job).unwrap();
}

#[test]
fn an_authority_that_is_none_is_refused_at_start() {
    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1");
    let right = folder.path().join("ca.pem").to_str().unwrap().to_owned();
    let no_pem = folder.secret("no.pem", "hello");
    let broken =
        folder.secret("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = folder.path().join("none").to_str().unwrap().to_owned();
    for (url, ca, part) in [
        ("rediss://h", &no_pem, "holds no certificate"),
        ("rediss://h", &broken, "holds a certificate that cannot be read, number 1"),
        ("rediss://h", &missing, "cannot be read"),
        ("redis://h", &right, "redis-url does not use TLS"),
    ] {
        let output = threadq(&["check", "--redis-ca-file", ca, "--redis-url", url]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("redis-ca-file") && error.contains(part), "{error}");
    }
}

/// A client's certificate from the authority of a folder, `NAME.pem` and `NAME.key` in this folder. `key` has the arguments
/// of openssl that make the key.
fn make_client(folder: &TempDir, name: &str, key: &str) {
    openssl(folder, &format!("{key} -out {name}.key"));
    openssl(folder, &format!("req -new -key {name}.key -out {name}.csr -subj /CN={name}"));
    openssl(
        folder,
        &format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem"),
    );
}

#[test]
fn a_redis_that_asks_for_a_certificate_gets_it() {
    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for flags in [&[][..], &["--tls-protocols", "TLSv1.2"]] {
        let redis = tls_redis(&folder, flags);
        let url = format!("rediss://:s3cret@127.0.0.1:{}", redis.port);
        let ca = path("ca.pem");
        let trusted = [("THREADQ_REDIS_CA_FILE", ca.as_str())];
        // RSA, ECDSA, Ed25519; in PKCS#8, in SEC1, and with key and certificate in one file.
        for (name, key) in [
            ("rsa", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
            ("ec", "ecparam -name prime256v1 -genkey"),
            ("ed", "genpkey -algorithm ED25519"),
        ] {
            make_client(&folder, name, key);
            let (cert, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
            let both = std::fs::read_to_string(&cert).unwrap() + &std::fs::read_to_string(&key).unwrap();
            let both = folder.secret("both.pem", &both);
            for (cert, key) in [(&cert, &key), (&both, &both)] {
                let env = [("THREADQ_REDIS_CERT_FILE", cert.as_str()), ("THREADQ_REDIS_KEY_FILE", key)];
                let output = threadq(&["check", "--redis-url", &url]);
                let output = { output }.envs(trusted).envs(env).output().unwrap();
                assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
            }
        }
        let (cert, key) = (path("ec.pem"), path("ec.key"));
        let flags = ["--demo", "--redis-cert-file", &cert, "--redis-key-file", &key];
        let server = Server::start(&flags, &[trusted[0], ("THREADQ_REDIS_URL", &url)]);
        assert_eq!(server.run(r#"{"type": "echo", "payload": 1}"#)["result"], 1);
        let output = threadq(&[&["doctor"][..], &flags[1..]].concat());
        let output = { output }.envs(trusted).env("REDIS_URL", &url).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");

        for reason in reasons(&url, &trusted) {
            assert!(reason.contains("redis-cert-file"), "{reason}");
        }
        let stranger = TempDir::new();
        make_certificates(&stranger, "IP:127.0.0.1");
        make_client(&stranger, "ec", "ecparam -name prime256v1 -genkey");
        let theirs = |name: &str| stranger.path().join(name).to_str().unwrap().to_owned();
        let (cert, key) = (theirs("ec.pem"), theirs("ec.key"));
        let env = [trusted[0], ("THREADQ_REDIS_CERT_FILE", &cert), ("THREADQ_REDIS_KEY_FILE", &key)];
        for reason in reasons(&url, &env) {
            assert!(reason.contains("redis-cert-file"), "{reason}");
        }
    }
}

#[test]
fn the_nodes_of_a_cluster_get_the_certificate_too() {
    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1");
    make_client(&folder, "one", "ecparam -name prime256v1 -genkey");
    let node = tls_redis(&folder, &["--cluster-enabled", "yes", "--tls-cluster", "yes"]);
    let reply = node.cli(&["-a", "s3cret", "--no-auth-warning", "CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    assert_eq!(reply.trim(), "OK");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("one.pem"), path("one.key"));
    let flags = ["--redis-ca-file", &ca, "--redis-cert-file", &cert, "--redis-key-file", &key];
    let url = format!("rediss+cluster://:s3cret@127.0.0.1:1,127.0.0.1:{}", node.port);
    let server = Server::start(&[&flags[..], &["--demo"]].concat(), &[("THREADQ_REDIS_URL", &url)]);
    eventually(LIMIT, "the Cluster is up", || server.request("GET", "/readyz", "", "").0 == 200);
    assert_eq!(server.run(r#"{"type": "echo", "payload": 1}"#)["result"], 1);
    for reason in reasons(&url, &[("THREADQ_REDIS_CA_FILE", &ca)]) {
        assert!(reason.contains("redis-cert-file"), "{reason}");
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_refused_at_start() {
    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1");
    make_client(&folder, "one", "ecparam -name prime256v1 -genkey");
    make_client(&folder, "two", "ecparam -name prime256v1 -genkey");
    openssl(&folder, "pkcs8 -topk8 -in one.key -out pkcs8.key -passout pass:s3cret");
    openssl(&folder, "ec -aes128 -in one.key -out sec1.key -passout pass:s3cret");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let cert = path("one.pem");
    let key = path("one.key");
    let damaged = |kind: &str| {
        let text = format!("-----BEGIN {kind}-----\nA*A\n-----END {kind}-----\n");
        folder.secret(&format!("{kind}.pem"), &text)
    };
    let (bad_cert, bad_key) = (damaged("CERTIFICATE"), damaged("PRIVATE KEY"));
    let (no_tls, tls) = ("redis://h", "rediss://h");
    for (url, cert, key, setting, part) in [
        (tls, Some(path("none")), Some(key.clone()), "redis-cert-file", "cannot be read"),
        (tls, Some(cert.clone()), Some(path("none")), "redis-key-file", "cannot be read"),
        (tls, Some(key.clone()), Some(key.clone()), "redis-cert-file", "holds no certificate"),
        (tls, Some(cert.clone()), Some(cert.clone()), "redis-key-file", "holds no private key"),
        (
            tls,
            Some(bad_cert),
            Some(key.clone()),
            "redis-cert-file",
            "holds a certificate that cannot be read",
        ),
        (tls, Some(cert.clone()), Some(bad_key), "redis-key-file", "private key that cannot be read"),
        (tls, Some(cert.clone()), Some(path("pkcs8.key")), "redis-key-file", "encrypted private key"),
        (tls, Some(cert.clone()), Some(path("sec1.key")), "redis-key-file", "encrypted private key"),
        (tls, Some(cert.clone()), Some(path("two.key")), "redis-key-file", "does not belong"),
        (tls, Some(cert.clone()), None, "redis-cert-file", "redis-key-file has none"),
        (tls, None, Some(key.clone()), "redis-key-file", "redis-cert-file has none"),
        (no_tls, Some(cert.clone()), Some(key.clone()), "redis-cert-file", "does not use TLS"),
        (no_tls, None, Some(key.clone()), "redis-key-file", "does not use TLS"),
    ] {
        let mut command = threadq(&["check", "--redis-url", url]);
        command.envs(cert.map(|file| ("THREADQ_REDIS_CERT_FILE", file)));
        command.envs(key.map(|file| ("THREADQ_REDIS_KEY_FILE", file)));
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(setting) && error.contains(part), "{part}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_key_file_that_other_users_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;

    let folder = TempDir::new();
    make_certificates(&folder, "IP:127.0.0.1");
    make_client(&folder, "one", "ecparam -name prime256v1 -genkey");
    let redis = tls_redis(&folder, &[]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("one.pem"), path("one.key"));
    for (mode, is_warned) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let url = format!("rediss://:s3cret@127.0.0.1:{}", redis.port);
        let flags = ["--redis-ca-file", &ca, "--redis-cert-file", &cert, "--redis-key-file", &key];
        let (status, log) = Server::start(&flags, &[("THREADQ_REDIS_URL", &url)]).stop();
        assert!(status.success(), "{log}");
        assert_eq!(log.contains("redis-key-file: other users can read the file"), is_warned, "{log}");
    }
}
