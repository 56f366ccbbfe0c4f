//! Free loopback ports, chosen before a program starts so that it keeps them over a restart. Taken
//! from below the range the system gives to outgoing connections, and never handed out twice.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;

use gatepost_runtime::random;

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A loopback address nobody listens on.
///
/// # Panics
/// If 10,000 tries found none.
pub fn free() -> SocketAddr {
    for _ in 0..10_000 {
        let port = FIRST + u16::from_be_bytes(random::bytes::<2>()) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !given.get_or_insert_default().insert(port) {
            continue;
        }
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free loopback port between {FIRST} and {}", FIRST + COUNT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_twice() {
        let ports: HashSet<u16> = (0..200).map(|_| free().port()).collect();
        assert_eq!(ports.len(), 200);
    }
}
