//! What `threadq check` and the doctor say of the place where Redis is: of each Sentinel and the master that they name, or
//! of the Cluster and its slot.

use std::time::Duration;

use redis::{Cmd, ErrorKind, ServerErrorKind, Value};

use super::{Kind, Place, moved_to};
use crate::queue::Queue;
use crate::queue::connection::{Address, Greeting, Login, Wire};
use crate::queue::error::ConnectError;
use crate::queue::redis_info::InfoFields;
use crate::queue::redis_report::{Advice, Severity};
use crate::queue::sentinel;

/// The time limit for a connection to the master.
const CONNECT: Duration = Duration::from_secs(1);

/// The place where Redis is. Empty if the URL names the only address.
#[derive(Default, Debug)]
pub struct PlaceReport {
    /// What was found, in one line.
    pub line: Option<String>,
    /// The problems.
    pub advice: Vec<Advice>,
    /// Why no server can work there now.
    pub fault: Option<String>,
}

impl Queue {
    /// The place where Redis is.
    pub fn place_report(&self) -> PlaceReport {
        let place = self.connections.place();
        match &place.kind {
            Kind::Fixed(_) => PlaceReport::default(),
            Kind::Sentinels { name, login } => place.report_of_sentinels(name, login),
            Kind::Cluster { key } => place.report_of_cluster(key),
        }
    }
}

impl Place {
    fn report_of_sentinels(&self, name: &str, login: &Login) -> PlaceReport {
        let mut report = PlaceReport::default();
        let (mut answers, mut master) = (0, None);
        let sentinels = self.hosts();
        for host in &sentinels {
            match sentinel::connect(host, login).and_then(|mut wire| sentinel::master(&mut wire, name)) {
                Ok(named) => {
                    answers += 1;
                    master = master.or_else(|| named.clone());
                    if named.is_none() {
                        let what = format!("the Sentinel {host} knows no master {name:?}");
                        report.warn("sentinel_differs", what, "make it monitor the master");
                    } else if named != master {
                        let what =
                            format!("the Sentinel {host} names another master: {}", text(named.as_ref()));
                        report.warn(
                            "sentinel_differs",
                            what,
                            "wait for the end of a failover, or reset this Sentinel",
                        );
                    }
                }
                Err(error) => {
                    let what = format!("the Sentinel {host} does not answer: {error}");
                    report.warn("sentinel_down", what, "start it, or correct its address in redis-url");
                }
            }
        }
        let mut line = format!(
            "sentinel: {answers} of {} answer, master {name} at {}",
            sentinels.len(),
            text(master.as_ref())
        );
        if let Some(master) = &master {
            match Wire::connect(master, &self.login, CONNECT, Greeting::Server, &|_| {}) {
                Ok((_, welcome)) => line.push_str(&format!(" ({})", replicas(welcome.info.as_deref()))),
                Err(error) => report.fault = Some(unreachable(master, &error)),
            }
        }
        report.line = Some(line);
        report
    }

    fn report_of_cluster(&self, key: &str) -> PlaceReport {
        let mut report = PlaceReport::default();
        // The first call of the queue meets the same error, and explains it.
        let Ok(mut owner) = self.connect(CONNECT, false, &|_| {}) else { return report };
        let address = self.master().address();
        let ask = |wire: &mut Wire, words: &[&str]| command(words).query::<Value>(wire).ok();
        let slot = match ask(&mut owner.wire, &["CLUSTER", "KEYSLOT", key]) {
            Some(Value::Int(slot)) => format!("slot {slot}"),
            _ => "the slot".to_owned(),
        };
        let info = command(&["INFO", "replication"]).query::<String>(&mut owner.wire).ok();
        let masters = command(&["CLUSTER", "INFO"]).query::<String>(&mut owner.wire).ok();
        let masters = match masters.map(InfoFields::new) {
            Some(fields) => format!("{} masters", fields.number("cluster_size")),
            None => "not allowed to ask for its masters (CLUSTER INFO)".to_owned(),
        };
        let (address, replicas) = (text(address.as_ref()), replicas(info.as_deref()));
        report.line = Some(format!("cluster: {masters}, ours is {address} ({slot}, {replicas})"));
        if let Some(target) = moving_to(&mut owner.wire, key) {
            let what = format!("{slot} is on its way to {}", text(target.as_ref()));
            report.fault = Some(format!("{what}: calls are refused until it is there"));
            let todo = "calls are refused until it is there: end the move";
            report.advice.push(Advice { severity: Severity::Wrong, kind: "slot_moving", what, todo });
        }
        report
    }
}

impl PlaceReport {
    fn warn(&mut self, kind: &'static str, what: String, todo: &'static str) {
        self.advice.push(Advice { severity: Severity::Warning, kind, what, todo });
    }
}

/// Where the slot of this key moves to, if it moves: a node that gives it away answers ASK for a key that it does not have.
fn moving_to(owner: &mut Wire, key: &str) -> Option<Option<Address>> {
    let error = command(&["HGET", key, ""]).query::<Value>(owner).err()?;
    let is_moving = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
    is_moving.then(|| moved_to(&error, &Address::Tcp(String::new(), 0)))
}

fn command(words: &[&str]) -> Cmd {
    redis::cmd(words[0]).arg(&words[1..]).take()
}

fn text(address: Option<&Address>) -> String {
    address.map_or_else(|| "an unknown address".to_owned(), Address::to_string)
}

/// The number of replicas in a reply to INFO.
fn replicas(info: Option<&str>) -> String {
    match info.map(InfoFields::new) {
        None => "not allowed to ask for its replicas (INFO)".to_owned(),
        Some(fields) => match fields.number("connected_slaves") {
            0 => "no replica".to_owned(),
            1 => "1 replica".to_owned(),
            number => format!("{number} replicas"),
        },
    }
}

fn unreachable(master: &Address, error: &ConnectError) -> String {
    let reason = error.to_string();
    if reason.starts_with("Redis refuses") {
        return format!("the master {master} that the Sentinels name: {reason}");
    }
    format!(
        "the master {master} that the Sentinels name cannot be reached from here: {reason}; if this is an address inside a \
         container or another network, set replica-announce-ip in Redis and sentinel announce-ip"
    )
}
