//! Reads TOML: unknown keys are refused with the nearest known one, every error has file, line,
//! value and remedy. Units: [`Size`], [`Span`].

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// What is wrong with a config file, as one readable text: `home.toml:12: …`, the line, the remedy.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A value and where it stands, for checks after parsing.
pub type Placed<T> = toml::Spanned<T>;

/// A file that was read; kept to place later errors.
#[derive(Clone, Debug)]
pub struct Source {
    _todo: (),
}

impl Source {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let _ = path;
        todo!()
    }

    /// Parses the whole file. `T` denies unknown fields.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        todo!()
    }

    /// An error about a value: what is wrong, what would be right.
    pub fn error<T>(&self, at: &Placed<T>, wrong: &str, remedy: &str) -> ConfigError {
        let _ = (at, wrong, remedy);
        todo!()
    }
}

/// A number of octets: `50 MiB`, `4 KiB`, `1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Size(pub u64);

/// A length of time: `30 s`, `5 min`, `4 h`, `5 d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Span(pub Duration);

impl TryFrom<toml::Value> for Size {
    type Error = String;
    fn try_from(value: toml::Value) -> Result<Self, String> {
        let _ = value;
        todo!()
    }
}

impl TryFrom<toml::Value> for Span {
    type Error = String;
    fn try_from(value: toml::Value) -> Result<Self, String> {
        let _ = value;
        todo!()
    }
}
