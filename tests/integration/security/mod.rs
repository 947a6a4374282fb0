//! The claims of SECURITY.md, tested on the real program: pages of other sites, secrets, log lines, limits, TLS, and
//! the rights that the program needs in Redis.

// The shared code of the tests contains tests too.
mod limits;
mod log_lines;
mod pages;
mod program;
mod redis_user;
mod secrets;
#[cfg(feature = "tls")]
mod tls;
