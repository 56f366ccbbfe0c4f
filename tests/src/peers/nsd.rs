//! An NSD of our own: the zone we print, read and served by somebody else's name server.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::{program, run};
use crate::observe;
use crate::world::ports;

/// Runs until dropped.
pub struct Nsd {
    /// Where it listens.
    pub address: SocketAddr,
    base: tempfile::TempDir,
    daemon: Child,
}

impl Nsd {
    /// Serves one zone, of these records beside the two every zone begins with.
    pub fn start(zone: &str, records: &str) -> anyhow::Result<Self> {
        Self::start_at(ports::free(), &[(zone, records)])
    }

    /// The same for several, listening there.
    pub fn start_at(address: SocketAddr, zones: &[(&str, &str)]) -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("gatepost-nsd-").tempdir()?;
        let b = base.path();
        let mut served = String::new();
        for (zone, records) in zones {
            let file = b.join(zone);
            let apex = format!(
                "{zone}. 60 IN SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 1\n{zone}. 60 IN NS ns.{zone}.\n"
            );
            fs::write(&file, format!("{apex}ns.{zone}. 60 IN A 127.0.0.1\n{records}"))?;
            run(Command::new(program("nsd-checkzone")).arg(zone).arg(&file)).context((*records).to_owned())?;
            let _ = write!(served, "zone:\n name: {zone}\n zonefile: {}\n", file.display());
        }
        let config = b.join("nsd.conf");
        let text = format!(
            "server:\n ip-address: {}@{}\n username: \"\"\n chroot: \"\"\n database: \"\"\n pidfile: \"\"\n zonesdir: \"{b}\"\n \
             zonelistfile: \"{b}/zones\"\n xfrdfile: \"{b}/xfrd\"\n xfrdir: \"{b}\"\n server-count: 1\n rrl-ratelimit: 0\nremote-control:\n \
             control-enable: no\n{served}",
            address.ip(),
            address.port(),
            b = b.display(),
        );
        fs::write(&config, text)?;
        let log = fs::File::create(b.join("log"))?;
        let daemon = Command::new(program("nsd"))
            .args(["-d", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start NSD")?;
        let nsd = Self { address, base, daemon };
        let said = || fs::read_to_string(nsd.base.path().join("log")).unwrap_or_default();
        observe::until_ok("NSD to listen", || TcpStream::connect(address).map(drop).with_context(said));
        Ok(nsd)
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // Told so, it ends its children as well.
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
    }
}
