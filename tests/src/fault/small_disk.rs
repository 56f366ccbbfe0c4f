//! A file system with little room, to fill. Mounting wants root, so where the tests run as somebody
//! else, sudo is asked, without a question.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::peers::{privileged, run};

/// A mounted file system of its own; unmounted when dropped.
pub struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// With room for about so many octets.
    pub fn mount(octets: u64) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("gatepost-disk-").tempdir()?;
        let owner = format!("uid={},gid={}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let options = format!("size={octets},mode=0700,{owner}");
        run(privileged("mount").args(["-t", "tmpfs", "-o", &options, "gatepost-test"]).arg(directory.path()))
            .context("mounting a small file system")?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills it to the last octet; gives the file that does.
    pub fn fill(&self) -> anyhow::Result<PathBuf> {
        use std::io::Write as _;
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path)?;
        let block = vec![0; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..1]).is_ok() {}
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = privileged("umount").arg("-l").arg(self.path()).output();
    }
}
