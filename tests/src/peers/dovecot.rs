//! A Dovecot of our own that serves a Maildir by plain IMAP on loopback, any password accepted.
//! Dovecot never opens mail as root, so where the tests run as root it serves a copy that belongs to
//! nobody: the same bytes and names.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::{program, run};
use crate::observe;
use crate::world::ports;

/// Runs until dropped.
pub struct Dovecot {
    /// Where IMAP is.
    pub imap: SocketAddr,
    maildir: PathBuf,
    base: tempfile::TempDir,
    process: Child,
}

impl Dovecot {
    /// Serves this Maildir.
    pub fn start(maildir: &Path) -> anyhow::Result<Self> {
        let imap = ports::free();
        let base = tempfile::Builder::new().prefix("gatepost-dovecot-").tempdir()?;
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755))?;
        let b = base.path().display();
        let root = rustix::process::geteuid().is_root();
        let user =
            if root { "nobody".to_owned() } else { run(Command::new(program("id")).arg("-un"))?.trim().to_owned() };
        let served = if root { base.path().join("copy") } else { maildir.to_owned() };
        if root {
            run(Command::new(program("cp")).arg("-a").arg(maildir).arg(&served))?;
            run(Command::new(program("chown")).arg("-R").arg("nobody").arg(&served))?;
        }
        let group =
            if root { "nogroup".to_owned() } else { run(Command::new(program("id")).arg("-gn"))?.trim().to_owned() };
        let rootless = if root {
            String::new()
        } else {
            format!("default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n")
        };
        let port = imap.port();
        let config = format!(
            "base_dir = {b}/run\nstate_dir = {b}/state\nlog_path = {b}/log\nprotocols = imap\nssl = no\nlisten = 127.0.0.1\n\
             disable_plaintext_auth = no\nmail_location = maildir:{served}:INDEX={b}/index\nmail_uid = {user}\n\
             mail_gid = {group}\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n{rootless}\
             passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
             userdb {{\n  driver = static\n  args = uid={user} gid={group} home={b}/index\n}}\n\
             service imap-login {{\n  chroot =\n  inet_listener imap {{\n    port = {port}\n  }}\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n\
             service anvil {{\n  chroot =\n}}\n\
             namespace inbox {{\n  inbox = yes\n}}\n",
            served = served.display(),
        );
        fs::create_dir(base.path().join("index"))?;
        fs::set_permissions(base.path().join("index"), fs::Permissions::from_mode(0o777))?;
        let path = base.path().join("dovecot.conf");
        fs::write(&path, config)?;
        let log = fs::File::create(base.path().join("stderr"))?;
        let process = Command::new(program("dovecot"))
            .arg("-F")
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start Dovecot")?;
        let dovecot = Self { imap, maildir: served, base, process };
        observe::until_ok("Dovecot to listen", || TcpStream::connect(imap).map(drop).with_context(|| dovecot.said()));
        Ok(dovecot)
    }

    /// The Maildir it serves.
    pub fn maildir(&self) -> &Path {
        &self.maildir
    }

    /// What it logged.
    pub fn said(&self) -> String {
        ["log", "stderr"].map(|name| fs::read_to_string(self.base.path().join(name)).unwrap_or_default()).concat()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).output();
        let _ = self.process.wait();
    }
}
