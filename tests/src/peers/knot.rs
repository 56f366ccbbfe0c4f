//! A Knot of our own: signs a world of zones from the root down with keys it makes itself, and serves them.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::{program, run};
use crate::observe;
use crate::world::ports;

/// How a zone is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Signed, and its parent says so.
    Well,
    /// Its parent says that it is not signed, and it is not.
    Not,
    /// Signed, and then a word in its records was replaced by another of its length.
    ThenChanged(&'static str, &'static str),
}

/// Runs until dropped.
pub struct Knot {
    /// Where it listens.
    pub address: SocketAddr,
    base: tempfile::TempDir,
    daemon: Child,
}

const POLICY: &str =
    "policy:\n  - id: ours\n    algorithm: ecdsap256sha256\n    manual: on\n    single-type-signing: on\n";

impl Knot {
    /// Serves the root and these zones directly below it; records have absolute names. All but the root is one label deep.
    pub fn start(root: &str, zones: &[(&str, Signed, &str)]) -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("gatepost-knot-").tempdir()?;
        let b = base.path();
        let apex = |zone: &str| {
            format!("{zone}. 60 IN SOA ns. hostmaster. 1 3600 600 86400 1\n{zone}. 60 IN NS ns.\n").replace("..", ".")
        };
        // Those that are changed afterwards are signed by somebody else, so that nobody signs them again.
        let mut of_root = format!("{}ns. 60 IN A 127.0.0.1\n{root}", apex("."));
        let mut served = String::new();
        for (zone, signed, records) in zones {
            let file = b.join(format!("{zone}.zone"));
            let _ = writeln!(of_root, "{zone}. 60 IN NS ns.");
            fs::write(&file, format!("{}{records}", apex(zone)))?;
            let mut signing = "off";
            match signed {
                Signed::Not => {}
                Signed::Well => {
                    signing = "on";
                    of_root.push_str(&key(b, zone, "ds")?);
                }
                Signed::ThenChanged(before, after) => {
                    let key = run(Command::new(program("ldns-keygen")).current_dir(b).args([
                        "-a",
                        "ECDSAP256SHA256",
                        "-k",
                        zone,
                    ]))?;
                    let key = key.trim();
                    run(Command::new(program("ldns-signzone"))
                        .current_dir(b)
                        .arg("-f")
                        .arg("signed")
                        .arg(&file)
                        .arg(key))?;
                    let text = fs::read_to_string(b.join("signed"))?;
                    anyhow::ensure!(text.contains(before), "no {before} in\n{text}");
                    fs::write(&file, text.replace(before, after))?;
                    of_root.push_str(&fs::read_to_string(b.join(format!("{key}.ds")))?);
                }
            }
            let _ = write!(
                served,
                "  - domain: {zone}.\n    file: \"{}\"\n    dnssec-signing: {signing}\n    dnssec-policy: ours\n",
                file.display()
            );
        }
        fs::write(b.join("root.zone"), of_root)?;
        key(b, ".", "ds")?;
        let address = ports::free();
        let text = format!(
            "server:\n    rundir: \"{b}\"\n    listen: {ip}@{port}\ndatabase:\n    storage: \"{b}/db\"\nlog:\n  - target: stderr\n    any: info\n\
             {POLICY}template:\n  - id: default\n    zonefile-load: difference-no-serial\n    zonefile-sync: -1\n    journal-content: all\n\
             zone:\n  - domain: .\n    file: \"{b}/root.zone\"\n    dnssec-signing: on\n    dnssec-policy: ours\n{served}",
            b = b.display(),
            ip = address.ip(),
            port = address.port(),
        );
        let config = b.join("knot.conf");
        fs::write(&config, text)?;
        let log = fs::File::create(b.join("log"))?;
        let daemon = Command::new(program("knotd"))
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start Knot")?;
        let knot = Self { address, base, daemon };
        let said = || fs::read_to_string(knot.base.path().join("log")).unwrap_or_default();
        observe::until_ok("Knot to listen", || TcpStream::connect(address).map(drop).with_context(said));
        Ok(knot)
    }

    /// The root's key, as a file of trust anchors.
    pub fn anchors(&self) -> anyhow::Result<PathBuf> {
        let path = self.base.path().join("anchors");
        // As keymgr writes it: name, DNSKEY, flags and so on, without a class.
        let key = key(self.base.path(), ".", "dnskey")?;
        fs::write(&path, key.replacen(" DNSKEY ", " 60 IN DNSKEY ", 1))?;
        Ok(path)
    }
}

/// What keymgr says of a zone's key, which it makes if there is none.
fn key(base: &Path, zone: &str, what: &str) -> anyhow::Result<String> {
    let config = base.join("keys.conf");
    let text = format!(
        "server:\n    rundir: \"{b}\"\ndatabase:\n    storage: \"{b}/db\"\n{POLICY}zone:\n  - domain: {zone}\n    dnssec-policy: ours\n",
        b = base.display()
    );
    fs::create_dir_all(base.join("db"))?;
    fs::write(&config, text)?;
    let zone = if zone == "." { zone.to_owned() } else { format!("{zone}.") };
    let keymgr = |words: &[&str]| run(Command::new(program("keymgr")).arg("-c").arg(&config).arg(&zone).args(words));
    if keymgr(&[what]).map_or(true, |said| said.trim().is_empty()) {
        keymgr(&["generate", "algorithm=ecdsap256sha256", "ksk=yes", "zsk=yes"])?;
    }
    let said = keymgr(&[what])?;
    // Of the digests the strongest, of the keys the only one.
    let line = said.lines().last().context("keymgr says nothing")?;
    Ok(format!("{line}\n"))
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
