//! The stack people run today, from Debian's packages with its defaults: Postfix on the VPS,
//! Postfix at home, Dovecot's LMTP into a Maildir. STARTTLS in, TLS between.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use gatepost_runtime::clock::Clock;

use crate::peers::milters::Milter;

/// What the Postfix on the rented server is called.
const EDGE_NAME: &str = "chain-edge.example.test";

/// Runs until dropped.
#[derive(Debug)]
pub struct Chain {
    /// Where the world connects.
    pub smtp: SocketAddr,
    mail: PathBuf,
    processes: Vec<Child>,
    filters: Vec<Milter>,
}

impl Chain {
    /// Starts all three, for `domain`, under `folder` (which other users must be able to reach).
    pub fn start(folder: &Path, domain: &str) -> Result<Self> {
        Self::with(folder, domain, Ipv4Addr::LOCALHOST, Vec::new())
    }

    /// The same, listening there, with what judges mail on the rented server: policyd-spf, `OpenDKIM` and `OpenDMARC`, as
    /// their packages say. They ask the name server of the system, and let pass whatever comes from loopback.
    pub fn judging(folder: &Path, domain: &str, at: Ipv4Addr) -> Result<Self> {
        let filters = vec![Milter::opendkim(EDGE_NAME)?, Milter::opendmarc_beside_spf(EDGE_NAME)?];
        Self::with(folder, domain, at, filters)
    }

    fn with(folder: &Path, domain: &str, at: Ipv4Addr, filters: Vec<Milter>) -> Result<Self> {
        let (edge, home) = (free_port()?, free_port()?);
        let mail = folder.join("mail");
        fs::create_dir_all(&mail)?;
        let user = ids("mail")?;
        chown(&mail, Some(user.0), Some(user.1))?;
        certificate(folder, domain)?;
        let smtp = SocketAddr::from((at, edge));
        let mut chain = Self { smtp, mail, processes: Vec::new(), filters };
        chain.dovecot(folder)?;
        let judges = chain.judges();
        let relayed =
            format!("relay_domains = {domain}\ntransport_maps = inline:{{{domain}=smtp:[127.0.0.1]:{home}}}\n{judges}");
        chain.postfix(folder, "chain-edge", smtp, &relayed)?;
        let socket = folder.join("lmtp.sock");
        chain.postfix(
            folder,
            "chain-home",
            SocketAddr::from((Ipv4Addr::LOCALHOST, home)),
            &format!(
                "virtual_mailbox_domains = {domain}\nvirtual_mailbox_maps = static:x\nvirtual_transport = lmtp:unix:{}\n",
                socket.display()
            ),
        )?;
        for address in [smtp, SocketAddr::from((Ipv4Addr::LOCALHOST, home))] {
            wait_for("Postfix", || Ok(std::net::TcpStream::connect(address).is_ok()))?;
        }
        wait_for("Dovecot", || Ok(socket.exists()))?;
        Ok(chain)
    }

    /// Two Postfix under `folder`: one at home, which sends all to one on the rented server, which sends all to `world`.
    pub fn outbound(folder: &Path, world: SocketAddr) -> Result<Self> {
        let [edge, smtp] = [free_port()?, free_port()?].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        certificate(folder, "example.test")?;
        let mut chain = Self { smtp, mail: folder.join("mail"), processes: Vec::new(), filters: Vec::new() };
        let relay = |port: u16| format!("relayhost = [127.0.0.1]:{port}\n");
        chain.postfix(folder, "chain-edge", edge, &relay(world.port()))?;
        chain.postfix(folder, "chain-home", smtp, &relay(edge.port()))?;
        for address in [edge, smtp] {
            wait_for("Postfix", || Ok(std::net::TcpStream::connect(address).is_ok()))?;
        }
        Ok(chain)
    }

    /// Where a recipient's mail lies.
    pub fn maildir(&self, recipient: &str) -> PathBuf {
        self.mail.join(recipient)
    }

