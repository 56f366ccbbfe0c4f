//! `Splice`: a client's connection to the edge's 993, carried to the home as it is. After the opening record data frames
//! flow both ways, TLS of the client's and the home's that the edge can't read; between them the home says what
//! it has to say about the client. The first thing it says is [`SpliceNote::Taken`].

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Opens an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splice {
    /// Where the client connects from.
    pub client: SocketAddr,
}

/// What the home says to the edge, between the client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpliceNote {
    /// It serves this client.
    Taken,
    /// The client's login was wrong.
    WrongLogin,
}
