//! What SECURITY.md says, held against the real program: pages from elsewhere, secrets, log lines, limits, TLS, and the
//! rights that it needs in Redis.

// What tests share is a test too.
mod limits;
mod log_lines;
mod pages;
mod program;
mod redis_user;
mod secrets;
#[cfg(feature = "tls")]
mod tls;
