//! An Exim of our own, as Debian builds it, unpacked beside the system's mail server: its config, queue and
//! mail in a throwaway directory, TLS both ways with a certificate of the private CA.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::Context as _;

use super::{ServerOptions, privileged, run};
use crate::observe;
use crate::world::ports;

/// Whom Debian's Exim runs as: its name is compiled in.
const USER: &str = "Debian-exim";

/// Runs until dropped.
pub struct Exim {
    /// Where it listens.
    pub smtp: std::net::SocketAddr,
    base: tempfile::TempDir,
    daemon: Child,
}

impl Exim {
    /// Starts it and waits for its greeting.
    pub fn start(options: &ServerOptions<'_>) -> anyhow::Result<Self> {
        let smtp = ports::free();
        let base = tempfile::Builder::new().prefix("gatepost-exim-").tempdir()?;
        let b = base.path();
        fs::set_permissions(b, fs::Permissions::from_mode(0o755))?;
        for part in ["etc", "spool", "log", "mail"] {
            fs::create_dir(b.join(part))?;
        }
        fs::copy(&options.certificate.certificate, b.join("etc/cert.pem"))?;
        fs::copy(&options.certificate.key, b.join("etc/key.pem"))?;
        fs::copy(options.ca, b.join("etc/ca.pem"))?;
        fs::write(b.join("etc/exim.conf"), config(options, b))?;
        let parts = ["etc", "spool", "log", "mail"].map(|part| b.join(part));
        run(privileged("chown").arg("-R").arg(format!("{USER}:{USER}")).args(&parts[1..]))?;
        // It believes only a config that nobody but root can change.
        run(privileged("chown").arg("-R").arg(format!("root:{USER}")).arg(&parts[0]))?;
        run(privileged("chmod").args(["-R", "u=rwX,g=rX,o="]).arg(&parts[0]))?;
        let log = fs::File::create(b.join("daemon.log"))?;
        let daemon = privileged("exim4")
            .arg("-C")
            .arg(b.join("etc/exim.conf"))
            .args(["-bdf", "-q1s", "-oP", "/dev/null", "-oX"])
            .arg(format!("[{}]:{}", smtp.ip(), smtp.port()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start Exim")?;
        let exim = Self { smtp, base, daemon };
        observe::until_ok("Exim to listen", || TcpStream::connect(smtp).map(drop).with_context(|| exim.said()));
        Ok(exim)
    }

    /// Its Maildir.
    pub fn maildir(&self) -> PathBuf {
        self.base.path().join("mail/all")
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.base.path().join(name)).unwrap_or_default();
        ["log/mainlog", "log/rejectlog", "log/paniclog", "daemon.log"].map(read).concat()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        let _ = privileged("kill").arg(self.daemon.id().to_string()).output();
        let _ = self.daemon.wait();
        // Its files belong to others: root removes them.
        let parts = ["etc", "spool", "log", "mail"].map(|part| self.base.path().join(part));
        let _ = privileged("rm").arg("-rf").args(parts).output();
    }
}

fn config(options: &ServerOptions<'_>, base: &Path) -> String {
    let routes: Vec<String> =
        options.routes.iter().map(|(domain, hop)| format!("{domain} {}::{}", hop.ip(), hop.port())).collect();
    format!(
        "primary_hostname = {hostname}\n\
         exim_user = {USER}\n\
         exim_group = {USER}\n\
         spool_directory = {b}/spool\n\
         log_file_path = {b}/log/%slog\n\
         log_selector = +tls_certificate_verified\n\
         keep_environment =\n\
         deliver_drop_privilege\n\
         host_lookup =\n\
         rfc1413_query_timeout = 0s\n\
         smtp_accept_max = 100\n\
         disable_ipv6\n\
         tls_certificate = {b}/etc/cert.pem\n\
         tls_privatekey = {b}/etc/key.pem\n\
         tls_advertise_hosts = *\n\
         acl_smtp_rcpt = rcpt\n\
         begin acl\n\
         rcpt:\n\
         deny domains = {domain}\n\
         \tlocal_parts = nobody\n\
         \tmessage = 5.1.1 nobody of that name\n\
         accept hosts = 127.0.0.1\n\
         begin routers\n\
         out:\n\
         driver = manualroute\n\
         domains = !{domain}\n\
         route_list = {routes}\n\
         self = send\n\
         transport = smtp\n\
         here:\n\
         driver = accept\n\
         domains = {domain}\n\
         transport = maildir\n\
         begin transports\n\
         smtp:\n\
         driver = smtp\n\
         hosts_require_tls = *\n\
         tls_verify_certificates = {b}/etc/ca.pem\n\
         tls_try_verify_hosts = *\n\
         tls_verify_cert_hostnames =\n\
         maildir:\n\
         driver = appendfile\n\
         directory = {b}/mail/all\n\
         maildir_format\n\
         user = {USER}\n\
         begin retry\n\
         * * F,1h,1s\n",
        hostname = options.hostname,
        domain = options.domain,
        routes = if routes.is_empty() { "none.invalid 127.0.0.1".to_owned() } else { routes.join(" ; ") },
        b = base.display(),
    )
}
