//! Programs that submit mail: swaks, msmtp, curl, and Python's smtplib. All of them check the
//! server's certificate against the private CA, for the name they are told to connect to.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{program, run};

/// A submission over implicit TLS. The server's certificate must be good for 127.0.0.1.
#[derive(Clone, Copy)]
pub struct Submission<'a> {
    /// 465.
    pub server: SocketAddr,
    /// The CA to trust.
    pub ca: &'a Path,
    /// Login name.
    pub login: &'a str,
    /// Password.
    pub password: &'a str,
    /// Reverse-path.
    pub from: &'a str,
    /// Recipient.
    pub to: &'a str,
    /// The message, header and body.
    pub message: &'a [u8],
    /// A directory for configs.
    pub scratch: &'a Path,
}

/// swaks, with PLAIN or LOGIN; gives the dialog.
pub fn swaks(submission: Submission<'_>, mechanism: &str) -> anyhow::Result<Output> {
    let data = submission.scratch.join("swaks.eml");
    // swaks ends the last line itself.
    fs::write(&data, submission.message.strip_suffix(b"\r\n").unwrap_or(submission.message))?;
    let mut command = Command::new(program("swaks"));
    command
        .args(["--server", &submission.server.ip().to_string(), "--port", &submission.server.port().to_string()])
        .args(["--tlsc", "--tls-verify", "--tls-ca-path"])
        .arg(submission.ca)
        .args(["--auth", mechanism, "--auth-user", submission.login, "--auth-password", submission.password])
        .args(["--helo", "laptop.example", "--from", submission.from, "--to", submission.to])
        .arg("--data")
        .arg(format!("@{}", data.display()));
    super::output(&mut command)
}

/// msmtp, with any mechanism it knows (`plain`, `login`, `scram-sha-256`).
pub fn msmtp(submission: Submission<'_>, mechanism: &str) -> anyhow::Result<Output> {
    let config = submission.scratch.join(format!("msmtprc-{mechanism}"));
    let text = format!(
        "account default\nhost {}\nport {}\ntls on\ntls_starttls off\ntls_trust_file {}\nauth {mechanism}\nuser {}\npassword {}\nfrom {}\n",
        submission.server.ip(),
        submission.server.port(),
        submission.ca.display(),
        submission.login,
        submission.password,
        submission.from,
    );
    fs::write(&config, text)?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    let mut command = Command::new(program("msmtp"));
    command.arg("-C").arg(&config).arg(submission.to);
    fed(command, submission.message)
}

/// curl.
pub fn curl(submission: Submission<'_>) -> anyhow::Result<Output> {
    let mut command = Command::new(program("curl"));
    command
        .args(["--silent", "--show-error", "--verbose", "--cacert"])
        .arg(submission.ca)
        .args(["--user", &format!("{}:{}", submission.login, submission.password)])
        .arg(format!("smtps://{}", submission.server))
        .args(["--mail-from", submission.from, "--mail-rcpt", submission.to, "--upload-file", "-"]);
    fed(command, submission.message)
}

