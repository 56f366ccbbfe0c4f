//! Gathers a message's bytes as they come in: in memory while it is small, then in an unlinked temporary
//! file, so that no crash leaves anything behind and no large message fills the memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gatepost_runtime::random;

use crate::message::{Body, MEMORY_OCTETS_MAX};

/// Octets gathered before they are written to the file by one job.
const BATCH_OCTETS: usize = 512 * 1024;

/// A message's bytes so far.
#[derive(Debug)]
pub struct Assembly {
    // Where files are made: `incoming/` in the state directory.
    folder: Arc<Path>,
    parts: Vec<Bytes>,
    part_octets: usize,
    file: Option<File>,
    octets: u64,
}

impl Assembly {
    /// Nothing yet. The folder exists.
    pub fn new(folder: Arc<Path>) -> Self {
        Self { folder, parts: Vec::new(), part_octets: 0, file: None, octets: 0 }
    }

    /// Octets so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Takes the next bytes. Now and then it waits for the disk, off the async threads.
    pub async fn add(&mut self, bytes: Bytes) -> io::Result<()> {
        self.octets += bytes.len() as u64;
        self.part_octets += bytes.len();
        self.parts.push(bytes);
        let most = if self.file.is_some() { BATCH_OCTETS } else { MEMORY_OCTETS_MAX };
        if self.part_octets > most { self.spill().await } else { Ok(()) }
    }

    /// That was all.
    pub async fn finish(mut self) -> io::Result<Body> {
        if self.file.is_some() {
            self.spill().await?;
        }
        Ok(match self.file {
            Some(file) => Body::File { file: Arc::new(file), skip: 0, octets: self.octets },
            None => Body::Memory(self.parts.into()),
        })
    }

    async fn spill(&mut self) -> io::Result<()> {
        let parts = std::mem::take(&mut self.parts);
        self.part_octets = 0;
        let (file, folder) = (self.file.take(), Arc::clone(&self.folder));
        let written = tokio::task::spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => unlinked(&folder)?,
            };
            for part in parts {
                file.write_all(&part)?;
            }
            Ok::<_, io::Error>(file)
        });
        self.file = Some(written.await.map_err(io::Error::other)??);
        Ok(())
    }
}

/// A file without a name.
fn unlinked(folder: &Path) -> io::Result<File> {
    let path: PathBuf = folder.join(format!("{:032x}", u128::from_be_bytes(random::bytes())));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn assemble(sizes: &[usize]) -> (Body, Vec<u8>, usize) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut assembly = Assembly::new(folder.path().into());
        let mut whole = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let bytes = vec![i.to_le_bytes()[0]; *size];
            whole.extend_from_slice(&bytes);
            assembly.add(Bytes::from(bytes)).await.expect("taken");
        }
        assert_eq!(assembly.octets(), whole.len() as u64);
        let left = fs::read_dir(folder.path()).expect("read").count();
        (assembly.finish().await.expect("whole"), whole, left)
    }

    #[tokio::test]
    async fn small_stays_in_memory_and_large_goes_to_a_nameless_file() {
        for (sizes, in_memory) in [
            (&[][..], true),
            (&[1, 2, 3], true),
            (&[MEMORY_OCTETS_MAX], true),
            (&[MEMORY_OCTETS_MAX, 1], false),
            (&[65_536; 40], false),
        ] {
            let (body, whole, left) = assemble(sizes).await;
            assert_eq!(matches!(body, Body::Memory(_)), in_memory, "{sizes:?}");
            assert_eq!(left, 0, "no name is left in the folder");
            let mut read = Vec::new();
            for chunk in body.chunks() {
                read.extend_from_slice(&chunk.expect("read"));
            }
            assert!(read == whole, "{sizes:?}");
        }
    }
}
