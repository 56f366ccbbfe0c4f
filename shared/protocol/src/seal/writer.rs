//! Streaming seal to the home's public key.
