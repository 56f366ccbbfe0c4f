//! A message's body while it arrives: in memory, and from [`MEMORY_OCTETS_MAX`] on in an unlinked
//! temporary file, so that nothing is left behind however it ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_runtime::random;

use crate::message::{Body, MEMORY_OCTETS_MAX};

/// A body that is not whole yet.
#[derive(Debug, Default)]
pub struct Incoming {
    parts: Vec<Bytes>,
    held: usize,
    file: Option<Arc<File>>,
    written: u64,
}

impl Incoming {
    /// Takes the next bytes.
    pub async fn push(&mut self, directory: &Path, bytes: Bytes) -> io::Result<()> {
        self.held += bytes.len();
        self.parts.push(bytes);
        if self.held > MEMORY_OCTETS_MAX { self.write(directory).await } else { Ok(()) }
    }

    /// The body is whole.
    pub async fn end(mut self, directory: &Path) -> io::Result<Body> {
        if self.file.is_some() {
            self.write(directory).await?;
        }
        Ok(match self.file {
            Some(file) => Body::File { file, skip: 0, octets: self.written },
            None => Body::Memory(self.parts.into()),
        })
    }

    /// Moves what is held to the file.
    async fn write(&mut self, directory: &Path) -> io::Result<()> {
        let parts = std::mem::take(&mut self.parts);
        let held = std::mem::take(&mut self.held);
        let (file, position) = (self.file.take(), self.written);
        let directory = directory.to_owned();
        let write = move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(unlinked(&directory)?),
            };
            let mut position = position;
            for part in parts {
                file.write_all_at(&part, position)?;
                position += part.len() as u64;
            }
            Ok::<_, io::Error>(file)
        };
        self.file = Some(tokio::task::spawn_blocking(write).await.map_err(io::Error::other)??);
        self.written += held as u64;
        Ok(())
    }
}

/// A file without a name.
fn unlinked(directory: &Path) -> io::Result<File> {
    let name = directory.join(format!("{:032x}", u128::from_be_bytes(random::bytes())));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
    fs::remove_file(&name)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_whole_on_either_side_of_the_bound() {
        let directory = tempfile::tempdir().expect("a folder");
        for (octets, in_file) in
            [(0, false), (MEMORY_OCTETS_MAX, false), (MEMORY_OCTETS_MAX + 1, true), (1_000_000, true)]
        {
            let bytes: Vec<u8> = (0..octets).map(|n| u8::try_from(n % 251).expect("small")).collect();
            let mut incoming = Incoming::default();
            for piece in bytes.chunks(10_000) {
                incoming.push(directory.path(), Bytes::copy_from_slice(piece)).await.expect("taken");
            }
            let body = incoming.end(directory.path()).await.expect("whole");
            assert_eq!(matches!(body, Body::File { .. }), in_file, "{octets}");
            let back: Vec<u8> = body.chunks().flat_map(|chunk| chunk.expect("read").to_vec()).collect();
            assert_eq!(back, bytes);
            assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0, "no name is left");
        }
    }
}
