//! Several machines: the program with Sentinels and with Clusters, which the tests start themselves.

#![allow(clippy::unwrap_used)]

mod call_proxy;
mod check;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod forwarder;
mod load;
mod moving_slot;
mod one_master;
mod replicas;
mod sentinel;
