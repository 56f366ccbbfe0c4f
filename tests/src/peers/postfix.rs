//! A Postfix of our own, beside any the machine may have: its config, queue and mail in a throwaway
//! directory, STARTTLS both ways with a certificate of the private CA.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::Context as _;

use super::{ServerOptions, privileged, run};
use crate::observe;
use crate::world::ports;

/// Runs until dropped.
pub struct Postfix {
    /// Where it listens.
    pub smtp: SocketAddr,
    base: tempfile::TempDir,
    master: Child,
}

impl Postfix {
    /// Starts it and waits for its greeting.
    pub fn start(options: &ServerOptions<'_>) -> anyhow::Result<Self> {
        Self::start_at(ports::free(), options, &[])
    }

    /// The same, listening there, with filters that judge what comes.
    pub fn start_at(smtp: SocketAddr, options: &ServerOptions<'_>, milters: &[SocketAddr]) -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("gatepost-postfix-").tempdir()?;
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755))?;
        for part in ["etc", "data", "spool", "mail"] {
            fs::create_dir(base.path().join(part))?;
        }
        // Postfix checks who owns what; the system's root owns its config.
        fs::copy(&options.certificate.certificate, base.path().join("cert.pem"))?;
        fs::copy(&options.certificate.key, base.path().join("key.pem"))?;
        fs::copy(options.ca, base.path().join("ca.pem"))?;
        fs::write(base.path().join("etc/main.cf"), main_cf(options, base.path(), milters))?;
        fs::write(base.path().join("etc/master.cf"), master_cf(smtp))?;
        let b = base.path();
        run(privileged("chown")
            .args(["-R", "root:root"])
            .arg(b.join("etc"))
            .arg(b.join("spool"))
            .arg(b.join("key.pem")))?;
        run(privileged("chown").arg("postfix").arg(b.join("data")))?;
        run(privileged("chown").arg("nobody:nogroup").arg(b.join("mail")))?;
        run(privileged("postfix").arg("-c").arg(b.join("etc")).arg("check"))?;
        let log = fs::File::create(b.join("master.log"))?;
        let master = privileged("master")
            .arg("-c")
            .arg(b.join("etc"))
            .arg("-d")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start Postfix's master")?;
        let postfix = Self { smtp, base, master };
        observe::until_ok("Postfix to listen", || TcpStream::connect(smtp).map(drop).with_context(|| postfix.said()));
        Ok(postfix)
    }

    /// Its Maildir.
    pub fn maildir(&self) -> PathBuf {
        self.base.path().join("mail/all")
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.base.path().join(name)).unwrap_or_default();
        read("maillog") + &read("master.log")
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = privileged("kill").arg(self.master.id().to_string()).output();
        let _ = self.master.wait();
        // Its files belong to others: root removes them.
        let _ = privileged("rm")
            .arg("-rf")
            .args(["etc", "data", "spool", "mail"].map(|p| self.base.path().join(p)))
            .output();
    }
}

fn main_cf(options: &ServerOptions<'_>, base: &Path, milters: &[SocketAddr]) -> String {
    let b = base.display();
    let transports: Vec<String> =
        options.routes.iter().map(|(domain, hop)| format!("{{{domain}=smtp:[{}]:{}}}", hop.ip(), hop.port())).collect();
    let milters: Vec<String> = milters.iter().map(|at| format!("inet:{}:{}", at.ip(), at.port())).collect();
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {b}/spool\ndata_directory = {b}/data\ncommand_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\nmaillog_file = {b}/maillog\nmaillog_file_prefixes = /\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = {hostname}\nmydestination =\n\
         mynetworks = 127.0.0.0/8\nalias_maps =\nsmtp_dns_support_level = disabled\nsmtp_host_lookup = native\n\
         transport_maps = inline:{{{transports}}}\n\
         virtual_mailbox_domains = {domain}\nvirtual_mailbox_base = {b}/mail\n\
         virtual_mailbox_maps = inline:{{{{postmaster@{domain}=all/}},{{user@{domain}=all/}}}}\n\
         virtual_minimum_uid = 1\nvirtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
         smtpd_tls_cert_file = {b}/cert.pem\nsmtpd_tls_key_file = {b}/key.pem\nsmtpd_tls_security_level = may\n\
         smtpd_tls_received_header = yes\nsmtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
         smtp_tls_CAfile = {b}/ca.pem\nsmtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1\nsmtpd_tls_loglevel = 1\n\
         smtpd_milters = {milters}\nmilter_default_action = tempfail\n\
         smtp_tls_session_cache_database =\nminimal_backoff_time = 2s\nqueue_run_delay = 2s\n",
        hostname = options.hostname,
        domain = options.domain,
        milters = milters.join(" "),
        transports =
            if transports.is_empty() { "{none.invalid=error:unused}".to_owned() } else { transports.join(",") },
    )
}

fn master_cf(smtp: SocketAddr) -> String {
    format!(
        "{smtp} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         verify unix - - n - 1 verify\n\
         flush unix n - n 1000? 0 flush\n\
         proxymap unix - - n - - proxymap\n\
         smtp unix - - n - - smtp\n\
         relay unix - - n - - smtp\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         discard unix - - n - - discard\n\
         virtual unix - n n - - virtual\n\
         anvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}
