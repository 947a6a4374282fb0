//! Asks a Sentinel where the master is.

use std::time::Duration;

use super::connection::{Address, Greeting, Login, Wire, describe};
use super::error::ConnectError;

/// How long a Sentinel may take to answer, connecting included.
const LIMIT: Duration = Duration::from_millis(300);

/// Connects to a Sentinel.
pub(super) fn connect(sentinel: &Address, login: &Login) -> Result<Wire, ConnectError> {
    Wire::connect(sentinel, login, LIMIT, Greeting::Login, &|_| {}).map(|(wire, _)| wire)
}

/// Asks a Sentinel for the address of a master; `None` if the Sentinel does not know this name.
pub(super) fn master(sentinel: &mut Wire, name: &str) -> Result<Option<Address>, ConnectError> {
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    match ask.query::<Option<(String, u16)>>(sentinel) {
        Ok(master) => Ok(master.map(|(host, port)| Address::Tcp(host, port))),
        Err(error) if error.to_string().contains("unknown command") => {
            Err(ConnectError("this is a Redis and no Sentinel".to_owned()))
        }
        Err(error) => Err(ConnectError(describe(&error))),
    }
}
