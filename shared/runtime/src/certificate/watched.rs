//! Files of the owner's, looked at while they are served: whatever renews them need tell nobody. What is half written, or
//! does not fit, is never served and is told once; the old pair stays.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{CertificateError, CertificateFiles, Loaded, Served};

/// Two files, and which state of them was judged.
#[derive(Debug)]
pub struct Watched {
    files: CertificateFiles,
    seen: Option<Mark>,
    judged: Option<Mark>,
}

/// Tells one state of the two files from another; of a link, what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark([Option<Stamp>; 2]);

/// Of one file, while it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    octets: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    fn of(files: &CertificateFiles) -> Self {
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some(Stamp {
                inode: (found.dev(), found.ino()),
                octets: found.len(),
                written: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            })
        };
        Self([stamp(&files.certificate), stamp(&files.key)])
    }
}

impl Watched {
    /// Of these files, which nobody has judged yet.
    pub fn new(files: CertificateFiles) -> Self {
        Self { files, seen: None, judged: None }
    }

    /// The files.
    pub fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// One look. `None`: nothing has changed, or whoever changes it may not be done: only a state that two looks
    /// have found is judged, once. `Ok(None)`: they hold what is served. Blocking.
    pub fn look(&mut self, served: &Served, hostname: &str) -> Option<Result<Option<Loaded>, CertificateError>> {
        let now = Mark::of(&self.files);
        let settled = self.seen.as_ref() == Some(&now);
        self.seen = Some(now.clone());
        if !settled || self.judged.as_ref() == Some(&now) {
            return None;
        }
        let read = served.read(Some(&self.files), hostname);
        // Changed under our hands: what was read may be half of one and half of the other.
        if Mark::of(&self.files) != now {
            return None;
        }
        self.judged = Some(now);
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "mail.example.org";

    fn write(files: &CertificateFiles) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        let pair = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(&files.certificate, &pair.0).unwrap();
        fs::write(&files.key, &pair.1).unwrap();
        pair
    }

    #[test]
    fn a_pair_is_served_once_both_files_are_there_and_rest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = CertificateFiles { certificate: at("chain.pem"), key: at("key.pem") };
        write(&files);
        let served = Served::new(Some(&files), HOST, None).unwrap();
        let mut watched = Watched::new(files.clone());
        let mut look = || watched.look(&served, HOST);
        assert!(look().is_none());
        assert!(matches!(look(), Some(Ok(None))), "judged once: it is what is served");
        assert!(look().is_none());
        // The chain comes first, its key a moment later: never a word about that.
        let new = CertificateFiles { certificate: at("new-chain.pem"), key: at("new-key.pem") };
        let (chain, key) = write(&new);
        fs::write(&files.certificate, &chain).unwrap();
        assert!(look().is_none());
        fs::write(&files.key, &key).unwrap();
        assert!(look().is_none());
        assert!(matches!(look(), Some(Ok(Some(_)))));
        // Half a chain that stays so is told once, by its file.
        fs::write(&files.certificate, &chain[..chain.len() / 2]).unwrap();
        assert!(look().is_none());
        let told = look().unwrap().unwrap_err().to_string();
        assert!(told.contains("chain.pem: is no PEM file"), "{told}");
        assert!(look().is_none());
        // So is one that is gone, and a key of another chain.
        fs::remove_file(&files.certificate).unwrap();
        assert!(look().is_none());
        assert!(look().unwrap().unwrap_err().to_string().contains("can't be read"));
        fs::write(&files.certificate, &chain).unwrap();
        fs::write(&files.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(look().is_none());
        let told = look().unwrap().unwrap_err().to_string();
        assert!(told.contains("key.pem: this key does not belong"), "{told}");
    }
}
