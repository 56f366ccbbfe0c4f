//! The only source of randomness: the operating system's, by way of the one crypto provider.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Fresh random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system always has random bytes for us");
    bytes
}
