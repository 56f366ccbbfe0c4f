//! What is kept of certificates on disk: for each CA a folder with the account's key, made once; for each certificate
//! one file with chain and key together, so that no crash leaves a pair that does not fit; the order that runs; and how
//! often it failed, so that no restart asks a CA more often than it likes. Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::durable::{self, DurableError};

/// In the state directory.
const FOLDER: &str = "acme";
/// Octets of a file that is read.
const FILE_OCTETS_MAX: u64 = 256 * 1024;

/// Why something kept can't be read or written.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It can't be written.
    #[error(transparent)]
    Write(#[from] DurableError),
    /// It can't be read.
    #[error("can't read {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What is kept for one certificate of one CA.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    name: String,
}

/// Who we are to the CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAccount {
    /// The account's address, which CAA records name.
    pub url: String,
}

/// An order that was begun and not ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptOrder {
    /// The order's address.
    pub url: String,
    /// What it is for.
    pub names: Vec<String>,
    /// The key its certificate will be for, PEM.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for KeptOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptOrder({}, {:?})", self.url, self.names)
    }
}

/// The key that follows the one in use, before it does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNext {
    /// The key, PEM.
    pub key: Zeroizing<String>,
    /// When it was made, seconds since 1970.
    pub made_at: i64,
    /// Since when each look at the DNS has found its record there, seconds since 1970.
    pub shown_since: Option<i64>,
}

impl std::fmt::Debug for KeptNext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptNext({}, {:?})", self.made_at, self.shown_since)
    }
}

/// How it went lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTries {
    /// Failures since the last certificate.
    pub failures: u32,
    /// No order is begun before, seconds since 1970.
    pub not_before: i64,
    /// When that was written, seconds since 1970.
    pub at: i64,
    /// Why the last one failed.
    pub why: Option<String>,
}

impl Folder {
    /// Of the certificate called `name` (its first host name) of the CA with this directory. Makes nothing yet.
    pub fn new(state: &Path, directory: &str, name: &str) -> Self {
        // Two CAs, or a CA and its staging area, are never mixed up.
        let hash = digest(&SHA256, directory.as_bytes());
        let mark = URL_SAFE_NO_PAD.encode(hash.as_ref().get(..9).unwrap_or_default());
        Self { path: state.join(FOLDER).join(mark), name: name.to_owned() }
    }

    /// The account, once the CA knows it.
    pub fn account(&self) -> Result<Option<KeptAccount>, FolderError> {
        read_json(&self.path.join("account.json"))
    }

    /// Keeps it; `None`: the CA no longer knows it.
    pub fn keep_account(&self, account: Option<&KeptAccount>) -> Result<(), FolderError> {
        self.write_json("account.json", account)
    }

    /// The account's key, PEM.
    pub fn account_key(&self) -> Result<Option<Zeroizing<String>>, FolderError> {
        Ok(read_text(&self.path.join("account.pem"))?.map(Zeroizing::new))
    }

    /// Keeps it.
    pub fn keep_account_key(&self, pem: &str) -> Result<(), FolderError> {
        self.write("account.pem", pem.as_bytes())
    }

    /// Chain and key, PEM.
    pub fn certificate(&self) -> Result<Option<Zeroizing<String>>, FolderError> {
        Ok(read_text(&self.certificate_path())?.map(Zeroizing::new))
    }

    /// Where they are.
    pub fn certificate_path(&self) -> PathBuf {
        self.path.join(format!("{}.pem", self.name))
    }

    /// Keeps them.
    pub fn keep_certificate(&self, pem: &str) -> Result<(), FolderError> {
        self.write(&format!("{}.pem", self.name), pem.as_bytes())
    }

    /// The order that runs. One that can't be read is none: another is made.
    pub fn order(&self) -> Option<KeptOrder> {
        read_json(&self.path.join(self.order_name())).unwrap_or_default()
    }

    /// Keeps it; `None`: it has ended.
    pub fn keep_order(&self, order: Option<&KeptOrder>) -> Result<(), FolderError> {
        self.write_json(&self.order_name(), order)
    }

    /// The key that is to follow, if there is one.
    pub fn next(&self) -> Result<Option<KeptNext>, FolderError> {
        read_json(&self.path.join(self.next_name()))
    }

    /// Keeps it; `None`: it is in use.
    pub fn keep_next(&self, next: Option<&KeptNext>) -> Result<(), FolderError> {
        self.write_json(&self.next_name(), next)
    }

    /// How it went. What can't be read counts as nothing.
    pub fn tries(&self) -> KeptTries {
        read_json(&self.path.join(self.tries_name())).ok().flatten().unwrap_or_default()
    }

    /// Keeps it.
    pub fn keep_tries(&self, tries: &KeptTries) -> Result<(), FolderError> {
        self.write_json(&self.tries_name(), Some(tries))
    }

    fn order_name(&self) -> String {
        format!("{}.order.json", self.name)
    }

    fn next_name(&self) -> String {
        format!("{}.next.json", self.name)
    }

    fn tries_name(&self) -> String {
        format!("{}.tries.json", self.name)
    }

    fn write_json<T: Serialize>(&self, name: &str, value: Option<&T>) -> Result<(), FolderError> {
        let Some(value) = value else {
            let path = self.path.join(name);
            return if path.exists() { Ok(durable::remove(&path)?) } else { Ok(()) };
        };
        let text = serde_json::to_vec_pretty(value).expect("strings and numbers");
        self.write(name, &text)
    }

    fn write(&self, name: &str, contents: &[u8]) -> Result<(), FolderError> {
        durable::create_directory(&self.path)?;
        Ok(durable::write_file(&self.path.join(name), contents)?)
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FolderError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let read = serde_json::from_str(&text);
    read.map(Some).map_err(|error| FolderError::Read { path: path.to_owned(), why: error.to_string() })
}

fn read_text(path: &Path) -> Result<Option<String>, FolderError> {
    let wrong = |why: String| FolderError::Read { path: path.to_owned(), why };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > FILE_OCTETS_MAX => return Err(wrong("it is too large to be ours".to_owned())),
        _ => {}
    }
    fs::read_to_string(path).map(Some).map_err(|error| wrong(error.to_string()))
}
