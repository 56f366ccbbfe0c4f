//! Thunderbird, without a screen: given an address and a password, it sets itself up by what the web tells it, and sends
//! a message.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::Value;

use super::web::Web;
use super::{program, run};
use crate::world::ports;

/// Remote control, and the steps.
const SCRIPT: &str = include_str!("thunderbird.py");
/// Octets of the head of what a proxy is asked.
const HEAD_OCTETS_MAX: usize = 8192;

/// What it is, and what it is told.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// Types this…
    pub address: &'a str,
    /// …and this.
    pub password: &'a str,
    /// Then writes to them.
    pub recipient: &'a str,
    /// Hosts that are on this machine.
    pub hosts: &'a [&'a str],
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sets it up and has it send. Gives what it made of what it was told.
pub fn set_up_and_send(web: &Web<'_>, person: Person<'_>) -> anyhow::Result<Value> {
    let home = tempfile::Builder::new().prefix("gatepost-thunderbird-").tempdir()?;
    let profile = home.path().join("profile");
    fs::create_dir_all(&profile)?;
    let database = format!("sql:{}", profile.display());
    run(Command::new(program("certutil")).args(["-d", &database, "-N", "--empty-password"]))?;
    run(Command::new(program("certutil")).args(["-d", &database, "-A", "-t", "C,,", "-n", "ca", "-i"]).arg(web.root))?;
    let (control, proxy) = (ports::free(), start_proxy(web.https)?);
    fs::write(profile.join("user.js"), preferences(control, proxy, person.hosts))?;
    let said = fs::File::create(home.path().join("log"))?;
    let mut command = Command::new(program("thunderbird"));
    command
        .env("HOME", home.path())
        .args(["--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile"])
        .arg(&profile)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said);
    let _running = Running(command.spawn()?);
    let port = control.port().to_string();
    let told = run(Command::new(program("python3")).args([
        "-c",
        SCRIPT,
        &port,
        person.address,
        person.password,
        person.recipient,
    ]));
    let told = told.map_err(|error| error.context(log(home.path())))?;
    Ok(serde_json::from_str(&told)?)
}

fn log(home: &Path) -> String {
    let said = fs::read_to_string(home.join("log")).unwrap_or_default();
    let from = said.len().saturating_sub(2000);
    format!("Thunderbird said: {}", said.get(from..).unwrap_or(&said))
}

fn preferences(control: SocketAddr, proxy: SocketAddr, hosts: &[&str]) -> String {
    let mut text = String::new();
    let off = [
        "app.update.auto",
        "browser.safebrowsing.malware.enabled",
        "datareporting.policy.dataSubmissionEnabled",
        "mail.shell.checkDefaultClient",
        "mailnews.start_page.enabled",
        "network.captive-portal-service.enabled",
        "network.connectivity-service.enabled",
        "signon.rememberSignons.visibilityToggle",
    ];
    for name in off {
        let _ = writeln!(text, "user_pref(\"{name}\", false);");
    }
    let _ = writeln!(text, "user_pref(\"mail.provider.suppress_dialog_on_startup\", true);");
    let _ = writeln!(text, "user_pref(\"marionette.port\", {});", control.port());
    let _ = writeln!(text, "user_pref(\"network.dns.localDomains\", \"{}\");", hosts.join(","));
    // For https alone: port 443 of any host is the edge's. What is sent goes straight to its own port.
    let _ = writeln!(text, "user_pref(\"network.proxy.type\", 1);");
    let _ = writeln!(text, "user_pref(\"network.proxy.ssl\", \"{}\");", proxy.ip());
    let _ = writeln!(text, "user_pref(\"network.proxy.ssl_port\", {});", proxy.port());
    text
}

/// Takes whoever asks for port 443 of any host to this door.
fn start_proxy(door: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || carry(client, door));
        }
    });
    Ok(address)
}

fn carry(mut client: TcpStream, door: SocketAddr) -> io::Result<()> {
    let (mut head, mut octet) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_OCTETS_MAX {
        client.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    let mut server = TcpStream::connect(door)?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from_client, &mut to_server));
    io::copy(&mut server, &mut client).map(drop)?;
    client.shutdown(std::net::Shutdown::Both)
}
