//! An embedded DNS server: one zone, the root, that holds all the world there is. Every other name
//! does not exist. Records are given in zone-file syntax and may be added while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hickory_proto::rr::{LowerName, Name, RrKey};
use hickory_proto::serialize::txt::Parser;
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

const APEX: &str = ". 60 IN SOA ns. root. 1 3600 600 86400 1\n. 60 IN NS ns.\n";
const TCP_IDLE_MAX: Duration = Duration::from_secs(30);
const TCP_RESPONSE_OCTETS: usize = 4096;

/// The server. It ends when dropped.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<InMemoryZoneHandler>,
    _server: Server<Catalog>,
}

impl Dns {
    /// Serves on this address, by UDP and TCP.
    pub async fn start(address: SocketAddr, records: &str) -> anyhow::Result<Self> {
        let zone = Arc::new(InMemoryZoneHandler::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny));
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&Name::root()), vec![Arc::clone(&zone) as _]);
        let mut server = Server::new(catalog);
        let udp = UdpSocket::bind(address).await.with_context(|| format!("can't bind {address} (UDP)"))?;
        let tcp = TcpListener::bind(address).await.with_context(|| format!("can't bind {address}"))?;
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE_MAX, TCP_RESPONSE_OCTETS);
        let dns = Self { address, zone, _server: server };
        dns.add(APEX).await?;
        dns.add(records).await?;
        Ok(dns)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes all records of a name and type away; the name is absolute.
    pub async fn remove(&self, name: &str, kind: &str) -> anyhow::Result<()> {
        let name = LowerName::new(&Name::from_ascii(name)?);
        let kind = kind.parse().map_err(|_| anyhow::anyhow!("{kind} is no type of records"))?;
        self.zone.records_mut().await.remove(&RrKey::new(name, kind));
        Ok(())
    }

    /// Adds records, in zone-file syntax; names are absolute.
    pub async fn add(&self, records: &str) -> anyhow::Result<()> {
        // The parser wants a last line end and a default TTL.
        let text = format!("$TTL 1\n{records}\n");
        let (_, sets) = Parser::new(text, None, Some(Name::root())).parse().context("these are no DNS records")?;
        for set in sets.into_values() {
            for record in set.records_without_rrsigs() {
                self.zone.upsert(record.clone(), 1).await;
            }
        }
        Ok(())
    }
}
