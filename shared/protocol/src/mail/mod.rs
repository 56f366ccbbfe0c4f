//! The nouns of mail. Uses nothing else of this crate but what a network is; everything else may use it.

pub mod access;
pub mod address;
pub mod address_set;
pub mod arc;
pub mod canonical;
pub mod dane;
pub mod demand;
pub mod directory;
pub mod dns_list;
pub mod envelope;
pub mod header;
pub mod mta_sts;
pub mod outcome;
pub mod pattern;
pub mod policy;
pub mod received;
pub mod reply;
pub mod report;
pub mod results;
pub mod services;
pub mod signature;
pub mod spf;
pub mod srs;
pub mod transport;
pub mod verdict;
