//! The compose files and the Kubernetes manifest name what exists: images, files, volumes, ports, paths, settings. The
//! Redis servers and Sentinels of `examples/sentinel` run on this machine with their own files and commands.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use yaml_rust2::{Yaml, YamlLoader};

use crate::common::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents of a YAML file, with merged keys (`<<`) in their places.
fn documents(file: &str) -> Vec<Yaml> {
    let text = std::fs::read_to_string(repository().join(file)).unwrap();
    let documents = YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    documents.into_iter().map(merged).collect()
}

fn merged(node: Yaml) -> Yaml {
    match node {
        Yaml::Array(items) => Yaml::Array(items.into_iter().map(merged).collect()),
        Yaml::Hash(entries) => {
            let mut all = yaml_rust2::yaml::Hash::new();
            for (key, value) in entries {
                match (key.as_str(), merged(value)) {
                    (Some("<<"), Yaml::Hash(more)) => all.extend(more),
                    (_, value) => drop(all.insert(key, value)),
                }
            }
            Yaml::Hash(all)
        }
        node => node,
    }
}

/// The number of seconds of a text such as `25s`.
fn seconds(duration: &str) -> i64 {
    duration.strip_suffix('s').and_then(|number| number.parse().ok()).expect("a number of seconds")
}

fn text(node: &Yaml) -> &str {
    node.as_str().unwrap_or_else(|| panic!("a text: {node:?}"))
}

fn texts(node: &Yaml) -> Vec<&str> {
    node.as_vec().unwrap_or_else(|| panic!("a list: {node:?}")).iter().map(text).collect()
}

/// The entries of a mapping; none if the node is missing.
fn entries(node: &Yaml) -> Vec<(&str, &Yaml)> {
    node.as_hash().into_iter().flatten().map(|(key, value)| (text(key), value)).collect()
}

fn assert_keys(node: &Yaml, allowed: &[&str], what: &str) {
    for (key, _) in entries(node) {
        assert!(allowed.contains(&key), "{what}: the key {key:?} is none of {allowed:?}");
    }
}

/// Asserts that `threadq check` accepts these variables as settings, each by its name and its value.
fn assert_settings(env: &BTreeMap<String, String>, what: &str) {
    let reference = std::fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    let master = node::Node::new("");
    master.start();
    let replica = node::Node::new(&format!("replicaof 127.0.0.1 {}", master.port()));
    replica.start();
    eventually(LIMIT, "the replica is in sync", || replica.is_replica_in_sync());
    let mut builder = TestServer::builder().without_demo().without_listen();
    for (name, value) in env {
        assert!(
            reference.contains(&format!("- variable: `{name}`")),
            "{what}: no setting has the variable {name}"
        );
        let value = if name == "THREADQ_REDIS_URL" { master.url() } else { value.clone() };
        builder = builder.env(name, &value);
    }
    let checked = builder.run("check");
    assert_eq!(checked.code, Some(0), "{what}: {checked:?}");
}

/// The environment of a service. A variable without a value comes from the user's environment.
fn environment(service: &Yaml) -> BTreeMap<String, String> {
    let pairs = entries(&service["environment"]).into_iter();
    pairs
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), text(value).to_owned()))
        .collect()
}

