//! An HTTP client whose calls end early when the attempt gets a stop signal.
//!
//! A call of ureq blocks until its timeout. Here each read is split into short ones, and between them the connection checks
//! the stop signal. One attempt after another uses a connection, so the connection finds the signal in a thread-local
//! variable: all calls of an attempt run on its worker's thread.

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
use crate::net::early_response::EarlyResponseConnector;

/// The longest read between two checks of the stop signal.
const TICK: Duration = Duration::from_millis(100);

thread_local! {
    static STOP: RefCell<Option<StopSignal>> = const { RefCell::new(None) };
}

/// Runs calls of a client from [`agent`]. They end with an error as soon as `stop` is set.
pub(super) fn scope<T>(stop: &StopSignal, calls: impl FnOnce() -> T) -> T {
    /// Clears the signal, also after a panic.
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

/// A client whose calls inside [`scope`] can be cancelled.
pub(super) fn agent(config: Config) -> Agent {
    let connector =
        ().chain(TcpConnector::default()).chain(EarlyResponseConnector).chain(CancellableConnector);
    #[cfg(feature = "tls")]
    let connector = connector.chain(ureq::unversioned::transport::RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Makes connections cancellable. It must be below TLS: a read of TLS that ends early would corrupt its state.
#[derive(Debug)]
pub(super) struct CancellableConnector;

impl<In: Transport> Connector<In> for CancellableConnector {
    type Out = Cancellable<In>;

    fn connect(&self, _: &ConnectionDetails, below: Option<In>) -> Result<Option<Cancellable<In>>, Error> {
        Ok(below.map(Cancellable))
    }
}

#[derive(Debug)]
pub(super) struct Cancellable<T>(T);

impl<T: Transport> Transport for Cancellable<T> {
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
                return Err(io::Error::other("stopped").into());
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
