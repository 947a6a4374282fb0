//! The server: [`Server::builder`] collects settings and handlers and starts the threads, [`Server::stop`] ends them in
//! order.
//!
//! | file | role |
//! | --- | --- |
//! | `builder` | the builder |
//! | `handlers` | the handlers of the program and of the configuration |
//! | `limits` | the limits of the program and of the configuration |
//! | `check` | checks a configuration without starting anything |
//! | `start` | the steps of a start |
//! | `engine` | what the threads of the engine share, their channels, their start |
//! | `store` | connection to Redis, unsuitable versions, the private Redis |
//! | `stop` | the steps of a stop |
//! | `running` | a running server |
//! | `schedules` | the schedules of the configuration |
//! | `threads` | starts named threads |

mod builder;
mod check;
mod engine;
mod error;
mod handlers;
mod limits;
mod running;
mod schedules;
mod start;
mod stop;
mod store;
mod threads;

pub use crate::engine::liveness::{Liveness, Unresponsive};
pub use crate::server::builder::Builder;
pub use crate::server::check::check;
pub use crate::server::error::StartError;
pub use crate::server::running::Server;
