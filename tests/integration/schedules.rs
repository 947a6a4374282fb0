//! Schedules: from the file and from the API, overlap, pauses, clocks and servers that die.

use crate::common::*;

use std::collections::BTreeMap;

fn put(server: &TestServer, name: &str, body: Value) -> Reply {
    let json_type = [("Content-Type", "application/json")];
    server.request("PUT", &format!("/schedules/{name}"), &json_type, Some(body.to_string().as_bytes()))
}

fn schedule(server: &TestServer, name: &str) -> Value {
    server.get(&format!("/schedules/{name}")).expect(200).json()
}

/// The outcomes in the history, newest first.
fn outcomes(server: &TestServer, name: &str) -> Vec<String> {
    let history = schedule(server, name)["history"].as_array().cloned().unwrap_or_default();
    history.iter().map(|entry| entry["outcome"].as_str().unwrap().to_owned()).collect()
}

fn jobs_of_type(server: &TestServer, job_type: &str) -> Vec<Value> {
    server.list_all("/jobs", &format!("&type={job_type}"))
}

const EVERY_SECOND: &str = r#"
    [[schedules]]
    name = "beat"
    every = "1s"
    job = { type = "echo", payload = { a = 1 }, tags = ["beat"], retain_ms = 3600000 }
"#;

#[test]
fn a_schedule_of_the_file_starts_a_job_at_each_tick() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(EVERY_SECOND).start();
    eventually(LIMIT, "three jobs", || jobs_of_type(&server, "echo").len() >= 3);
    let shown = schedule(&server, "beat");
    assert_eq!(
        (&shown["source"], &shown["every"], &shown["paused"]),
        (&json!("config"), &json!("1s"), &json!(false))
    );
    assert_eq!(shown["next"].as_array().unwrap().len(), 5);
    assert_eq!(shown["last"], shown["history"][0]);
    for job in jobs_of_type(&server, "echo") {
        let job = server.wait_for_status(job["id"].as_u64().unwrap(), "completed");
        assert_eq!(
            (&job["schedule"]["name"], &job["result"], &job["tags"]),
            (&json!("beat"), &json!({"a": 1}), &json!(["beat"]))
        );
        let tick = time_ms(&job["schedule"]["tick"]);
        assert_eq!(tick % 1000, 0);
        assert!(time_ms(&job["created_at"]) >= tick);
        assert!(job["unique_key"].is_string(), "by default ticks do not overlap");
    }
    let entry = &schedule(&server, "beat")["history"][0];
    assert_eq!(entry["outcome"], "started");
    let metrics = server.get("/metrics").expect(200).text();
    assert!(
        metrics.contains("threadq_schedule_ticks_total{schedule=\"beat\",outcome=\"started\"} "),
        "{metrics}"
    );
    assert!(server.metric("threadq_schedule_last_success_timestamp_seconds{schedule=\"beat\"}") > 1e9);

    // Its definition is the file's alone.
    put(&server, "beat", json!({"every": "5s", "job": {"type": "echo"}})).expect_error(
        409,
        "managed_by_config",
        "schedules",
    );
    server.delete("/schedules/beat").expect_error(409, "managed_by_config", "schedules");
    assert_eq!(server.act("/schedules/beat/pause").expect(200).json()["paused"], true);
    eventually(LIMIT, "a skipped tick", || outcomes(&server, "beat")[0] == "skipped_paused");
}

