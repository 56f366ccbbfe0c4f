//! mutt: reads a Maildir, as a person at the home's keyboard would; submits over 465.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{program, run};

/// Copies every message mutt sees in a Maildir into an mbox, and gives that.
pub fn read_all(maildir: &Path, scratch: &Path) -> anyhow::Result<String> {
    let copy = scratch.join("mutt.mbox");
    let config = scratch.join("muttrc");
    let text = format!(
        "set folder={scratch} spoolfile={maildir} record='' mbox_type=mbox move=no copy=no confirmappend=no \
         confirmcreate=no delete=no quit=yes wait_key=no sleep_time=0 ssl_force_tls=no header_cache='' mail_check=0\n\
         push '<tag-pattern>~A<enter><tag-prefix-cond><copy-message>{copy}<enter><end-cond><exit>'\n",
        scratch = scratch.display(),
        maildir = maildir.display(),
        copy = copy.display(),
    );
    fs::write(&config, text)?;
    // mutt wants a terminal; script gives it one.
    let mutt = format!("{} -n -F {} -f {}", program("mutt").display(), config.display(), maildir.display());
    let mut command = Command::new(program("script"));
    command
        .args(["-q", "-e", "-c", &mutt, "/dev/null"])
        .env("TERM", "xterm")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    run(&mut command)?;
    Ok(fs::read(&copy).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

/// Submits a short message over implicit TLS.
pub fn submit(
    server: SocketAddr,
    ca: &Path,
    login: &str,
    password: &str,
    to: &str,
    subject: &str,
    scratch: &Path,
) -> anyhow::Result<()> {
    use std::io::Write as _;
    let config = scratch.join("muttrc-submit");
    let user = login.replace('@', "%40");
    let text = format!(
        "set ssl_ca_certificates_file={ca} smtp_url='smtps://{user}@127.0.0.1:{port}/' smtp_pass='{password}'\n\
         set smtp_authenticators='plain' from='{login}' use_from=yes use_envelope_from=yes realname='' copy=no record=''\n\
         set ssl_force_tls=yes ssl_usesystemcerts=no certificate_file='' abort_noattach=no\n",
        ca = ca.display(),
        port = server.port(),
    );
    fs::write(&config, text)?;
    let mut child = Command::new(program("mutt"))
        .args(["-n", "-F"])
        .arg(&config)
        .args(["-s", subject, "--", to])
        .env("HOME", scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().expect("it was piped").write_all(b"hello from mutt\n")?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "mutt: {}", crate::pair::program::said(&output));
    Ok(())
}
