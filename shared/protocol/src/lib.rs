//! What Gatepost's two programs say: the nouns of mail, SMTP, the tunnel, sealing.
//!
//! Nothing here reads a clock, a file, a socket, the environment or a source of randomness:
//! time and random bytes are arguments, bytes go in, bytes and events come out. `gatepost-runtime`
//! is where these machines meet the world.
//!
//! * [`machine`]: the one contract every protocol machine follows.
//! * [`mail`]: addresses, envelopes, replies, outcomes, trace fields, the directory.
//! * [`sasl`]: turns of a login, for SMTP and IMAP alike.
//! * [`smtp`]: lines, commands, bodies; the server and the client machine.
//! * [`tunnel`]: frames, hello, heartbeats, transfers, one file a verb.
//! * [`seal`]: mail sealed to the home's public key. Sealing only: opening lives in the home.
//! * [`pairing`]: the `gp1…` form of a node's key.
//! * [`renewal`]: when a certificate is renewed, and when to try again.
//! * [`autoconfig`]: the settings of mail programs.
//! * [`network`]: networks of IP addresses, and what counts as one client.

pub mod autoconfig;
pub mod machine;
pub mod mail;
pub mod network;
pub mod pairing;
pub mod renewal;
pub mod sasl;
pub mod seal;
pub mod secret;
pub mod sendmail;
pub mod smtp;
pub mod tunnel;