#[test]
fn the_compose_files_name_what_exists() {
    for file in ["compose.yaml", "examples/sentinel/compose.yaml"] {
        let [compose] = &documents(file)[..] else { panic!("{file} is one document") };
        let folder = repository().join(file).parent().unwrap().to_owned();
        let declared: Vec<&str> = entries(&compose["volumes"]).into_iter().map(|(name, _)| name).collect();
        let services = entries(&compose["services"]);
        let is_service = |name: &str| services.iter().any(|(other, _)| *other == name);
        let (mut used, mut published) = (Vec::new(), Vec::new());
        for (name, service) in &services {
            let what = format!("{file}: {name}");
            let allowed = [
                "image",
                "build",
                "user",
                "init",
                "restart",
                "depends_on",
                "environment",
                "ports",
                "command",
                "volumes",
                "healthcheck",
                "stop_grace_period",
            ];
            assert_keys(service, &allowed, &what);
            assert!(service["image"].is_badvalue() != service["build"].is_badvalue(), "{what}");
            if let Some(context) = service["build"].as_str() {
                assert!(folder.join(context).join("Dockerfile").is_file(), "{what}: {context}");
            } else {
                assert_eq!(text(&service["image"]), "redis:7-alpine", "{what}");
            }
            let needed: Vec<&str> = match &service["depends_on"] {
                Yaml::Array(_) => texts(&service["depends_on"]),
                mapping => entries(mapping).into_iter().map(|(name, _)| name).collect(),
            };
            assert!(needed.iter().all(|needed| is_service(needed)), "{what}: {needed:?}");
            for (needed, how) in entries(&service["depends_on"]) {
                let dependency = services.iter().find(|(name, _)| *name == needed).unwrap().1;
                if text(&how["condition"]) == "service_healthy" {
                    assert!(!dependency["healthcheck"].is_badvalue(), "{what}: {needed} has no check");
                }
            }
            assert_keys(
                &service["healthcheck"],
                &["test", "interval", "timeout", "retries", "start_period"],
                &what,
            );
            for volume in service["volumes"].as_vec().into_iter().flatten().map(text) {
                let (source, rest) = volume.split_once(':').unwrap();
                assert!(rest.starts_with('/'), "{what}: {volume}");
                if source.starts_with('.') {
                    assert!(folder.join(source).exists(), "{what}: {volume}");
                } else {
                    assert!(declared.contains(&source), "{what}: {volume}");
                    used.push(source);
                }
            }
            for port in service["ports"].as_vec().into_iter().flatten().map(text) {
                let (outside, inside) = port.rsplit_once(':').unwrap();
                assert_eq!(inside, listening_port_of_the_image(), "{what}");
                assert!(outside.starts_with("127.0.0.1:"), "{what}: {port} is open to other machines");
                published.push(outside);
            }
            if !service["build"].is_badvalue() {
                let env = environment(service);
                let drain = seconds(&env["THREADQ_DRAIN_TIMEOUT"]);
                let grace = seconds(text(&service["stop_grace_period"]));
                assert!(grace > drain + 5, "{what}: {grace:?}");
                assert_settings(&env, &what);
            }
        }
        let is_once = |name: &&str| used.iter().filter(|used| used == &name).count() == 1;
        assert!(declared.iter().all(is_once), "{file}: {declared:?} {used:?}");
        published.sort_unstable();
        published.dedup();
        let servers = services.iter().filter(|(_, service)| !service["build"].is_badvalue()).count();
        assert_eq!(published.len(), servers, "{file}: {published:?}");
    }
}

fn dockerfile() -> String {
    std::fs::read_to_string(repository().join("Dockerfile")).unwrap()
}

fn listening_port_of_the_image() -> String {
    let port = dockerfile().lines().find_map(|line| line.strip_prefix("EXPOSE ").map(str::to_owned)).unwrap();
    assert!(dockerfile().contains(&format!("THREADQ_LISTEN=0.0.0.0:{port}")));
    port
}

