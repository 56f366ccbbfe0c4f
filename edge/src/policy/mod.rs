//! The moments of judgement. Nothing here names a socket or a TLS type: facts are handed in.
//!
//! * [`access`]: at connect, MAIL and RCPT, by the owners' lists.
//! * [`client`]: at RCPT, by what DNS lists say of who connects.
//! * [`helo`]: what EHLO says, as evidence.
//! * [`recipient`]: at RCPT, by the directory.
//! * [`message`]: while the message flows by.
//! * [`judge`]: at its end.

pub mod access;
pub mod client;
pub mod deferrals;
pub mod helo;
pub mod judge;
pub mod message;
pub mod recipient;
