//! Connections of an HTTP client that can be told to stop while they wait for an answer.
//!
//! A call of the client blocks until its timeout. Here its reads are cut into short ones, and between them the
//! connection looks whether the attempt that uses it should stop. A connection is used by one attempt after another,
//! so it finds the signal through the thread: an attempt's call never leaves its thread.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, Error};

use super::StopSignal;
use crate::net::early_answer::EarlyAnswerConnector;

/// How long a read goes on at most before the signal is looked at.
const TICK: Duration = Duration::from_millis(100);

thread_local! {
    static STOP: RefCell<Option<StopSignal>> = const { RefCell::new(None) };
}

/// Runs calls of a client from [`agent`] that end early, with an error, when the signal is given.
pub(super) fn scope<T>(stop: &StopSignal, calls: impl FnOnce() -> T) -> T {
    /// Also clears the signal when a call panics.
    struct Reset;

    impl Drop for Reset {
        fn drop(&mut self) {
            STOP.set(None);
        }
    }

    STOP.set(Some(stop.clone()));
    let _reset = Reset;
    calls()
}

fn should_stop() -> bool {
    STOP.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.reason().is_some()))
}

/// A client whose calls inside [`scope`] can be stopped.
pub(super) fn agent(config: Config) -> Agent {
    let connector = ().chain(TcpConnector::default()).chain(EarlyAnswerConnector).chain(StoppableConnector);
    #[cfg(feature = "tls")]
    let connector = connector.chain(ureq::unversioned::transport::RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Makes a connection stoppable. It belongs below TLS, whose state a read that was cut short would spoil.
#[derive(Debug)]
pub(super) struct StoppableConnector;

impl<In: Transport> Connector<In> for StoppableConnector {
    type Out = Stoppable<In>;

    fn connect(&self, _: &ConnectionDetails, below: Option<In>) -> Result<Option<Stoppable<In>>, Error> {
        Ok(below.map(Stoppable))
    }
}

#[derive(Debug)]
pub(super) struct Stoppable<T>(T);

impl<T: Transport> Transport for Stoppable<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let start = Instant::now();
        loop {
            if should_stop() {
                return Err(io::Error::other("told to stop").into());
            }
            let left = timeout.after.saturating_sub(start.elapsed());
            if left <= TICK {
                return self.0.await_input(NextTimeout { after: left.into(), ..timeout });
            }
            match self.0.await_input(NextTimeout { after: TICK.into(), ..timeout }) {
                Err(Error::Timeout(_)) => {}
                done => return done,
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
