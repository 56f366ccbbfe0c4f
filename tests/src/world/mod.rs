//! The world around the pair: DNS, a private CA, hosts that take mail, test messages, free ports.

pub mod authority;
pub mod dns;
pub mod message;
pub mod ports;
pub mod sink;
pub mod strange_ca;
pub mod webhook;