#[test]
fn a_schedule_of_the_api_is_defined_changed_run_and_deleted() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let daily =
        json!({"cron": "30 2 * * *", "timezone": "Europe/Berlin", "job": {"type": "echo", "payload": 1.50}});
    let created = put(&server, "report", daily.clone()).expect(201).json();
    assert_eq!((&created["cron"], &created["job"]["payload"]), (&json!("30 2 * * *"), &json!(1.5)));
    let next = created["next"].clone();
    // A change of the job alone moves no tick.
    let mut changed = daily.clone();
    changed["job"]["payload"] = json!(2);
    assert_eq!(put(&server, "report", changed).expect(200).json()["next"], next);
    let other = json!({"cron": "30 3 * * *", "job": {"type": "sleep", "payload": {"ms": 600_000}}});
    assert_ne!(put(&server, "report", other).expect(200).json()["next"], next);

    let id = server.act("/schedules/report/run").expect(202).json()["job_id"].as_u64().unwrap();
    server.wait_for_status(id, "processing");
    let refused = server.act("/schedules/report/run");
    refused.expect_error(409, "overlap", "run");
    assert_eq!(refused.json()["job_id"], id);
    let forced = server.post("/schedules/report/run", &json!({"force": true})).expect(202).json()["job_id"]
        .as_u64()
        .unwrap();
    assert_ne!(forced, id);
    assert_eq!(outcomes(&server, "report"), ["manual", "manual"]);

    put(&server, "a", json!({"every": "1h", "job": {"type": "echo"}})).expect(201);
    let page = server.get("/schedules?limit=1&page=2").expect(200).json();
    assert_eq!((&page["total"], &page["schedules"][0]["name"]), (&json!(2), &json!("report")));
    assert!(page["schedules"][0]["history"].is_null() && page["schedules"][0]["last"].is_object());
    server.delete("/schedules/report").expect(204);
    server.get("/schedules/report").expect_error(404, "not_found", "schedules");
    server.delete("/schedules/report").expect_error(404, "not_found", "schedules");
    server.act("/schedules/report/pause").expect_error(404, "not_found", "schedules");
    server.act("/schedules/report/run").expect_error(404, "not_found", "schedules");
    server.get("/schedules/a%20b").expect_error(404, "not_found", "schedules");
    assert_eq!(server.job(id)["schedule"]["name"], "report", "the jobs stay");
}

#[test]
fn a_preview_stores_nothing_and_wrong_schedules_are_refused_with_the_field() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let preview = json!({"cron": "30 2 * * *", "timezone": "Europe/Berlin", "from": "2026-03-28T00:00:00Z", "count": 3});
    let times = server.post("/schedules/preview", &preview).expect(200).json();
    let expected = ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"];
    assert_eq!(times, json!({"times": expected}));
    for (body, sentence) in [
        (
            json!({"cron": "30 25 * * *", "job": {"type": "a"}}),
            "cron \"30 25 * * *\" has the hour \"25\"; allowed: 0-23",
        ),
        (
            json!({"every": "1h", "overlap": "queue", "job": {"type": "a"}}),
            "overlap \"queue\" is none of the allowed words",
        ),
        (json!({"every": "1h"}), "job is missing"),
        (json!({"every": "1h", "job": {"type": "a", "delay_ms": 1}}), "unknown field \"job.delay_ms\""),
        (json!({"every": 5, "job": {"type": "a"}}), "every must be a string"),
        (json!({"every": "1h", "job": {"type": "a"}, "colour": 1}), "unknown field \"colour\""),
        (json!({"job": {"type": "a"}}), "cron is missing"),
    ] {
        let error = put(&server, "x", body).expect_error(400, "invalid_schedule", sentence);
        assert!(error.starts_with(sentence), "{error}");
    }
    put(&server, "preview", json!({"every": "1h", "job": {"type": "a"}})).expect(405);
    assert_eq!(server.get("/schedules").expect(200).json()["total"], 0);
}

#[test]
fn a_tick_is_skipped_while_the_job_of_an_earlier_tick_waits() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.act("/queues/default/pause").expect(200);
    put(&server, "skips", json!({"every": "1s", "job": {"type": "echo"}})).expect(201);
    put(
        &server,
        "allows",
        json!({"every": "1s", "overlap": "allow", "job": {"type": "sleep", "payload": {"ms": 1}}}),
    )
    .expect(201);
    eventually(LIMIT, "skipped ticks", || {
        outcomes(&server, "skips").iter().filter(|o| *o == "skipped_overlap").count() >= 2
    });
    let held = jobs_of_type(&server, "echo");
    assert_eq!(held.len(), 1);
    assert_eq!(schedule(&server, "skips")["last"]["job_id"], held[0]["id"]);
    assert!(jobs_of_type(&server, "sleep").len() >= 2);
    // The cancel frees the overlap.
    server.act(&format!("/jobs/{}/cancel", held[0]["id"])).expect(200);
    eventually(LIMIT, "another job", || jobs_of_type(&server, "echo").len() >= 2);
}

