//! A Dovecot of our own on loopback, any password accepted: one that serves a Maildir of ours by plain IMAP, or one
//! that keeps the mailboxes itself and takes mail by LMTP. Dovecot never opens mail as root, so where the tests run
//! as root the first serves a copy that belongs to nobody: the same bytes and names.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
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

/// A Dovecot that keeps mailboxes. Runs until dropped.
pub struct Keeper {
    /// Where IMAP is.
    pub imap: SocketAddr,
    /// The socket LMTP is at.
    pub lmtp: PathBuf,
    base: tempfile::TempDir,
    process: Option<Child>,
}

impl Keeper {
    /// With these users by whole address, each with a quota if it has one (such as `20k`).
    pub fn start(users: &[(&str, Option<&str>)]) -> anyhow::Result<Self> {
        let imap = ports::free();
        let base = tempfile::Builder::new().prefix("gatepost-dovecot-").tempdir()?;
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755))?;
        let b = base.path().display();
        let root = rustix::process::geteuid().is_root();
        let (user, group) = if root {
            ("nobody".to_owned(), "nogroup".to_owned())
        } else {
            let ask = |what| anyhow::Ok(run(Command::new(program("id")).arg(what))?.trim().to_owned());
            (ask("-un")?, ask("-gn")?)
        };
        let rootless = if root {
            String::new()
        } else {
            format!("default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n")
        };
        let list = users.iter().fold(String::new(), |list, (name, quota)| {
            let rule = quota.map_or(String::new(), |size| format!("userdb_quota_rule=*:storage={size}"));
            list + &format!("{name}:{{PLAIN}}x::::::{rule}\n")
        });
        fs::write(base.path().join("users"), list)?;
        let (lmtp, port) = (base.path().join("lmtp"), imap.port());
        let config = format!(
            "base_dir = {b}/run\nstate_dir = {b}/state\nlog_path = {b}/log\nprotocols = imap lmtp\nssl = no\n\
             listen = 127.0.0.1\ndisable_plaintext_auth = no\nmail_location = maildir:~/mail\nmail_plugins = quota\n\
             postmaster_address = postmaster@example.org\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n{rootless}\
             plugin {{\n  quota = maildir:User quota\n}}\n\
             passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
             userdb {{\n  driver = passwd-file\n  args = username_format=%u {b}/users\n\
               default_fields = uid={user} gid={group} home={b}/homes/%u\n}}\n\
             service imap-login {{\n  chroot =\n  inet_listener imap {{\n    port = {port}\n  }}\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n\
             service lmtp {{\n  unix_listener {lmtp} {{\n    mode = 0666\n  }}\n}}\n\
             service anvil {{\n  chroot =\n}}\n\
             namespace inbox {{\n  inbox = yes\n}}\n",
            lmtp = lmtp.display(),
        );
        let homes = base.path().join("homes");
        fs::create_dir(&homes)?;
        fs::set_permissions(&homes, fs::Permissions::from_mode(0o777))?;
        fs::write(base.path().join("dovecot.conf"), config)?;
        let mut keeper = Self { imap, lmtp, base, process: None };
        keeper.resume()?;
        Ok(keeper)
    }

    /// Starts it (again).
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let log = fs::File::create(self.base.path().join("stderr"))?;
        let process = Command::new(program("dovecot"))
            .arg("-F")
            .arg("-c")
            .arg(self.base.path().join("dovecot.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start Dovecot")?;
        self.process = Some(process);
        observe::until_ok("Dovecot to take mail", || {
            TcpStream::connect(self.imap).map(drop).with_context(|| self.said())?;
            UnixStream::connect(&self.lmtp).map(drop).with_context(|| self.said())
        });
        Ok(())
    }

    /// Stops it; its mail stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").arg(process.id().to_string()).output();
            let _ = process.wait();
        }
    }

    /// Its setting for the home.
    pub fn setting(&self) -> String {
        format!("delivery.lmtp=\"unix:{}\"", self.lmtp.display())
    }

    /// The inbox of a user, which is a Maildir.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.base.path().join("homes").join(user).join("mail")
    }

    /// What it logged.
    pub fn said(&self) -> String {
        ["log", "stderr"].map(|name| fs::read_to_string(self.base.path().join(name)).unwrap_or_default()).concat()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).output();
        let _ = self.process.wait();
    }
}
