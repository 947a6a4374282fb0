//! The protocol with Redis: every transition of the queue on a real redis-server, without threads and without a server,
//! so that each test writes down one interleaving, and it happens every time.
//!
//! `explorer/` walks through all interleavings of two servers and two jobs.
//! `guards/` changes the Lua scripts, one condition, operand or statement at a time, and shows that these tests notice
//! each change: `cargo test --test protocol -- --ignored --nocapture every_guard_is_needed`.

#![allow(clippy::unwrap_used)]

mod bulk;
#[path = "../common/mod.rs"]
mod common;
mod damaged;
mod explorer;
mod finishing;
mod fixture;
mod full;
mod guards;
mod invariants;
mod layout;
mod limits;
mod listing;
mod long_lists;
mod lost_answers;
mod lua_proxy;
mod many_types;
mod pull;
mod random;
mod repair;
mod rights;
mod schedules;
mod settling;
mod starting;
mod submitting;
mod suspects;
mod taking_over;
mod ties;
mod waiting;
