//! The places of one door: so many in all, so many for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatepost_protocol::network::Network;

/// Bounds of one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address (IPv6: from one /64).
    pub connections_per_address_max: usize,
}

/// Why one was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The door is full.
    Full,
    /// Too many from this address.
    TooManyFromAddress,
}

/// The places of one door, counted over all its listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    limits: DoorLimits,
    all: usize,
    by_address: HashMap<Network, usize>,
}

/// One place at a door, freed on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: Network,
}

impl Places {
    /// All free.
    pub fn new(limits: DoorLimits) -> Self {
        Self(Arc::new(Mutex::new(Taken { limits, all: 0, by_address: HashMap::new() })))
    }

    /// The limits now.
    pub fn limits(&self) -> DoorLimits {
        self.taken().limits
    }

    /// Other limits from now on. Who is in stays in, even where there are more than may come in now.
    pub fn set_limits(&self, limits: DoorLimits) {
        self.taken().limits = limits;
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, address: IpAddr) -> Result<Place, Turned> {
        let address = Network::of_client(address);
        let mut taken = self.taken();
        if taken.all >= taken.limits.connections_max {
            return Err(Turned::Full);
        }
        let count = taken.by_address.get(&address).copied().unwrap_or(0);
        if count >= taken.limits.connections_per_address_max {
            return Err(Turned::TooManyFromAddress);
        }
        taken.by_address.insert(address, count + 1);
        taken.all += 1;
        Ok(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections_max: usize, connections_per_address_max: usize) -> Places {
        Places::new(DoorLimits { connections_max, connections_per_address_max })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = places(3, 2);
        let first = places.take(ip("192.0.2.1")).unwrap();
        let _second = places.take(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(places.take(ip("192.0.2.1")).unwrap_err(), Turned::TooManyFromAddress);
        let _other = places.take(ip("192.0.2.2")).unwrap();
        assert_eq!(places.take(ip("192.0.2.3")).unwrap_err(), Turned::Full);
        drop(first);
        places.take(ip("192.0.2.1")).unwrap();
    }

    #[test]
    fn one_slash_64_counts_as_one_address() {
        let places = places(10, 1);
        let _one = places.take(ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(places.take(ip("2001:db8:0:1:ffff::2")).unwrap_err(), Turned::TooManyFromAddress);
        places.take(ip("2001:db8:0:2::1")).unwrap();
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten() {
        let places = places(10, 10);
        drop(places.take(ip("192.0.2.1")).unwrap());
        let taken = places.taken();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0));
    }

    #[test]
    fn changed_limits_count_for_who_comes_next() {
        let places = places(2, 2);
        let _inside = [places.take(ip("192.0.2.1")).unwrap(), places.take(ip("192.0.2.1")).unwrap()];
        places.set_limits(DoorLimits { connections_max: 1, connections_per_address_max: 1 });
        assert_eq!(places.take(ip("192.0.2.2")).unwrap_err(), Turned::Full);
        places.set_limits(DoorLimits { connections_max: 9, connections_per_address_max: 3 });
        places.take(ip("192.0.2.1")).unwrap();
        assert_eq!(places.limits().connections_max, 9);
    }
}