#[test]
fn the_kubernetes_manifest_names_what_exists() {
    let file = "examples/kubernetes/threadq.yaml";
    let documents = documents(file);
    let of_kind = |kind: &str, version: &str| {
        let found = documents.iter().find(|document| document["kind"].as_str() == Some(kind)).unwrap();
        assert_eq!(text(&found["apiVersion"]), version);
        assert_keys(found, &["apiVersion", "kind", "metadata", "spec", "stringData"], kind);
        found
    };
    assert_eq!(documents.len(), 3);
    let secret = of_kind("Secret", "v1");
    let service = &of_kind("Service", "v1")["spec"];
    let deployment = &of_kind("Deployment", "apps/v1")["spec"];
    let template = &deployment["template"];
    let labels = entries(&template["metadata"]["labels"]);
    assert_eq!(entries(&deployment["selector"]["matchLabels"]), labels);
    assert_eq!(entries(&service["selector"]), labels);
    assert!(deployment["replicas"].as_i64().unwrap() >= 2);
    let pod = &template["spec"];
    assert_keys(pod, &["terminationGracePeriodSeconds", "securityContext", "containers"], file);
    let user = pod["securityContext"]["runAsUser"].as_i64().unwrap();
    assert!(dockerfile().contains(&format!("--uid {user} ")), "the image has no user {user}");
    let [container] = &pod["containers"].as_vec().unwrap()[..] else { panic!("one container") };
    let allowed =
        ["name", "image", "ports", "env", "readinessProbe", "livenessProbe", "resources", "securityContext"];
    assert_keys(container, &allowed, file);
    assert_eq!(text(&container["image"]), format!("threadq:{}", env!("CARGO_PKG_VERSION")));

    let [port] = &container["ports"].as_vec().unwrap()[..] else { panic!("one port") };
    let number = port["containerPort"].as_i64().unwrap();
    assert_eq!(number.to_string(), listening_port_of_the_image());
    let [outside] = &service["ports"].as_vec().unwrap()[..] else { panic!("one port") };
    assert_eq!(text(&outside["targetPort"]), text(&port["name"]));

    let mut env = BTreeMap::new();
    for variable in container["env"].as_vec().unwrap() {
        let secret_value = &variable["valueFrom"]["secretKeyRef"];
        let value = match variable["value"].as_str() {
            Some(value) => value,
            None => {
                assert_eq!(text(&secret_value["name"]), text(&secret["metadata"]["name"]));
                text(&secret["stringData"][text(&secret_value["key"])])
            }
        };
        env.insert(text(&variable["name"]).to_owned(), value.to_owned());
    }
    assert_eq!(env["THREADQ_LISTEN"], format!("0.0.0.0:{number}"));
    assert!(env["THREADQ_API_TOKEN"].len() >= 32);
    let drain = seconds(&env["THREADQ_DRAIN_TIMEOUT"]);
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert_eq!(grace, 40);
    assert!(grace > drain + 5);
    // Whether the URL with its names can be read; nothing answers there.
    let urls = TestServer::builder().without_demo().env("THREADQ_REDIS_URL", &env["THREADQ_REDIS_URL"]);
    assert_eq!(urls.run("check").code, Some(1));
    assert_settings(&env, file);

    // The probes send no token.
    let redis = TestRedis::start();
    let server =
        TestServer::builder().redis(&redis).env("THREADQ_API_TOKEN", &env["THREADQ_API_TOKEN"]).start();
    for (probe, expected) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        let probe = &container[probe];
        assert_keys(probe, &["httpGet", "periodSeconds", "timeoutSeconds"], file);
        assert_eq!(text(&probe["httpGet"]["path"]), expected);
        assert_eq!(text(&probe["httpGet"]["port"]), text(&port["name"]));
        // The server answers within 3 s.
        assert!(probe["timeoutSeconds"].as_i64().unwrap() > 3);
        server.get(expected).expect(200);
    }
}

/// A service of `examples/sentinel/compose.yaml` on this machine.
struct Process {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
}