    /// The three masters, and what judges beside them.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Child::id).chain(self.filters.iter().map(Milter::pid)).collect()
    }

    /// What its package says to put into Postfix's config for each of them.
    fn judges(&self) -> String {
        if self.filters.is_empty() {
            return String::new();
        }
        let filters: Vec<String> = self.filters.iter().map(|filter| format!("inet:{}", filter.address)).collect();
        format!(
            "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination, check_policy_service \
             unix:private/policyd-spf\npolicyd-spf_time_limit = 3600\nsmtpd_milters = {}\n\
             milter_default_action = tempfail\n",
            filters.join(" ")
        )
    }

    fn dovecot(&mut self, folder: &Path) -> Result<()> {
        let w = folder.display();
        let config = format!(
            "base_dir = {w}/dovecot\nlog_path = {w}/dovecot.log\nprotocols = lmtp\nssl = no\nmail_location = maildir:{w}/mail/%u\n\
             mail_uid = mail\nmail_gid = mail\nfirst_valid_uid = 1\npassdb {{\n  driver = static\n}}\nuserdb {{\n  driver = static\n  \
             args = allow_all_users=yes uid=mail gid=mail home={w}/mail/%u\n}}\nservice lmtp {{\n  unix_listener {w}/lmtp.sock {{\n    \
             mode = 0666\n  }}\n}}\nservice anvil {{\n  chroot =\n}}\n"
        );
        let path = folder.join("dovecot.conf");
        fs::write(&path, config)?;
        self.spawn(Command::new("dovecot").arg("-F").arg("-c").arg(path))
    }

    fn postfix(&mut self, folder: &Path, name: &str, address: SocketAddr, extra: &str) -> Result<()> {
        let base = folder.join(name);
        for part in ["etc", "data", "spool"] {
            fs::create_dir_all(base.join(part))?;
        }
        let postfix = ids("postfix")?;
        chown(base.join("data"), Some(postfix.0), Some(postfix.1))?;
        let (b, w) = (base.display(), folder.display());
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {b}/spool\ndata_directory = {b}/data\ncommand_directory = /usr/sbin\n\
             daemon_directory = /usr/lib/postfix/sbin\nmaillog_file = {b}/maillog\nmaillog_file_prefixes = /\ninet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\nmyhostname = {name}.example.test\nmydestination =\nmynetworks = 127.0.0.0/8\nalias_maps =\n\
             smtpd_tls_cert_file = {w}/cert.pem\nsmtpd_tls_key_file = {w}/key.pem\nsmtpd_tls_security_level = may\n\
             smtp_tls_security_level = encrypt\nsmtp_dns_support_level = disabled\nsmtp_host_lookup = native\n{extra}"
        );
        fs::write(base.join("etc/main.cf"), main)?;
        let stock =
            fs::read_to_string("/etc/postfix/master.cf").context("is Postfix installed? tests/install does it")?;
        fs::write(base.join("etc/master.cf"), services(&stock, address))?;
        let output = Command::new("postfix").arg("-c").arg(base.join("etc")).arg("check").output()?;
        ensure!(output.status.success(), "postfix check: {}", String::from_utf8_lossy(&output.stderr));
        self.spawn(Command::new("/usr/lib/postfix/sbin/master").arg("-c").arg(base.join("etc")).arg("-d"))
    }

    fn spawn(&mut self, command: &mut Command) -> Result<()> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.processes.push(child);
        Ok(())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = Command::new("kill").arg(process.id().to_string()).status();
            let _ = process.wait();
        }
    }
}

/// Debian's own master.cf, on our port, without the chroots.
fn services(stock: &str, address: SocketAddr) -> String {
    let address = address.to_string();
    let mut lines = Vec::new();
    for line in stock.lines().filter(|line| !line.starts_with('#')) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(char::is_whitespace) || words.len() < 8 {
            lines.push(line.to_owned());
            continue;
        }
        if words[0] == "smtp" && words[1] == "inet" {
            words[0] = &address;
        }
        words[4] = "n";
        lines.push(words.join(" "));
    }
    if !stock.contains("\npostlog") {
        lines.push("postlog unix-dgram n - n - 1 postlogd".to_owned());
    }
    lines.push("policyd-spf unix - n n - 0 spawn\n user=policyd-spf argv=/usr/bin/policyd-spf".to_owned());
    lines.join("\n") + "\n"
}

fn certificate(folder: &Path, domain: &str) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec![format!("mail.{domain}")])?;
    fs::write(folder.join("cert.pem"), made.cert.pem())?;
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// User and group id of a system user.
fn ids(user: &str) -> Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let line =
        passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).with_context(|| format!("no user {user}"))?;
    let fields: Vec<&str> = line.split(':').collect();
    Ok((fields[2].parse()?, fields[3].parse()?))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Polls a state until it holds, at most 30 s.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let clock = Clock::real();
    let start = clock.now();
    while !holds()? {
        if clock.now() - start > std::time::Duration::from_secs(30) {
            bail!("{what}: not within 30 s");
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    Ok(())
}
