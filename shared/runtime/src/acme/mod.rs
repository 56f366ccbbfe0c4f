//! Certificates by ACME (RFC 8555): ordered, proven, kept, renewed in time, and served without a session noticing.
//!
//! [`keeper`] decides when; `order` goes through one order, from wherever it stands; [`folder`] keeps what a crash
//! must not lose; [`challenges`] are answered by whoever owns the ports 80 and 443.

mod account;
pub mod challenges;
mod client;
mod customer;
pub mod folder;
pub mod keeper;
mod keys;
mod lineage;
pub mod names;
mod order;
pub mod rollover;
pub mod settings;
pub mod standing;

use instant_acme::Error;
use thiserror::Error;

use self::folder::FolderError;
use crate::fetch::FetchError;

/// Why there is no certificate yet.
#[derive(Debug, Error)]
pub enum AcmeError {
    /// The CA refused, or can't be asked.
    #[error("{}", of_ca(.0))]
    Ca(#[from] Error),
    /// The CA could not be asked at all.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The CA looked and did not find what proves the names.
    #[error("the CA could not see that the names are ours: {0}")]
    NotProven(String),
    /// The CA does not take the proof that was chosen.
    #[error("for {name} the CA takes no {kind}; choose another challenge in [acme]")]
    NoChallenge {
        /// The name.
        name: String,
        /// The challenge.
        kind: &'static str,
    },
    /// The owner's program for the DNS failed.
    #[error("the program {hook} for the DNS failed: {why}")]
    Hook {
        /// Its path.
        hook: String,
        /// What it said.
        why: String,
    },
    /// What the CA gave can't be used.
    #[error("what the CA sent can't be used: {0}")]
    Useless(String),
    /// Our date is wrong, by the CA's.
    #[error(
        "this machine's date is {} days {} the CA's; set the clock right: nothing is ordered until then",
        days.unsigned_abs(), if *days > 0 { "ahead of" } else { "behind" }
    )]
    Date {
        /// How far ahead ours is, in days.
        days: i64,
    },
    /// A key can't be made or read.
    #[error("no key: {0}")]
    Key(String),
    /// Nothing can be kept.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// The CA's own words, or what kept us from hearing them.
fn of_ca(error: &Error) -> String {
    match error {
        Error::Api(problem) => {
            let subproblems: Vec<_> = problem.subproblems.iter().map(ToString::to_string).collect();
            let detail = problem.detail.as_deref().unwrap_or("no reason given");
            let kind = problem.r#type.as_deref().unwrap_or_default();
            let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
            format!("the CA refused ({kind}): {}", [&[detail.to_owned()], subproblems.as_slice()].concat().join("; "))
        }
        Error::Json(error) => format!("what the CA said is no proper answer: {error}"),
        Error::Timeout(_) => "the CA is not done yet; the order goes on later".to_owned(),
        error => format!("the CA can't be asked: {error}"),
    }
}

/// Reads or writes what is kept, off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FolderError> + Send + 'static,
) -> Result<T, AcmeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(panicked) => Err(AcmeError::Useless(format!("keeping it failed: {panicked}; this is a bug"))),
    }
}
