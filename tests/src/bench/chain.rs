//! The stack people run today, from Debian's packages with its defaults: Postfix on the VPS,
//! Postfix at home, Dovecot's LMTP into a Maildir. STARTTLS in, TLS between.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use gatepost_runtime::clock::Clock;

/// Runs until dropped.
#[derive(Debug)]
pub struct Chain {
    /// Where the world connects.
    pub smtp: SocketAddr,
    mail: PathBuf,
    processes: Vec<Child>,
}

impl Chain {
    /// Starts all three, for `domain`, under `folder` (which other users must be able to reach).
    pub fn start(folder: &Path, domain: &str) -> Result<Self> {
        let (edge, home) = (free_port()?, free_port()?);
        let mail = folder.join("mail");
        fs::create_dir_all(&mail)?;
        let user = ids("mail")?;
        chown(&mail, Some(user.0), Some(user.1))?;
        certificate(folder, domain)?;
        let mut chain = Self { smtp: SocketAddr::from((Ipv4Addr::LOCALHOST, edge)), mail, processes: Vec::new() };
        chain.dovecot(folder)?;
        chain.postfix(
            folder,
            "chain-edge",
            edge,
            &format!("relay_domains = {domain}\ntransport_maps = inline:{{{domain}=smtp:[127.0.0.1]:{home}}}\n"),
        )?;
        let socket = folder.join("lmtp.sock");
        chain.postfix(
            folder,
            "chain-home",
            home,
            &format!(
                "virtual_mailbox_domains = {domain}\nvirtual_mailbox_maps = static:x\nvirtual_transport = lmtp:unix:{}\n",
                socket.display()
            ),
        )?;
        for port in [edge, home] {
            wait_for("Postfix", || Ok(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()))?;
        }
        wait_for("Dovecot", || Ok(socket.exists()))?;
        Ok(chain)
    }

    /// Two Postfix under `folder`: one at home, which sends all to one on the rented server, which sends all to `world`.
    pub fn outbound(folder: &Path, world: SocketAddr) -> Result<Self> {
        let (edge, home) = (free_port()?, free_port()?);
        certificate(folder, "example.test")?;
        let smtp = SocketAddr::from((Ipv4Addr::LOCALHOST, home));
        let mut chain = Self { smtp, mail: folder.join("mail"), processes: Vec::new() };
        let relay = |port: u16| format!("relayhost = [127.0.0.1]:{port}\n");
        chain.postfix(folder, "chain-edge", edge, &relay(world.port()))?;
        chain.postfix(folder, "chain-home", home, &relay(edge))?;
        for port in [edge, home] {
            wait_for("Postfix", || Ok(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()))?;
        }
        Ok(chain)
    }

    /// Where a recipient's mail lies.
    pub fn maildir(&self, recipient: &str) -> PathBuf {
        self.mail.join(recipient)
    }

    /// The three masters.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Child::id).collect()
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

    fn postfix(&mut self, folder: &Path, name: &str, port: u16, extra: &str) -> Result<()> {
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
        fs::write(base.join("etc/master.cf"), services(&stock, port))?;
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
fn services(stock: &str, port: u16) -> String {
    let mut lines = Vec::new();
    for line in stock.lines().filter(|line| !line.starts_with('#')) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let address = format!("127.0.0.1:{port}");
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
