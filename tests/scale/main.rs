//! Several machines: the program with Sentinels and with Clusters, which the tests start themselves.

#![allow(clippy::unwrap_used)]

mod call_proxy;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod moving_slot;
mod replicas;
