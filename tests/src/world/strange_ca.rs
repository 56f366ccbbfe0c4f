//! The web server of a CA that does not behave: every request is answered as the story says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use gatepost_runtime::clock::{Clock, mail_date};

/// What it does when asked.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers: status line without the version, further header lines, body.
    Answer(&'static str, Vec<String>, String),
    /// Promises more than it sends.
    BreakOff,
    /// Never stops answering.
    Endless,
    /// Says nothing, and keeps the connection.
    Silence,
}

type Manner = dyn Fn(&str, &str) -> Act + Send + Sync;

/// Runs until the program ends.
pub struct StrangeCa {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl StrangeCa {
    /// `manner` gets the path of a request and the server's own address; `date_off_s` is how wrong its date is.
    pub fn start(
        tls: Arc<rustls::ServerConfig>,
        date_off_s: i64,
        manner: impl Fn(&str, &str) -> Act + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (noted, manner): (_, Arc<Manner>) = (Arc::clone(&asked), Arc::new(manner));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, noted, manner) = (Arc::clone(&tls), Arc::clone(&noted), Arc::clone(&manner));
                // Who breaks off is the story's own program.
                std::thread::spawn(move || {
                    serve(stream, tls, date_off_s, &format!("https://{address}"), &noted, &*manner)
                });
            }
        });
        Ok(Self { address, asked })
    }

    /// The address of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The paths it was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a CA that behaves answers until an order is wanted.
pub fn well_behaved(path: &str, base: &str) -> Act {
    let nonce = "Replay-Nonce: bm9uY2U".to_owned();
    match path {
        "/dir" => Act::Answer(
            "200 OK",
            vec![],
            format!(
                "{{\"newNonce\":\"{base}/nonce\",\"newAccount\":\"{base}/account\",\"newOrder\":\"{base}/order\",\
                 \"renewalInfo\":\"{base}/renewal\"}}"
            ),
        ),
        "/nonce" => Act::Answer("200 OK", vec![nonce], String::new()),
        "/account" => Act::Answer(
            "201 Created",
            vec![nonce, format!("Location: {base}/account/1")],
            "{\"status\":\"valid\"}".to_owned(),
        ),
        "/account/1" => Act::Answer("200 OK", vec![nonce], "{\"status\":\"valid\"}".to_owned()),
        _ => Act::Answer("404 Not Found", vec![nonce], "{}".to_owned()),
    }
}

fn serve(
    stream: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    date_off_s: i64,
    base: &str,
    noted: &Mutex<Vec<String>>,
    manner: &Manner,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(rustls::StreamOwned::new(rustls::ServerConnection::new(tls)?, stream));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (head_only, path) = (words.next() == Some("HEAD"), words.next().unwrap_or_default().to_owned());
    let mut octets = 0;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let field = line.trim().to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(length) = field.strip_prefix("content-length:") {
            octets = length.trim().parse()?;
        }
    }
    let mut body = vec![0; octets];
    stream.read_exact(&mut body)?;
    noted.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let date = mail_date(Clock::real().unix_s() + date_off_s).replace("+0000", "GMT");
    let mut answer = |text: &str| {
        stream.get_mut().write_all(text.as_bytes())?;
        stream.get_mut().flush()
    };
    match manner(&path, base) {
        Act::Answer(status, fields, body) => {
            let fields = fields.iter().fold(String::new(), |all, field| all + field + "\r\n");
            let sent = if head_only { "" } else { &body };
            answer(&format!(
                "HTTP/1.1 {status}\r\nDate: {date}\r\n{fields}Content-Length: {}\r\n\r\n{sent}",
                body.len()
            ))?;
        }
        Act::BreakOff => answer("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"newNonce\":")?,
        Act::Endless => {
            answer("HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n")?;
            while answer(&"x".repeat(16 * 1024)).is_ok() {}
        }
        Act::Silence => {
            // Until the other side gives up.
            let _ = stream.read(&mut [0]);
        }
    }
    Ok(())
}
