//! How Gatepost's protocol meets the world: tokio, TLS, files, DNS, config, logs.

pub mod alarm;
pub mod attempt;
pub mod authentication;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod control;
pub mod drive;
pub mod durable;
pub mod event;
pub mod host;
pub mod identity;
pub mod kept;
pub mod listen;
pub mod log;
pub mod maildrop;
pub mod metrics;
pub mod pace;
pub mod program;
pub mod random;
pub mod resolver;
pub mod sendmail;
pub mod shutdown;
pub mod steady;
pub mod tunnel;
