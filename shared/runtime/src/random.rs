//! The only source of randomness: the operating system's, by way of the one crypto provider.

use std::convert::Infallible;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use gatepost_protocol::seal::rand_core::{TryCryptoRng, TryRng};

/// Fresh random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

fn fill(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the operating system always has random bytes for us");
}

/// The same source, for signatures that need some.
pub(crate) fn for_signing() -> SystemRandom {
    SystemRandom::new()
}

/// The same source, for code that takes randomness as an argument.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl TryRng for System {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes(bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_ne_bytes(bytes()))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        fill(into);
        Ok(())
    }
}

impl TryCryptoRng for System {}
