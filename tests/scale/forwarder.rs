//! A port that leads to one Redis or another one, like a host name whose address changes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

struct State {
    /// New connections lead to these ports, by turns.
    targets: Mutex<Vec<u16>>,
    made: AtomicUsize,
    clients: Mutex<Vec<TcpStream>>,
}

/// The port; ends with the test.
pub struct Forwarder {
    port: u16,
    state: Arc<State>,
}

impl Forwarder {
    pub fn to(target: u16) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            targets: Mutex::new(vec![target]),
            made: AtomicUsize::new(0),
            clients: Mutex::default(),
        });
        let forwarder = Forwarder { port, state: state.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = {
                    let targets = state.targets.lock().unwrap();
                    targets[state.made.fetch_add(1, Ordering::SeqCst) % targets.len()]
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                state.clients.lock().unwrap().push(client.try_clone().unwrap());
                let pair = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || copy(client, server));
                std::thread::spawn(move || copy(pair.1, pair.0));
            }
        });
        forwarder
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Leads new connections to these ports, by turns. The existing connections stay where they are.
    pub fn lead_to(&self, targets: &[u16]) {
        *self.state.targets.lock().unwrap() = targets.to_vec();
    }

    /// The number of connections that were made so far.
    pub fn made(&self) -> usize {
        self.state.made.load(Ordering::SeqCst)
    }

    /// Closes the oldest connection that is still open.
    pub fn close_one(&self) {
        let mut clients = self.state.clients.lock().unwrap();
        while !clients.is_empty() {
            if clients.remove(0).shutdown(Shutdown::Both).is_ok() {
                return;
            }
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// A port that accepts connections and never answers; ends with the test.
pub fn silent_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let _silent: Vec<_> = listener.incoming().collect();
    });
    address
}
