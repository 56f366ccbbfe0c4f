//! What the disk allows: a bare loop of durable Maildir writes, nothing else.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use gatepost_runtime::clock::Clock;

/// What was seen.
#[derive(Debug)]
pub struct Bare {
    /// From the first to the last write.
    pub elapsed: Duration,
    /// Each write.
    pub writes: Vec<Duration>,
}

/// `writers` threads write `messages` files of `octets`: temporary name, sync, rename, directory sync.
pub fn run(folder: &Path, writers: usize, messages: usize, octets: usize) -> Result<Bare> {
    for name in ["tmp", "new", "cur"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let clock = Clock::real();
    let next = AtomicUsize::new(0);
    let contents = vec![b'x'; octets];
    let start = clock.now();
    let durations = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| -> Result<Vec<Duration>> {
                    let mut times = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= messages {
                            return Ok(times);
                        }
                        let start = clock.now();
                        durable_write(folder, number, &contents)?;
                        times.push(clock.now() - start);
                    }
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??);
        }
        Ok(all)
    })?;
    Ok(Bare { elapsed: clock.now() - start, writes: durations })
}

#[expect(clippy::disallowed_methods, reason = "the yardstick is the bare system calls")]
fn durable_write(folder: &Path, number: usize, contents: &[u8]) -> Result<()> {
    let draft = folder.join("tmp").join(number.to_string());
    let mut file = File::create_new(&draft)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join("new").join(number.to_string()))?;
    File::open(folder.join("new"))?.sync_all()?;
    Ok(())
}