impl Process {
    fn start(&mut self, words: &[String]) {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn query<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> ::redis::RedisResult<T> {
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        ::redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    fn role(&self) -> String {
        let info: String = self.query(&["INFO", "replication"]).unwrap_or_default();
        let role = info.lines().find_map(|line| line.strip_prefix("role:"));
        role.unwrap_or_default().to_owned()
    }

    /// Whether this Sentinel knows two replicas and two other Sentinels.
    fn knows_all(&self) -> bool {
        let fields: Vec<String> = self.query(&["SENTINEL", "MASTER", "mymaster"]).unwrap_or_default();
        let is_two = |name: &str| fields.chunks_exact(2).any(|pair| pair[0] == name && pair[1] == "2");
        is_two("num-slaves") && is_two("num-other-sentinels")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill9();
        }
    }
}

/// The names of the services, in the order of the file, with their ports.
fn ports(services: &[(&str, &Yaml)]) -> Vec<(String, u16)> {
    services.iter().map(|(name, _)| ((*name).to_owned(), node::free_port())).collect()
}

/// The text for this machine: with localhost and other ports in place of the names, and with this folder.
fn here(text: &str, own_port: u16, ports: &[(String, u16)], folder: &Path, files: &Path) -> String {
    let mut text = text.to_owned();
    for (name, port) in ports {
        text = text.replace(&format!("{name} 6379"), &format!("localhost {port}"));
        for end in [",", "/"] {
            text = text.replace(&format!("{name}{end}"), &format!("localhost:{port}{end}"));
        }
        text = text.replace(&format!("announce-ip {name}"), "announce-ip localhost");
    }
    for port in ["port 6379", "port 26379"] {
        text = text.replace(port, &format!("port {own_port}\nbind 127.0.0.1"));
    }
    text.replace("/data", folder.to_str().unwrap()).replace("/etc/redis", files.to_str().unwrap())
}

#[test]
fn the_sentinels_of_the_example_replace_a_dead_master() {
    let [compose] = &documents("examples/sentinel/compose.yaml")[..] else { panic!("one document") };
    let services = entries(&compose["services"]);
    let ports = ports(&services);
    let mut processes = BTreeMap::new();
    for ((name, service), (_, port)) in services.iter().zip(&ports) {
        let Some(command) = service["command"].as_vec() else { continue };
        let folder = TempDir::new();
        let files = folder.join("etc");
        std::fs::create_dir(&files).unwrap();
        for file in ["redis.conf", "sentinel.conf", "start.sh"] {
            let text = std::fs::read_to_string(repository().join("examples/sentinel").join(file)).unwrap();
            std::fs::write(files.join(file), here(&text, *port, &ports, folder.path(), &files)).unwrap();
        }
        let words: Vec<String> =
            command.iter().map(|word| here(text(word), *port, &ports, folder.path(), &files)).collect();
        let mut process = Process { child: None, port: *port, folder };
        process.start(&words);
        if !name.starts_with("sentinel") {
            eventually(LIMIT, "redis-server answers", || process.query::<String>(&["PING"]).is_ok());
        }
        processes.insert(*name, (process, words));
    }
    eventually(LIMIT, "the Sentinels know all", || {
        ["sentinel-1", "sentinel-2", "sentinel-3"].iter().all(|name| processes[name].0.knows_all())
    });

    let servers: Vec<TestServer> = services
        .iter()
        .filter(|(_, service)| !service["build"].is_badvalue())
        .map(|(_, service)| {
            let env = environment(service);
            let url = here(&env["THREADQ_REDIS_URL"], 0, &ports, Path::new(""), Path::new(""));
            let replicas = &env["THREADQ_REDIS_REPLICAS"];
            TestServer::builder()
                .env("THREADQ_REDIS_URL", &url)
                .env("THREADQ_REDIS_REPLICAS", replicas)
                .start()
        })
        .collect();
    let [first, second] = &servers[..] else { panic!("two servers") };
    let job = json!({"type": "echo", "payload": 1});
    eventually(LIMIT, "the replicas are in sync", || first.post("/jobs", &job).status == 202);
    first.complete("echo", json!(2));

    let (master, words) = processes.get_mut("redis-1").unwrap();
    let waiting = second.submit("sleep", json!({"ms": 3000}));
    master.kill9();
    eventually(LIMIT, "another Redis takes jobs", || second.post("/jobs", &job).status == 202);
    eventually(LIMIT, "a job from before is done", || {
        first.get(&format!("/jobs/{waiting}")).json()["status"] == "completed"
    });

    // It starts as a master again, since its file says so, and no replica is left to it.
    master.start(words);
    eventually(LIMIT, "it is a master first", || master.role() == "master");
    let refused = master.query::<()>(&["SET", "zombie", "1"]).unwrap_err().to_string();
    assert!(refused.contains("NOREPLICAS") || refused.contains("READONLY"), "{refused}");
    eventually(LIMIT, "the Sentinels make it a replica", || master.role() == "slave");
    first.complete("echo", json!(3));
    second.complete("echo", json!(4));
}