#[test]
fn the_jobs_of_a_schedule_that_waits_or_replaces_never_run_side_by_side() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    for overlap in ["wait", "replace"] {
        let job = json!({"type": "sleep", "payload": {"ms": 2500}, "tags": [overlap]});
        put(&server, overlap, json!({"every": "1s", "overlap": overlap, "job": job})).expect(201);
    }
    let with_tag = |overlap: &str, status: &str| {
        let path = format!("/jobs?limit=100&tag={overlap}&status={status}");
        server.get(&path).expect(200).json()["jobs"].as_array().unwrap().clone()
    };
    eventually(LIMIT, "completed jobs of one schedule and replaced jobs of the other one", || {
        for overlap in ["wait", "replace"] {
            assert!(with_tag(overlap, "processing").len() <= 1, "{overlap}");
        }
        with_tag("wait", "completed").len() >= 2 && with_tag("replace", "cancelled").len() >= 3
    });
    for job in with_tag("replace", "cancelled") {
        assert_eq!(job["cancel_reason"], "replaced");
    }
    assert!(outcomes(&server, "wait").iter().any(|outcome| outcome == "skipped_overlap"));
    assert!(outcomes(&server, "replace").iter().all(|outcome| outcome == "started"));
}

#[test]
fn a_schedule_follows_its_files() {
    let redis = TestRedis::start();
    let file = |every: &str, number: u32| {
        format!(
            "[[schedules]]\nname = 'x'\nevery = '{every}'\njob = {{ type = 'echo', payload = {number} }}\n"
        )
    };
    let mut first = TestServer::builder().redis(&redis).config(&file("1h", 1)).start();
    eventually(LIMIT, "it is stored", || first.get("/schedules/x").status == 200);
    let first_id = first.server_id();
    let mut second = TestServer::builder().redis(&redis).config(&file("1s", 2)).start();
    let is_warned = || second.log_text().contains("has another schedule \"x\"");
    eventually(LIMIT, "a warning that names both", is_warned);
    assert!(second.log_text().contains(&format!("the file of server={first_id}")));
    eventually(LIMIT, "the last server has the last word", || !jobs_of_type(&first, "echo").is_empty());
    assert_eq!(jobs_of_type(&first, "echo")[0]["payload"], 2);
    assert_eq!(second.stop(secs(15)), Some(0));
    // Its name is in the file of the first server still.
    eventually(LIMIT, "it goes on", || {
        let before = jobs_of_type(&first, "echo").len();
        eventually(LIMIT, "a further job", || jobs_of_type(&first, "echo").len() > before);
        true
    });
    assert_eq!(first.stop(secs(15)), Some(0));

    let third = TestServer::start(&redis);
    let due = || redis.query::<String>(&["ZSCORE", "{threadq}:agenda", "tick:x"]);
    let before = due();
    eventually(LIMIT, "the tick waits for a server with the file", || due() != before);
    let number = jobs_of_type(&third, "echo").len();
    eventually(LIMIT, "the tick waits again", || {
        let score: f64 = due().parse().unwrap();
        score > redis_ms(&redis) + 30_000.0
    });
    assert_eq!(jobs_of_type(&third, "echo").len(), number, "no server has it in its file");
    // After a week without such a server it is deleted.
    let _: i64 = redis.query(&["HSET", "{threadq}:schedule:x", "seen_at", "1"]);
    let _: i64 = redis.query(&["ZADD", "{threadq}:agenda", "1", "tick:x"]);
    eventually(LIMIT, "it is deleted", || third.get("/schedules/x").status == 404);
}

fn redis_ms(redis: &TestRedis) -> f64 {
    let time: Vec<String> = redis.query(&["TIME"]);
    time[0].parse::<f64>().unwrap() * 1000.0
}

