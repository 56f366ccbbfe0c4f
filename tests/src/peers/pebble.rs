//! Pebble, Let's Encrypt's own CA for tests: strict, and refusing some good nonces, as a CA may.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use super::{judged, program, run};
use crate::observe;
use crate::world::authority::Authority;
use crate::world::ports;

/// Where `tests/install` unpacks it.
pub(super) const FOLDER: &str = "/opt/gatepost-tests/pebble/usr/bin";
/// Of the nonces it gives out, in percent, it refuses so many.
const REFUSED_NONCES: &str = "15";

/// A CA that has a place and is not there yet.
pub struct Ca {
    base: tempfile::TempDir,
    api: SocketAddr,
    management: SocketAddr,
}

/// Where it looks for proofs.
#[derive(Clone, Copy, Debug)]
pub struct Proofs {
    /// Whom it asks for addresses.
    pub dns: SocketAddr,
    /// Where it looks for http-01.
    pub http: u16,
    /// Where it looks for tls-alpn-01.
    pub tls: u16,
}

/// How it is.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Profiles: name, and life of a certificate in seconds. The first is also what is given to who names none.
    pub profiles: Vec<(&'static str, u32)>,
    /// Takes only customers with this key: its name, and the HMAC key in base64url.
    pub external_account: Option<(&'static str, &'static str)>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { profiles: vec![("default", 90 * 24 * 3600)], external_account: None }
    }
}

/// Runs until dropped.
pub struct Pebble {
    daemon: Child,
    management: SocketAddr,
    root: PathBuf,
    log: PathBuf,
}

impl Ca {
    /// Chooses its place.
    pub fn new() -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("gatepost-pebble-").tempdir()?;
        Authority::new(base.path())?.issue(&["localhost", "127.0.0.1"])?;
        Ok(Self { base, api: ports::free(), management: ports::free() })
    }

    /// The address of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.api)
    }

    /// What vouches for its own web server.
    pub fn root(&self) -> PathBuf {
        self.base.path().join("ca.pem")
    }

    /// `acme` in a config, without the braces.
    pub fn settings(&self) -> String {
        format!(
            "email = \"you@example.org\", directory = \"{}\", root = \"{}\", retry = \"1 s\"",
            self.directory(),
            self.root().display()
        )
    }

    /// Starts it.
    pub fn start(&self, proofs: Proofs, manner: &Manner) -> anyhow::Result<Pebble> {
        let base = self.base.path();
        let mut profiles = String::new();
        for (name, life_s) in &manner.profiles {
            let comma = if profiles.is_empty() { "" } else { "," };
            write!(profiles, "{comma}\"{name}\":{{\"description\":\"a test\",\"validityPeriod\":{life_s}}}")?;
        }
        let keys = match manner.external_account {
            Some((id, key)) => format!("\"externalAccountMACKeys\":{{\"{id}\":\"{key}\"}},"),
            None => String::new(),
        };
        let config = format!(
            "{{\"pebble\":{{\"listenAddress\":\"{}\",\"managementListenAddress\":\"{}\",\"certificate\":\"{b}/localhost.pem\",\
             \"privateKey\":\"{b}/localhost.key\",\"httpPort\":{},\"tlsPort\":{},\"ocspResponderURL\":\"\",{keys}\
             \"externalAccountBindingRequired\":{},\"retryAfter\":{{\"authz\":1,\"order\":1}},\
             \"keyAlgorithm\":\"ecdsa\",\"profiles\":{{{profiles}}}}}}}",
            self.api,
            self.management,
            proofs.http,
            proofs.tls,
            manner.external_account.is_some(),
            b = base.display(),
        );
        let (file, log) = (base.join("pebble.json"), base.join("log"));
        fs::write(&file, config)?;
        let said = fs::File::create(&log)?;
        let daemon = Command::new(program("pebble"))
            .args(["-strict", "-config"])
            .arg(&file)
            .args(["-dnsserver", &proofs.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", REFUSED_NONCES)
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("can't start Pebble")?;
        let root = base.join("issuing.pem");
        let pebble = Pebble { daemon, management: self.management, root, log };
        observe::until_ok("Pebble to answer", || {
            // Made anew at each start.
            let root = self.ask(&format!("https://{}/roots/0", self.management))?;
            anyhow::ensure!(root.contains("BEGIN CERTIFICATE"), "{root}");
            Ok(fs::write(&pebble.root, root)?)
        });
        Ok(pebble)
    }

    fn ask(&self, url: &str) -> anyhow::Result<String> {
        let root = self.root();
        run(Command::new(program("curl")).args(["-sSf", "--max-time", "10", "--cacert"]).arg(root).arg(url))
    }

    /// What it knows of a certificate by its serial number, in hexadecimal.
    pub fn status_of(&self, pebble: &Pebble, serial: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&format!("https://{}/cert-status-by-serial/{serial}", pebble.management))?)?)
    }

    /// Revokes a certificate, kept as key and chain, as whoever has its key may.
    pub fn revoke(&self, kept: &Path) -> anyhow::Result<()> {
        let (directory, root) = (self.directory(), self.root().display().to_string());
        judged(include_str!("revoke.py"), [directory.as_str(), &root].into_iter(), &fs::read(kept)?)?;
        Ok(())
    }

    /// Says from now on that this certificate is to be renewed within this window, whatever it would say itself.
    pub fn suggest_renewal(&self, certificate: &Path, start: &str, end: &str) -> anyhow::Result<()> {
        let window = format!("{{\"suggestedWindow\":{{\"start\":\"{start}\",\"end\":\"{end}\"}}}}");
        let body = serde_json::json!({ "certificate": fs::read_to_string(certificate)?, "ariResponse": window });
        let url = format!("https://{}/set-renewal-info/", self.management);
        run(Command::new(program("curl")).args(["-sSf", "--max-time", "10", "--cacert"]).arg(self.root()).args([
            "-H",
            "Content-Type: application/json",
            "-d",
            &body.to_string(),
            &url,
        ]))?;
        Ok(())
    }
}

