//! Programs that read web pages: curl and Chromium. Whatever host a URL names is looked for at the edge.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{program, run};

/// Where the web of an edge is.
#[derive(Clone, Copy, Debug)]
pub struct Web<'a> {
    /// 80.
    pub http: SocketAddr,
    /// 443.
    pub https: SocketAddr,
    /// What vouches for its certificates.
    pub root: &'a Path,
}

/// What curl was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Status code.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Web<'_> {
    /// Asks with curl, which is given these further arguments; the certificate must be good for the host of the URL.
    pub fn curl(&self, url: &str, more: &[&str]) -> anyhow::Result<Answered> {
        let door = if url.starts_with("https:") { self.https } else { self.http };
        let mut command = Command::new(program("curl"));
        command
            .args(["-sS", "-i", "--max-time", "30", "--path-as-is", "--cacert"])
            .arg(self.root)
            .args(["--connect-to", &format!("::{door}")])
            .args(more)
            .arg(url);
        let said = run(&mut command)?.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| anyhow::anyhow!("no answer: {said}"))?;
        Ok(Answered { status, head: head.to_lowercase(), body: body.to_owned() })
    }

    /// What Chromium shows of a URL, as markup. It trusts `root`, and nothing is waved through.
    pub fn chromium(&self, url: &str) -> anyhow::Result<String> {
        let home = tempfile::Builder::new().prefix("gatepost-chromium-").tempdir()?;
        let trusted = home.path().join(".pki/nssdb");
        fs::create_dir_all(&trusted)?;
        let database = format!("sql:{}", trusted.display());
        run(Command::new(program("certutil")).args(["-d", &database, "-N", "--empty-password"]))?;
        run(Command::new(program("certutil"))
            .args(["-d", &database, "-A", "-t", "C,,", "-n", "the CA of this test", "-i"])
            .arg(self.root))?;
        let mut command = Command::new(program("chromium"));
        command
            .env("HOME", home.path())
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            .arg(format!("--host-resolver-rules=MAP *:80 {}, MAP *:443 {}", self.http, self.https))
            .args(["--dump-dom", url]);
        run(&mut command)
    }
}