#[test]
fn a_schedule_of_a_file_comes_back_after_redis_has_lost_everything() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(EVERY_SECOND).start();
    eventually(LIMIT, "a job", || !jobs_of_type(&server, "echo").is_empty());
    let _: String = redis.query(&["FLUSHALL"]);
    eventually(LIMIT, "a job again", || {
        server.get("/schedules/beat").status == 200 && !jobs_of_type(&server, "echo").is_empty()
    });
}

#[test]
fn a_wrong_schedule_of_the_file_ends_the_start() {
    for (job, expected) in [
        ("{ type = 'echo', run_at = 5 }", "threadq: schedules.\"x\": unknown field \"job.run_at\""),
        ("{ payload = 1 }", "threadq: schedules.\"x\": job.type is missing"),
    ] {
        let config = format!("[[schedules]]\nname = 'x'\nevery = '1h'\njob = {job}\n");
        for subcommand in ["serve", "check"] {
            let done = TestServer::builder().config(&config).run(subcommand);
            assert_eq!(done.code, Some(2), "{subcommand}");
            assert!(done.stderr.starts_with(expected), "{}", done.stderr);
        }
    }
    let config =
        "[[schedules]]\nname = 'x'\ncron = '0 3 * * *'\ntimezone = 'Asia/Kolkata'\njob = { type = 'echo' }\n";
    let done = TestServer::builder().config(config).run("check");
    assert!(
        done.stdout.contains("schedule x: ") && done.stdout.contains("T03:00:00+05:30"),
        "{}",
        done.stdout
    );
}

#[test]
fn a_clock_of_redis_that_jumps_starts_no_tick_twice() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    put(&server, "x", json!({"every": "1s", "overlap": "allow", "job": {"type": "echo"}})).expect(201);
    eventually(LIMIT, "two jobs", || jobs_of_type(&server, "echo").len() >= 2);
    // Redis's clock cannot be set here. Moving the next tick has the same effect as moving the clock the other way.
    let next = || redis.query::<String>(&["HGET", "{threadq}:schedule:x", "next"]).parse::<u64>().unwrap();
    let far = next() - 30 * 60_000;
    let _: i64 =
        redis.query(&["HSET", "{threadq}:schedule:x", "next", &far.to_string(), "due", &far.to_string()]);
    eventually(LIMIT, "the missed ticks are told", || outcomes(&server, "x").contains(&"missed".to_owned()));
    let missed = schedule(&server, "x")["history"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["outcome"] == "missed")
        .cloned()
        .unwrap();
    assert_eq!(time_ms(&missed["tick"]), far);
    assert!(missed["count"].as_u64().unwrap() >= 1_795, "{missed}");
    // Forward by an hour: as if the clock had gone back, there is no tick until its time comes again.
    let _: i64 = redis.query(&["HSET", "{threadq}:schedule:x", "next", &(next() + 3_600_000).to_string()]);
    let _: i64 = redis.query(&["ZADD", "{threadq}:agenda", "1", "tick:x"]);
    eventually(LIMIT, "the word waits for the tick", || {
        let due: String = redis.query(&["ZSCORE", "{threadq}:agenda", "tick:x"]);
        due.parse::<f64>().unwrap() > redis_ms(&redis) + 3_000_000.0
    });
    let ticks: Vec<u64> =
        jobs_of_type(&server, "echo").iter().map(|job| time_ms(&job["schedule"]["tick"])).collect();
    let mut distinct = ticks.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), ticks.len(), "each tick started once");
}

/// The ticks of a schedule with a period of one second: how often each started, and the ones that were missed.
#[derive(Default)]
struct Ticks {
    started: BTreeMap<u64, u32>,
    missed: BTreeMap<u64, u32>,
}

