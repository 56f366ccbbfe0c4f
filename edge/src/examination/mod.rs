//! What a home's `doctor` asks this edge to try out: whether mail hosts are reached from here, whether lists list it, what a
//! stranger finds at a mail door. Nothing is tried that the home could not have had tried by sending mail.

mod door;
mod lists;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::network::is_public;
use gatepost_protocol::tunnel::verb::admin::AdminAnswer;
use gatepost_protocol::tunnel::verb::examination::{Door, ECHO_OCTETS_MAX, Examination, Examined, Relayed, Tried};
use gatepost_runtime::resolver::Resolver;
use tokio::sync::Semaphore;

use crate::homes::Home;
use crate::relay::exchangers::{self, Nowhere};
use crate::status::Status;

/// Examinations at once; others wait.
const AT_ONCE_MAX: usize = 2;
/// All of one may take so long.
const WAIT_MAX: Duration = Duration::from_secs(25);
/// Mail hosts of one domain that are tried.
const HOSTS_MAX: usize = 2;

/// Tries things out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Examiner {
    status: Arc<Status>,
    resolver: Resolver,
    places: Arc<Semaphore>,
}

impl Examiner {
    /// Of this edge, by these answers.
    pub fn new(status: Arc<Status>, resolver: Resolver) -> Self {
        Self { status, resolver, places: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }

    /// Octets back, to see how much passes.
    pub fn echo(back: u32) -> AdminAnswer {
        let octets = usize::try_from(back).unwrap_or(usize::MAX).min(ECHO_OCTETS_MAX);
        AdminAnswer::Answer("=".repeat(octets))
    }

    /// Tries all of this out.
    pub async fn examine(&self, home: &Home, asked: &Examination) -> AdminAnswer {
        if !asked.is_bounded() {
            return AdminAnswer::Refused("that is too much at once".to_owned());
        }
        let Ok(_place) = self.places.acquire().await else {
            return AdminAnswer::Refused("the edge is stopping".to_owned());
        };
        let clock = &self.status.clock;
        let Some(mut examined) = clock.timeout(WAIT_MAX, self.try_all(home, asked)).await else {
            return AdminAnswer::Refused(format!("not done within {} s", WAIT_MAX.as_secs()));
        };
        // The last, so that what it is compared with is as near as can be.
        examined.unix_ms = clock.unix_ms();
        match serde_json::to_string(&examined) {
            Ok(text) => AdminAnswer::Answer(text),
            Err(error) => AdminAnswer::Refused(error.to_string()),
        }
    }

    async fn try_all(&self, home: &Home, asked: &Examination) -> Examined {
        let lists = lists::ask(&self.resolver, &asked.lists, &asked.addresses);
        let (mail_to, lists, doors) =
            tokio::join!(self.mail_to(home, &asked.mail_to), lists, self.doors(home, &asked.doors, &asked.elsewhere));
        let (doors, relayed) = doors;
        let open = self.status.doors();
        let port = |address: Option<SocketAddr>| address.map(|address| address.port());
        Examined {
            unix_ms: 0,
            outside_unix_s: self.status.smtp.outside_unix_s(),
            smtp_port: port(open.smtp),
            submissions_port: port(open.submissions),
            mail_to,
            lists,
            doors,
            relayed,
        }
    }

    /// Whether any mail host of these domains is reached: one is enough.
    async fn mail_to(&self, home: &Home, domains: &[String]) -> Option<Tried> {
        let mut last = None;
        for name in domains {
            let hosts = match name.rsplit_once(':') {
                Some((host, port)) => self.named(home, host, port).await,
                None => self.hosts_of(name).await,
            };
            let tried = match hosts {
                Ok(hosts) => self.first_reached(hosts).await,
                Err(told) => Tried { what: name.clone(), good: false, told },
            };
            if tried.good {
                return Some(tried);
            }
            last = Some(tried);
        }
        last
    }

    /// One host by its name and port.
    async fn named(&self, home: &Home, host: &str, port: &str) -> Result<Vec<exchangers::Target>, String> {
        let port: u16 = port.parse().map_err(|_| "its port is no number".to_owned())?;
        let address = self.address_of(home, host).await?;
        Ok(vec![exchangers::Target { host: host.to_owned(), address: SocketAddr::new(address, port) }])
    }

    /// The first address of a host that this home may reach through us.
    async fn address_of(&self, home: &Home, host: &str) -> Result<IpAddr, String> {
        let addresses = self.resolver.addresses(host, false).await.map_err(|error| error.to_string())?;
        let allowed = |address: &IpAddr| home.private_routes() || is_public(*address);
        addresses.into_iter().find(allowed).ok_or_else(|| "it has no public address".to_owned())
    }

    async fn hosts_of(&self, domain: &str) -> Result<Vec<exchangers::Target>, String> {
        let domain = &Domain::parse(domain).map_err(|error| error.to_string())?;
        let ours = &self.status.hostname;
        let words = |nowhere: Nowhere| match nowhere {
            Nowhere::Ourselves => "its mail comes to this edge".to_owned(),
            Nowhere::Reply(reply) => reply.to_string(),
        };
        let names = exchangers::names(&self.resolver, domain, ours).await.map_err(words)?;
        exchangers::targets(&self.resolver, domain, &names, ours, false).await.map_err(words)
    }

    async fn first_reached(&self, hosts: Vec<exchangers::Target>) -> Tried {
        let mut last = Tried::default();
        for host in hosts.into_iter().take(HOSTS_MAX) {
            let what = format!("{} [{}]:{}", host.host, host.address.ip(), host.address.port());
            last = match door::knock(host.address, &self.status.clock).await {
                Ok(told) => return Tried { what, good: true, told },
                Err(told) => Tried { what, good: false, told },
            };
        }
        last
    }

    /// What a stranger finds at each door.
    async fn doors(&self, home: &Home, doors: &[Door], elsewhere: &str) -> (Vec<Tried>, Vec<Relayed>) {
        let mut all = (Vec::new(), Vec::new());
        for Door { host, port } in doors {
            let what = format!("{host}:{port}");
            let found = match self.address_of(home, host).await {
                Ok(address) => {
                    let address = SocketAddr::new(address, *port);
                    door::strangers(address, self.status.hostname.as_str(), elsewhere, &self.status.clock).await
                }
                Err(told) => Err(told),
            };
            let (good, told) = match found {
                Ok((greeting, relayed)) => {
                    all.1.extend(relayed.into_iter().map(|(command, reply)| Relayed {
                        door: what.clone(),
                        command,
                        reply,
                    }));
                    (true, greeting)
                }
                Err(told) => (false, told),
            };
            all.0.push(Tried { what, good, told });
        }
        all
    }
}
