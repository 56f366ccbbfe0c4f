//! A DNS server that holds any records, also such as no zone file can say, and lies where a test wants it to: it says
//! nothing, says it late, fails, or answers octets that are no answer. It keeps count of what it was asked.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::world::ports;

/// What every answer may be remembered for.
const TTL_SECONDS: u32 = 60;
/// What a string of a TXT record holds (RFC 1035 §3.3.14).
const STRING_OCTETS_MAX: usize = 255;
/// CNAMEs followed within one answer.
const ALIASES_MAX: usize = 16;
/// What stands for any name.
const ANY: &str = "*";

/// What is answered for a name instead of its records.
#[derive(Clone)]
pub enum Lie {
    /// Nothing.
    Silent,
    /// This code and nothing else.
    Code(ResponseCode),
    /// The truth, so late.
    Late(Duration),
    /// These octets, made of the question's.
    Octets(fn(&[u8]) -> Vec<u8>),
}

/// Runs until dropped.
pub struct LyingDns {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    records: Mutex<HashMap<String, Vec<RData>>>,
    lies: Mutex<HashMap<String, Lie>>,
    asked: Mutex<Vec<(String, RecordType)>>,
    ended: AtomicBool,
}

impl LyingDns {
    /// Serves on a free port of loopback, by UDP and TCP.
    pub fn start() -> anyhow::Result<Self> {
        let address = ports::free();
        let udp = UdpSocket::bind(address)?;
        let tcp = TcpListener::bind(address)?;
        let shared = Arc::new(Shared::default());
        let (by_udp, by_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || serve_udp(&udp, &by_udp));
        thread::spawn(move || serve_tcp(&tcp, &by_tcp));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a record.
    pub fn add(&self, name: &str, data: RData) {
        locked(&self.shared.records).entry(name.to_lowercase()).or_default().push(data);
    }

    /// Adds a TXT record of this text, cut into strings as need be.
    pub fn text(&self, name: &str, text: &str) {
        self.octets(name, text.as_bytes());
    }

    /// Adds a TXT record of these octets, cut into strings as need be.
    pub fn octets(&self, name: &str, octets: &[u8]) {
        self.add(name, RData::TXT(TXT::from_bytes(octets.chunks(STRING_OCTETS_MAX).collect())));
    }

    /// Adds an A or AAAA record.
    pub fn host(&self, name: &str, address: IpAddr) {
        self.add(
            name,
            match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            },
        );
    }

    /// Adds an MX record.
    pub fn exchanger(&self, name: &str, preference: u16, host: &str) {
        self.add(name, RData::MX(MX::new(preference, dns_name(host))));
    }

    /// Adds a PTR record for this address.
    pub fn reverse(&self, address: IpAddr, host: &str) {
        let name = Name::from(address).to_ascii();
        self.pointer(name.trim_end_matches('.'), host);
    }

    /// Adds a PTR record for this name.
    pub fn pointer(&self, name: &str, host: &str) {
        self.add(name, RData::PTR(PTR(dns_name(host))));
    }

    /// Adds a CNAME record.
    pub fn alias(&self, name: &str, target: &str) {
        self.add(name, RData::CNAME(CNAME(dns_name(target))));
    }

    /// From now on lies about a name.
    pub fn lie(&self, name: &str, lie: Lie) {
        locked(&self.shared.lies).insert(name.to_lowercase(), lie);
    }

    /// From now on lies about every name it has no other lie for.
    pub fn lie_always(&self, lie: Lie) {
        self.lie(ANY, lie);
    }

    /// What it was asked since it was last asked for this.
    pub fn asked(&self) -> Vec<(String, RecordType)> {
        std::mem::take(&mut *locked(&self.shared.asked))
    }
}

impl Drop for LyingDns {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Both threads wait for somebody.
        let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(&[], self.address));
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// The answer's octets, if there is one.
    fn answer(&self, octets: &[u8], room: usize) -> Option<Vec<u8>> {
        let question = Message::from_vec(octets).ok()?;
        let query = question.queries.first()?.clone();
        let name = text_of(query.name());
        locked(&self.asked).push((name.clone(), query.query_type()));
        let lie = {
            let lies = locked(&self.lies);
            lies.get(&name).or_else(|| lies.get(ANY)).cloned()
        };
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match lie {
            Some(Lie::Silent) => return None,
            Some(Lie::Octets(make)) => return Some(make(octets)),
            Some(Lie::Code(code)) => answer.metadata.response_code = code,
            Some(Lie::Late(wait)) => {
                thread::sleep(wait);
                self.find(&name, query.name(), query.query_type(), &mut answer);
            }
            None => self.find(&name, query.name(), query.query_type(), &mut answer),
        }
        let whole = answer.to_vec().ok()?;
        if whole.len() <= room {
            return Some(whole);
        }
        answer.answers.clear();
        answer.metadata.truncation = true;
        answer.to_vec().ok()
    }

    fn find(&self, name: &str, owner: &Name, kind: RecordType, answer: &mut Message) {
        let records = locked(&self.records);
        let (mut name, mut owner) = (name.to_owned(), owner.clone());
        for _ in 0..ALIASES_MAX {
            let Some(found) = records.get(&name) else {
                // Somebody below it exists, so it does too (RFC 8020).
                let below = format!(".{name}");
                if !records.keys().any(|other| other.ends_with(&below)) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                break;
            };
            let mut alias = None;
            for data in found {
                let is_alias = data.record_type() == RecordType::CNAME;
                if data.record_type() == kind || is_alias {
                    answer.add_answer(Record::from_rdata(owner.clone(), TTL_SECONDS, data.clone()));
                }
                if let (RData::CNAME(target), true) = (data, kind != RecordType::CNAME) {
                    alias = Some(target.0.clone());
                }
            }
            let Some(target) = alias else { break };
            name = text_of(&target);
            owner = target;
        }
        if answer.answers.is_empty() {
            let soa = SOA::new(dns_name("ns"), dns_name("root"), 1, 3600, 600, 86400, TTL_SECONDS);
            answer.add_authority(Record::from_rdata(Name::root(), TTL_SECONDS, RData::SOA(soa)));
        }
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Arc<Shared>) {
    let Ok(socket) = socket.try_clone().map(Arc::new) else { return };
    let mut buffer = [0; 4096];
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((octets, peer)) = socket.recv_from(&mut buffer) else { continue };
        let question = buffer[..octets].to_vec();
        let room = Message::from_vec(&question).map_or(512, |message| usize::from(message.max_payload()));
        let (socket, shared) = (Arc::clone(&socket), Arc::clone(shared));
        // One that is answered late delays no other.
        thread::spawn(move || {
            if let Some(answer) = shared.answer(&question, room) {
                let _ = socket.send_to(&answer, peer);
            }
        });
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _ = converse(stream, &shared);
        });
    }
}

fn converse(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        if let Some(answer) = shared.answer(&question, usize::from(u16::MAX)) {
            let octets = u16::try_from(answer.len()).unwrap_or(u16::MAX);
            // In one piece: in two, the second would wait for the first to be acknowledged.
            stream.write_all(&[&octets.to_be_bytes()[..], &answer].concat())?;
        }
    }
}

/// A name as the records' keys are written: labels as they are, in lower case, without the last dot.
fn text_of(name: &Name) -> String {
    let labels = name.iter().map(|label| label.iter().map(|octet| char::from(octet.to_ascii_lowercase())).collect());
    labels.collect::<Vec<String>>().join(".")
}

/// A name of any octets; the root if it is none.
fn dns_name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    let mut name = Name::from_labels(labels).unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