#[test]
fn servers_that_die_between_the_steps_of_a_tick_start_each_tick_once_or_tell_it_as_missed() {
    let rounds = std::env::var("THREADQ_TICK_KILLS").map_or(12, |rounds| rounds.parse().unwrap());
    let redis = TestRedis::start();
    let observer = TestServer::observer(&redis);
    put(
        &observer,
        "x",
        json!({"every": "1s", "overlap": "allow", "catch_up": "none", "job": {"type": "echo"}}),
    )
    .expect(201);
    let mut servers: Vec<TestServer> = (0..3).map(|_| TestServer::start(&redis)).collect();
    let mut ticks = Ticks::default();
    let note_missed = |ticks: &mut Ticks| {
        for entry in schedule(&observer, "x")["history"].as_array().unwrap() {
            if entry["outcome"] == "missed" {
                let first = time_ms(&entry["tick"]);
                for number in 0..entry["count"].as_u64().unwrap_or(1) {
                    ticks.missed.insert(first + number * 1000, 1);
                }
            }
        }
    };
    let mut kills = BTreeMap::new();
    let mut killed = 0;
    for round in 0..rounds {
        // The servers wake up at the tick. The kills are spread over the 8 ms after it.
        let next: u64 = redis.query::<String>(&["HGET", "{threadq}:schedule:x", "next"]).parse().unwrap();
        let moment = std::time::UNIX_EPOCH + Duration::from_micros(next * 1000 + 8_000 * round / rounds);
        if let Ok(wait) = moment.duration_since(std::time::SystemTime::now()) {
            std::thread::sleep(wait);
        }
        servers.iter_mut().for_each(TestServer::kill9);
        killed += servers.len();
        let then: u64 = redis.query::<String>(&["HGET", "{threadq}:schedule:x", "next"]).parse().unwrap();
        let word: f64 = redis.query::<String>(&["ZSCORE", "{threadq}:agenda", "tick:x"]).parse().unwrap();
        let moment = match (then > next, word as u64 > next) {
            (true, _) => "after fire",
            (false, true) => "between due and fire",
            (false, false) => "before due",
        };
        *kills.entry(moment).or_insert(0) += servers.len();
        servers = (0..3).map(|_| TestServer::start(&redis)).collect();
        note_missed(&mut ticks);
    }
    let last: u64 = redis.query::<String>(&["HGET", "{threadq}:schedule:x", "next"]).parse().unwrap();
    eventually(LIMIT, "the ticks go on", || {
        redis.query::<String>(&["HGET", "{threadq}:schedule:x", "next"]).parse::<u64>().unwrap()
            > last + 2_000
    });
    observer.act("/schedules/x/pause").expect(200);
    note_missed(&mut ticks);
    for job in jobs_of_type(&observer, "echo") {
        *ticks.started.entry(time_ms(&job["schedule"]["tick"])).or_default() += 1;
    }
    let (first, end) = (*ticks.started.keys().next().unwrap(), *ticks.started.keys().last().unwrap());
    let twice = ticks.started.values().filter(|number| **number > 1).count();
    let both = ticks.missed.keys().filter(|tick| ticks.started.contains_key(tick)).count();
    let neither = (first..=end)
        .step_by(1000)
        .filter(|tick| !ticks.started.contains_key(tick) && !ticks.missed.contains_key(tick))
        .count();
    println!("| kills | {killed} |");
    kills.iter().for_each(|(moment, number)| println!("| of them {moment} | {number} |"));
    println!("| ticks | {} |", (end - first) / 1000 + 1);
    println!("| started once | {} |", ticks.started.len() - twice);
    println!("| told as missed | {} |", ticks.missed.len());
    println!("| started twice / started and missed / neither | {twice} / {both} / {neither} |");
    assert_eq!((twice, both, neither), (0, 0, 0));
}

