//! Tests of the built program from outside: HTTP, signals, exit codes, the command line, and the documented Redis keys.
//! Every test starts its own redis-server and its own servers on free ports, so that tests do not affect each other.

// The shared code of the tests contains tests too.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod api_bad_input;
mod api_jobs;
mod api_limits;
mod api_listing;
mod api_wait;
mod architecture;
mod bulk;
mod cancel;
mod client;
mod deployment;
mod descendants;
mod docs;
mod doctor;
mod example_handlers;
mod examples;
mod exec_http;
mod fault_injection;
mod fifo;
mod guide;
mod hostile_clients;
mod hostile_requests;
mod http_front;
mod idle_servers;
mod job_fields;
mod limits_command;
mod limits_under_kills;
mod lines;
mod metrics;
mod openapi;
mod other_protocol;
mod poison;
mod private_redis;
mod pull;
mod pull_under_kills;
mod queues;
mod recipes;
mod recovery;
mod redis_faults;
mod reports;
mod retention;
mod retries;
mod schedules;
mod security;
mod server_faults;
mod settings;
mod shutdown;
mod start_and_end;
mod systemd;
mod terminal;
mod time_bounds;
mod timeouts;
mod unique_keys;
mod urls;
mod why;
