//! A lineage: one certificate after the other for the same names and the same kind of key.

use std::path::Path;

use zeroize::Zeroizing;

use super::folder::Folder;
use super::keys;
use super::keys::KeyKind;
use super::settings::Settings;
use crate::certificate::{CertificateError, Loaded, Place};

/// What is wanted of a CA, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    /// From whom, and how.
    pub(super) settings: Settings,
    /// For what; lower case, at least one, the host's own first.
    pub(super) names: Vec<String>,
    /// With what kind of key.
    pub(super) kind: KeyKind,
    /// Where it is served.
    pub(super) place: Place,
}

impl Lineage {
    /// For a host's own name and those its owner adds: one, and one of RSA beside it where that is wanted.
    pub(super) fn all(settings: &Settings, hostname: &str) -> Vec<Self> {
        let mut names = vec![hostname.to_ascii_lowercase()];
        for name in &settings.names {
            let name = name.as_str().to_ascii_lowercase();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let main = Self { settings: settings.clone(), names, kind: KeyKind::Ecdsa, place: Place::Main };
        let rsa = settings.rsa.then(|| Self { kind: KeyKind::Rsa, place: Place::Rsa, ..main.clone() });
        std::iter::once(main).chain(rsa).collect()
    }

    /// The same for one other name alone.
    pub(super) fn for_name(&self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        Self {
            settings: Settings { names: Vec::new(), rsa: false, ..self.settings.clone() },
            names: vec![name.clone()],
            kind: KeyKind::Ecdsa,
            place: Place::Name(name),
        }
    }

    /// What is kept for it lies there.
    pub(super) fn folder(&self, state: &Path) -> Folder {
        let first = self.names.first().map_or("certificate", String::as_str);
        let name = match self.kind {
            KeyKind::Ecdsa => first.to_owned(),
            // No host name has such an end.
            KeyKind::Rsa => format!("{first}.rsa-2048"),
        };
        Folder::new(state, &self.settings.directory, &name)
    }

    /// What is kept for it: the certificate, and its key as PEM. Blocking.
    pub(super) fn kept(&self, state: &Path) -> Result<Option<(Loaded, Zeroizing<String>)>, CertificateError> {
        let folder = self.folder(state);
        let path = folder.certificate_path().display().to_string();
        let wrong = |why: String| CertificateError { path: path.clone(), why };
        let Some(pem) = folder.certificate().map_err(|error| wrong(error.to_string()))? else { return Ok(None) };
        let loaded = Loaded::of_pem(&pem, &path)?;
        let key = keys::of_pem(&pem).map_err(|error| wrong(error.to_string()))?;
        Ok(Some((loaded, key)))
    }
}
