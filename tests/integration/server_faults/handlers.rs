//! A program with Rust handlers that break every rule. The program is this test binary, started again.

use std::panic::panic_any;

use threadq::handler::JobContext;
use threadq::job::Failure;
use threadq::{config::Config, logging, server::Server};

use crate::common::*;

/// Runs a server with the handlers below.
pub fn troubled(redis: &TestRedis) -> ServerBuilder {
    let this = std::env::current_exe().expect("a test binary");
    let this = this.to_str().expect("a path that can be written").to_owned();
    let words = ["--ignored", "--exact", "server_faults::handlers::serve", "--nocapture", "--"];
    let words = std::iter::once(this).chain(words.map(str::to_owned)).collect();
    TestServer::builder().program(words).redis(redis)
}

#[test]
#[ignore = "this is the program that other tests start"]
fn serve() {
    let words: Vec<String> = std::env::args().skip_while(|word| word != "serve").skip(1).collect();
    if words.is_empty() {
        return;
    }
    let config = Config::load(words, |_| None).expect("the configuration");
    logging::init(config.log_format, config.log_level);
    logging::log_panics();
    let server = Server::builder()
        .config(config)
        .handler("stack overflow", |_| Ok(overflow(1)))
        .handler("double panic", double_panic)
        .handler("failed allocation", failed_allocation)
        .handler("panic that cannot be dropped", panic_that_cannot_be_dropped)
        .handler("panic on another thread", panic_on_another_thread)
        .handler("leaked threads", leaked_threads)
        .start()
        .expect("the server starts");
    println!("threadq listening on http://{}", server.addr());
    loop {
        std::thread::park();
    }
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    std::hint::black_box(overflow(std::hint::black_box(depth) + 1) + depth)
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("the second panic");
    }
}

fn double_panic(_: &JobContext) -> Result<(), Failure> {
    let _cleaned_up = PanicsWhenDropped;
    panic!("the first panic");
}

/// Allocates more memory than any machine has. This aborts the process; an overflow of the capacity would only panic.
fn failed_allocation(_: &JobContext) -> Result<usize, Failure> {
    let memory: Vec<u8> = Vec::with_capacity(1 << 46);
    Ok(std::hint::black_box(memory).capacity())
}

fn panic_that_cannot_be_dropped(_: &JobContext) -> Result<(), Failure> {
    panic_any(PanicsWhenDropped);
}

fn panic_on_another_thread(_: &JobContext) -> Result<(), Failure> {
    let thread = std::thread::spawn(|| panic!("nobody's job"));
    thread.join().map_err(|_| Failure::permanent("its helper panicked"))
}

/// Starts threads that never end, and ignores threads that the system refuses.
fn leaked_threads(job: &JobContext) -> Result<usize, Failure> {
    let wanted: usize = job.payload()?;
    let leak = || {
        std::thread::Builder::new().spawn(|| {
            loop {
                std::thread::park()
            }
        })
    };
    Ok((0..wanted).take_while(|_| leak().is_ok()).count())
}
