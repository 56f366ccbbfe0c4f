//! What a login at an edge entitles it to: a random token bound to that edge and login, for some
//! hours, in memory only. Without one the home queues and signs nothing that an edge brings.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::pairing::NodeKey;

/// How long a grant lives. A session at the edge may last as long.
pub const LIFETIME: Duration = Duration::from_hours(6);
/// Grants alive at once; beyond them the oldest end early (its session has to log in again).
pub const GRANTS_MAX: usize = 20_000;

/// Names a grant; whoever knows it may use it, from its edge.
pub type GrantId = [u8; 16];

/// Who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Login name.
    pub login: String,
    /// The password that was used: the grant ends with it.
    pub password: i64,
    edge: NodeKey,
    expires: Instant,
}

/// All grants alive.
#[derive(Debug, Default)]
pub struct Grants(Mutex<Alive>);

#[derive(Debug, Default)]
struct Alive {
    grants: HashMap<GrantId, Grant>,
    // In the order of their expiry, which is that of their issue.
    order: VecDeque<(Instant, GrantId)>,
}

impl Grants {
    /// Issues one, named by 16 random bytes.
    pub fn issue(&self, id: GrantId, edge: NodeKey, login: String, password: i64, now: Instant) {
        let mut alive = self.alive();
        let Alive { grants, order } = &mut *alive;
        while let Some((expires, oldest)) = order.front() {
            if *expires > now && order.len() < GRANTS_MAX {
                break;
            }
            grants.remove(oldest);
            order.pop_front();
        }
        let expires = now + LIFETIME;
        grants.insert(id, Grant { login, password, edge, expires });
        order.push_back((expires, id));
    }

    /// The grant of that name, if it is alive and was given to this edge.
    pub fn check(&self, id: &GrantId, edge: NodeKey, now: Instant) -> Option<Grant> {
        self.alive().grants.get(id).filter(|grant| grant.edge == edge && grant.expires > now).cloned()
    }

    fn alive(&self) -> std::sync::MutexGuard<'_, Alive> {
        // Every change is whole before the lock is let go.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::clock::Clock;

    use super::*;

    #[test]
    fn is_good_at_its_edge_until_it_expires() {
        let (grants, now) = (Grants::default(), Clock::real().now());
        let (edge, other) = (NodeKey::of_spki(b"edge"), NodeKey::of_spki(b"other"));
        grants.issue([1; 16], edge, "alice@example.org".into(), 7, now);
        assert_eq!(grants.check(&[1; 16], edge, now).map(|grant| grant.password), Some(7));
        assert_eq!(grants.check(&[1; 16], other, now), None);
        assert_eq!(grants.check(&[2; 16], edge, now), None);
        assert!(grants.check(&[1; 16], edge, now + LIFETIME.saturating_sub(Duration::from_secs(1))).is_some());
        assert_eq!(grants.check(&[1; 16], edge, now + LIFETIME), None);
    }

    #[test]
    fn never_more_than_the_bound() {
        let (grants, now) = (Grants::default(), Clock::real().now());
        let edge = NodeKey::of_spki(b"edge");
        let id = |n: usize| (n as u128).to_be_bytes();
        for n in 0..=GRANTS_MAX {
            grants.issue(id(n), edge, "alice@example.org".into(), 7, now);
        }
        assert_eq!(grants.alive().grants.len(), GRANTS_MAX);
        assert_eq!(grants.check(&id(0), edge, now), None);
        assert!(grants.check(&id(GRANTS_MAX), edge, now).is_some());
    }
}