impl Pebble {
    /// What vouches for the certificates it issues.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it says of itself.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many accounts it has.
    pub fn accounts(&self) -> usize {
        let said = self.said();
        let last =
            said.lines().rev().find_map(|line| line.split_once("There are now ")?.1.split_once(" accounts in memory"));
        last.and_then(|(count, _)| count.parse().ok()).unwrap_or_default()
    }

    /// How often it looked for a proof.
    pub fn validations(&self) -> usize {
        self.said().matches("Pulled a task from the Tasks queue").count()
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> usize {
        self.said().matches("Issued certificate serial").count()
    }
}

/// The name server that comes with Pebble, which takes TXT records by HTTP, as a provider's would. Runs until dropped.
pub struct Provider {
    /// Where it answers.
    pub dns: SocketAddr,
    /// A program that puts a TXT record into it and takes it off, to be called with a verb, a name and a value.
    pub hook: PathBuf,
    base: tempfile::TempDir,
    daemon: Child,
}

impl Provider {
    /// Starts it.
    pub fn start() -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let base = tempfile::Builder::new().prefix("gatepost-provider-").tempdir()?;
        let (dns, management) = (ports::free(), ports::free());
        let hook = base.path().join("hook");
        let script = format!(
            "#!/bin/sh\nset -eu\necho \"$1 $2\" >>{b}/calls\ncase $1 in\n  add) verb=set-txt value=\", \\\"value\\\": \\\"$3\\\"\" ;;\n  \
             remove) verb=clear-txt value= ;;\nesac\nexec {curl} -sSf --max-time 10 -d \"{{\\\"host\\\": \\\"$2.\\\"$value}}\" \
             \"http://{management}/$verb\"\n",
            b = base.path().display(),
            curl = program("curl").display(),
        );
        fs::write(&hook, script)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        let daemon = Command::new(program("pebble-challtestsrv"))
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", ""])
            .args(["-dnsserver", &dns.to_string(), "-management", &management.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start pebble-challtestsrv")?;
        let provider = Self { dns, hook, base, daemon };
        observe::until_ok("the provider to listen", || Ok(std::net::TcpStream::connect(management).map(drop)?));
        Ok(provider)
    }

    /// How the hook was called, a line each.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.base.path().join("calls")).unwrap_or_default()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