/// The first block of the documentation is a configuration that works.
#[test]
fn the_nightly_report_of_the_documentation_runs() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schedules.md");
    let document = std::fs::read_to_string(document).unwrap();
    let config = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let redis = TestRedis::start();
    let dir = TempDir::new();
    dir.script("report.sh", "echo \"report of $THREADQ_JOB_TYPE\"");
    let server = TestServer::builder().redis(&redis).config(config).start_in(dir);
    eventually(LIMIT, "it is stored", || server.get("/schedules/nightly-report").status == 200);
    let next = schedule(&server, "nightly-report")["next"][0].as_str().unwrap().to_owned();
    // 02:30 in Berlin is 01:30 or 00:30 in UTC, and 01:00 on the night that skips 02:30.
    assert!(["T01:30:00", "T00:30:00", "T01:00:00"].iter().any(|time| next.contains(time)), "{next}");
    let id = server.act("/schedules/nightly-report/run").expect(202).json()["job_id"].as_u64().unwrap();
    let job = server.wait_for_status(id, "completed");
    assert_eq!((&job["result"], &job["payload"]["kind"]), (&json!("report of report"), &json!("daily")));
    assert_eq!(schedule(&server, "nightly-report")["last"]["outcome"], "manual");

    // The block for curl.
    let body = document.split("-d '").nth(1).unwrap().split('\'').next().unwrap();
    let other = TestServer::start(&redis);
    put(&other, "nightly-report", serde_json::from_str(body).unwrap()).expect_error(
        409,
        "managed_by_config",
        "curl",
    );
    put(&other, "another", serde_json::from_str(body).unwrap()).expect(201);
}

#[test]
fn the_rust_client_defines_runs_and_deletes_schedules() {
    use threadq::client::schedules::Schedule;
    use threadq::client::{Client, Submission};
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let client = Client::new(&format!("http://{}", server.addr())).unwrap();
    let job = Submission::new("echo").payload("x").unwrap();
    let daily = Schedule::cron("0 3 * * *", job.clone()).timezone("Europe/Berlin").overlap("allow");
    let stored = client.schedules().put("daily", &daily.jitter(secs(60)).catch_up("none")).unwrap();
    assert_eq!(
        (stored.source.as_str(), stored.spec.jitter.as_deref(), stored.next.len()),
        ("api", Some("1m"), 5)
    );
    let id = client.schedules().run("daily", false).unwrap();
    let result: String = client.wait(id, LIMIT).unwrap().result().unwrap();
    assert_eq!(result, "x");
    assert!(client.schedules().pause("daily").unwrap().paused);
    assert!(!client.schedules().resume("daily").unwrap().paused);
    let shown = client.schedules().get("daily").unwrap();
    assert_eq!((shown.history[0].outcome.as_str(), shown.history[0].job_id), ("manual", Some(id)));
    let error = client.schedules().put("x", &Schedule::every(ms(5), job.clone())).unwrap_err();
    assert_eq!(error.code(), Some("invalid_schedule"));
    let error = client.schedules().put("x", &Schedule::every(secs(5), job.delay(secs(1)))).unwrap_err();
    assert!(error.to_string().contains("job.delay_ms"), "{error}");
    assert_eq!(client.schedules().list(1, 10).unwrap().total, 1);
    client.schedules().delete("daily").unwrap();
    assert_eq!(client.schedules().get("daily").unwrap_err().code(), Some("not_found"));
}

#[test]
fn a_program_adds_a_schedule_as_if_it_were_in_its_file() {
    use threadq::client::Submission;
    use threadq::client::schedules::Schedule;
    use threadq::config::{Config, Secret};
    use threadq::server::Server;
    let redis = TestRedis::start();
    let config = || Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        redis_url: Some(Secret::new(redis.url())),
        workers: 1,
        ..Config::default()
    };
    let beat = || Schedule::every(secs(1), Submission::new("beat"));
    let server = Server::builder()
        .config(config())
        .handler("beat", |_| Ok("done"))
        .schedule("beat", beat())
        .start()
        .unwrap();
    let front = Api::new(server.addr());
    eventually(LIMIT, "a job completes", || front.total("?status=completed&type=beat") > 0);
    assert_eq!(front.get("/schedules/beat").expect(200).json()["source"], "config");
    server.stop();
    let twice = Server::builder().config(config()).schedule("beat", beat()).schedule("beat", beat());
    let error = twice.start().err().unwrap().to_string();
    assert!(error.contains("\"beat\": the name is given twice"), "{error}");
    let error = Server::builder().config(config()).schedule("a b", beat()).start().err().unwrap().to_string();
    assert!(error.contains("the name is not allowed"), "{error}");
}