/// Python's smtplib, which picks the mechanism itself.
pub fn python(submission: Submission<'_>) -> anyhow::Result<String> {
    let script = "import smtplib, ssl, sys\n\
        host, port, ca, login, password, sender, to = sys.argv[1:]\n\
        context = ssl.create_default_context(cafile=ca)\n\
        with smtplib.SMTP_SSL(host, int(port), context=context) as server:\n    \
            server.login(login, password)\n    \
            refused = server.sendmail(sender, [to], sys.stdin.buffer.read())\n    \
            assert refused == {}, refused\n";
    let mut command = Command::new(program("python3"));
    command
        .args(["-c", script, &submission.server.ip().to_string(), &submission.server.port().to_string()])
        .arg(submission.ca)
        .args([submission.login, submission.password, submission.from, submission.to]);
    let output = fed(command, submission.message)?;
    anyhow::ensure!(output.status.success(), "python: {}", crate::pair::program::said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Unencrypted delivery to an MX by swaks, STARTTLS if `tls`; gives the dialog.
pub fn swaks_to_mx(server: SocketAddr, from: &str, to: &str, tls: bool) -> anyhow::Result<Output> {
    let mut command = Command::new(program("swaks"));
    command.args(["--server", &server.ip().to_string(), "--port", &server.port().to_string()]).args([
        "--helo",
        "mx.world.example",
        "--from",
        from,
        "--to",
        to,
    ]);
    if tls {
        command.arg("--tls");
    }
    super::output(&mut command)
}

/// Python's imaplib against a plain IMAP server: every message of INBOX, whole.
pub fn imap_messages(server: SocketAddr, user: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let script = "import base64, imaplib, sys\n\
        imap = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))\n\
        imap.login(sys.argv[3], 'any')\n\
        imap.select('INBOX')\n\
        found = imap.search(None, 'ALL')[1][0].split()\n\
        for number in found:\n    \
            print(base64.b64encode(imap.fetch(number, '(BODY.PEEK[])')[1][0][1]).decode())\n\
        imap.store('1:*', '+FLAGS', '\\\\Seen')\n\
        imap.logout()\n";
    let mut command = Command::new(program("python3"));
    command.args(["-c", script, &server.ip().to_string(), &server.port().to_string(), user]);
    let text = run(&mut command)?;
    let decode = |line: &str| BASE64.decode(line).context("no base64");
    text.lines().map(decode).collect()
}

/// Reading over implicit TLS. The server's certificate must be good for 127.0.0.1.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// 993.
    pub server: SocketAddr,
    /// The CA to trust.
    pub ca: &'a Path,
    /// Login name.
    pub login: &'a str,
    /// Password.
    pub password: &'a str,
}

/// Python's imaplib: logs in by SASL, reads INBOX, appends, searches, moves, throws away; how many messages INBOX holds.
pub fn imaplib(reading: Reading<'_>) -> anyhow::Result<usize> {
    let script = "import imaplib, ssl, sys\n\
        host, port, ca, login, password = sys.argv[1:]\n\
        context = ssl.create_default_context(cafile=ca)\n\
        imap = imaplib.IMAP4_SSL(host, int(port), ssl_context=context)\n\
        imap.authenticate('PLAIN', lambda _: f'\\0{login}\\0{password}'.encode())\n\
        done = lambda answer: answer[1] if answer[0] == 'OK' else sys.exit(str(answer))\n\
        count = int(done(imap.select('INBOX'))[0])\n\
        for number in range(1, count + 1):\n    \
            done(imap.fetch(str(number), '(UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[])'))\n\
        done(imap.append('Drafts', '(\\\\Draft)', None, b'Subject: from python\\r\\n\\r\\nx\\r\\n'))\n\
        done(imap.select('Drafts'))\n\
        found = done(imap.uid('SEARCH', 'SUBJECT', '\"from python\"'))[0].split()\n\
        assert len(found) == 1, found\n\
        done(imap.uid('MOVE', found[0].decode(), 'Trash'))\n\
        done(imap.select('Trash'))\n\
        done(imap.store('1:*', '+FLAGS', '\\\\Deleted'))\n\
        done(imap.expunge())\n\
        imap.close()\n\
        imap.logout()\n\
        print(count)\n";
    let mut command = Command::new(program("python3"));
    command
        .args(["-c", script, &reading.server.ip().to_string(), &reading.server.port().to_string()])
        .arg(reading.ca)
        .args([reading.login, reading.password]);
    Ok(run(&mut command)?.trim().parse()?)
}

/// curl: the header of the first message of INBOX.
pub fn curl_imap(reading: Reading<'_>) -> anyhow::Result<String> {
    let mut command = Command::new(program("curl"));
    command
        .args(["--silent", "--show-error", "--cacert"])
        .arg(reading.ca)
        .args(["--user", &format!("{}:{}", reading.login, reading.password)])
        .arg(format!("imaps://{}/INBOX;MAILINDEX=1;SECTION=HEADER", reading.server));
    run(&mut command)
}

/// mbsync (isync): INBOX into a Maildir in this folder.
pub fn mbsync(reading: Reading<'_>, folder: &Path) -> anyhow::Result<String> {
    fs::create_dir_all(folder)?;
    let config = folder.join("mbsyncrc");
    // It looks for names in a certificate, never for addresses.
    let text = format!(
        "IMAPAccount home\nHost localhost\nPort {}\nUser {}\nPass \"{}\"\nSSLType IMAPS\nCertificateFile {}\n\n\
         IMAPStore far\nAccount home\n\nMaildirStore near\nPath {folder}/\nInbox {folder}/INBOX\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync All\nExpunge Both\nSyncState *\n",
        reading.server.port(),
        reading.login,
        reading.password,
        reading.ca.display(),
        folder = folder.display(),
    );
    fs::write(&config, text)?;
    let mut command = Command::new(program("mbsync"));
    command.arg("-c").arg(&config).arg("-a");
    run(&mut command)
}

fn fed(mut command: Command, input: &[u8]) -> anyhow::Result<Output> {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", command.get_program().display()))?;
    // A program that fails early stops reading; what it says then is the story.
    let _ = child.stdin.take().context("no stdin")?.write_all(input);
    Ok(child.wait_with_output()?)
}

/// The status code with which curl is answered there, the path sent as it is.
pub fn curl_status(url: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program("curl"));
    command.args(["-s", "--max-time", "20", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", url]);
    Ok(super::run(&mut command)?.trim().to_owned())
}
