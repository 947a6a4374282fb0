//! Connections of an HTTP client that read what a server said before it stopped reading.
//!
//! A server may answer before it has read the whole request, with 413 for a body that is too large, say, and close.
//! Then sending fails, and the answer is there all the same (RFC 9112, section 9.5). It tells more than the failure.

use std::io::{self, ErrorKind};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Puts an [`EarlyAnswer`] around a connection. It belongs below TLS, which then goes on as if all had been sent.
#[derive(Debug)]
pub(crate) struct EarlyAnswerConnector;

impl<In: Transport> Connector<In> for EarlyAnswerConnector {
    type Out = EarlyAnswer<In>;

    fn connect(&self, _: &ConnectionDetails, below: Option<In>) -> Result<Option<EarlyAnswer<In>>, Error> {
        Ok(below.map(|below| EarlyAnswer { below, sending: Sending::Possible }))
    }
}

/// A connection whose failure to send is told only when there is no answer to read.
#[derive(Debug)]
pub(crate) struct EarlyAnswer<T> {
    below: T,
    sending: Sending,
}

#[derive(Debug)]
enum Sending {
    Possible,
    /// It failed, and nothing was read since. What is still to be sent is thrown away.
    Failed(io::Error),
    /// It failed, and that was told, or an answer came.
    Over,
}

impl<T: Transport> Transport for EarlyAnswer<T> {
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
                // The time for this look is over.
                Err(_) => {}
            }
        }
        read
    }

    /// Never for another request once sending has failed.
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
