//! Lets the HTTP client read a response that the server sent before it had read the whole request.
//!
//! A server may respond early, for example with 413 to a body that is too large, and close the connection. Then the client
//! fails to send the rest, but the response has arrived (RFC 9112, section 9.5), and says more than the failure.

use std::io::{self, ErrorKind};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Wraps a connection in an [`EarlyResponse`]. It must be below TLS, which then goes on as if all had been sent.
#[derive(Debug)]
pub(crate) struct EarlyResponseConnector;

impl<In: Transport> Connector<In> for EarlyResponseConnector {
    type Out = EarlyResponse<In>;

    fn connect(&self, _: &ConnectionDetails, below: Option<In>) -> Result<Option<EarlyResponse<In>>, Error> {
        Ok(below.map(|below| EarlyResponse { below, sending: Sending::Possible }))
    }
}

/// A connection that reports a failure to send only if no response can be read.
#[derive(Debug)]
pub(crate) struct EarlyResponse<T> {
    below: T,
    sending: Sending,
}

#[derive(Debug)]
enum Sending {
    Possible,
    /// Sending failed, and nothing was read since then. All further output is dropped.
    Failed(io::Error),
    /// Sending failed, and the failure was reported or a response arrived.
    Over,
}

impl<T: Transport> Transport for EarlyResponse<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.below.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if !matches!(self.sending, Sending::Possible) {
            return Ok(());
        }
        match self.below.transmit_output(amount, timeout) {
            Err(Error::Io(error)) if is_closed(&error) => {
                self.sending = Sending::Failed(error);
                Ok(())
            }
            done => done,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let read = self.below.await_input(timeout);
        if matches!(self.sending, Sending::Failed(_)) {
            match read {
                Ok(true) => self.sending = Sending::Over,
                Ok(false) | Err(Error::Io(_)) => {
                    if let Sending::Failed(error) = std::mem::replace(&mut self.sending, Sending::Over) {
                        return Err(error.into());
                    }
                }
                // A timeout of this one read.
                Err(_) => {}
            }
        }
        read
    }

    /// A connection on which sending failed is not reused.
    fn is_open(&mut self) -> bool {
        matches!(self.sending, Sending::Possible) && self.below.is_open()
    }

    fn is_tls(&self) -> bool {
        self.below.is_tls()
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}
