//! A scan of a message's header section as it streams by.
