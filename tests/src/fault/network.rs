//! A network of namespaces: the world, an edge with a public address, a router that masquerades, and a
//! home behind it that nothing can reach. Its links can swallow every packet, as a real line does, while
//! all sockets stay open. Making it wants root.
//!
//! ```text
//! tests and world (this namespace) --- internet --- edge
//!                                         |
//!                                        nat (masquerades, lets nothing in) --- home
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use gatepost_runtime::random;

use crate::pair::options::{Addresses, Options};
use crate::peers::{privileged, run};

/// Second octets of the networks' addresses are from here on…
const FIRST: u8 = 64;
/// …and so many.
const COUNT: u8 = 128;
const NAMESPACES: [&str; 4] = ["net", "edge", "nat", "home"];

/// The network; taken down when dropped.
pub struct Network {
    number: u8,
}

impl Network {
    /// Makes it.
    pub fn new() -> anyhow::Result<Self> {
        let mut last = None;
        for _ in 0..20 {
            let number = FIRST + random::bytes::<1>()[0] % COUNT;
            // Another test, or another run, may have this number.
            match ip(&["netns", "add", &name(number, "net")]) {
                Ok(()) => {
                    let network = Self { number };
                    network.build()?;
                    return Ok(network);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no number is free")))
    }

    /// A pair whose programs live in this network.
    pub fn place(&self, options: Options) -> Options {
        let enter = |part| ["ip", "netns", "exec", &name(self.number, part)].map(str::to_owned).to_vec();
        Options {
            addresses: Addresses { world: self.address(0, 1), edge: self.address(1, 10), home: self.address(3, 2) },
            edge_wrapper: enter("edge"),
            home_wrapper: enter("home"),
            ..options
        }
    }

    /// From now on every packet between the home and the rest of the world vanishes.
    pub fn swallow(&self) -> anyhow::Result<()> {
        self.nft(
            "net",
            "table inet fault {\n chain f {\n type filter hook forward priority 0;\n iifname \"nat\" drop\n \
             oifname \"nat\" drop\n }\n}\n",
        )
    }

    /// Packets flow again.
    pub fn restore(&self) -> anyhow::Result<()> {
        self.nft("net", "delete table inet fault\n")
    }

    /// The router's power fails: it forgets every connection, and what comes for them is dropped. Those
    /// inside go on believing in them.
    pub fn forget_connections(&self) -> anyhow::Result<()> {
        self.nft("nat", "flush ruleset\n")?;
        for change in ["down", "up"] {
            ip(&["-n", &name(self.number, "nat"), "link", "set", "wan", change])?;
        }
        let gateway = self.address(2, 1).to_string();
        ip(&["-n", &name(self.number, "nat"), "route", "replace", "default", "via", &gateway])?;
        // A packet of a connection it does not know is not the beginning of one.
        self.nft("nat", &ROUTER.replace("FORGOTTEN", "tcp flags & (syn | ack) != syn ct state new drop"))
    }

    /// Whether somebody in the world can connect to the home, or to its router.
    pub fn home_is_reachable(&self, port: u16) -> bool {
        [self.address(3, 2), self.address(2, 2)].iter().any(|address| {
            let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
            let tried = ["netns", "exec", &name(self.number, "edge"), "timeout", "0.5", "bash", "-c", &connect];
            privileged("ip").args(tried).output().is_ok_and(|output| output.status.success())
        })
    }

    fn build(&self) -> anyhow::Result<()> {
        let n = |part| name(self.number, part);
        for part in &NAMESPACES[1..] {
            ip(&["netns", "add", &n(part)])?;
        }
        for part in NAMESPACES {
            ip(&["-n", &n(part), "link", "set", "lo", "up"])?;
        }
        let world = format!("gp{}", self.number);
        ip(&["link", "add", &world, "type", "veth", "peer", "name", "world", "netns", &n("net")])?;
        ip(&["addr", "add", &self.with_mask(0, 1), "dev", &world])?;
        ip(&["link", "set", &world, "up"])?;
        self.up("net", "world", 0, 2)?;
        for (part, subnet, link, host) in [("edge", 1, "eth0", 10), ("nat", 2, "wan", 2)] {
            ip(&["-n", &n("net"), "link", "add", part, "type", "veth", "peer", "name", link, "netns", &n(part)])?;
            self.up("net", part, subnet, 1)?;
            self.up(part, link, subnet, host)?;
            ip(&["-n", &n(part), "route", "add", "default", "via", &self.address(subnet, 1).to_string()])?;
        }
        ip(&["-n", &n("nat"), "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", &n("home")])?;
        self.up("nat", "lan", 3, 1)?;
        self.up("home", "eth0", 3, 2)?;
        ip(&["-n", &n("home"), "route", "add", "default", "via", &self.address(3, 1).to_string()])?;
        let (edges, via) = (format!("{}/24", self.address(1, 0)), self.address(0, 2).to_string());
        ip(&["route", "add", &edges, "via", &via])?;
        for part in ["net", "nat"] {
            run(privileged("ip").args(["netns", "exec", &n(part), "sysctl", "-qw", "net.ipv4.ip_forward=1"]))?;
        }
        self.nft("nat", &ROUTER.replace("FORGOTTEN", ""))
    }

    fn up(&self, part: &str, link: &str, subnet: u8, host: u8) -> anyhow::Result<()> {
        let part = name(self.number, part);
        ip(&["-n", &part, "addr", "add", &self.with_mask(subnet, host), "dev", link])?;
        ip(&["-n", &part, "link", "set", link, "up"])
    }

    fn nft(&self, part: &str, rules: &str) -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), rules)?;
        run(privileged("ip").args(["netns", "exec", &name(self.number, part), "nft", "-f"]).arg(file.path()))?;
        Ok(())
    }

    fn address(&self, subnet: u8, host: u8) -> IpAddr {
        Ipv4Addr::new(10, self.number, subnet, host).into()
    }

    fn with_mask(&self, subnet: u8, host: u8) -> String {
        format!("{}/24", self.address(subnet, host))
    }
}

/// What a home router does: masquerades, lets answers in and nothing else.
const ROUTER: &str = "table ip nat {
 chain postrouting {
  type nat hook postrouting priority 100;
  oifname \"wan\" masquerade
 }
}
table inet f {
 chain forward {
  type filter hook forward priority 0; policy drop;
  FORGOTTEN
  ct state established,related accept
  iifname \"lan\" accept
 }
 chain input {
  type filter hook input priority 0; policy drop;
  ct state established,related accept
  iifname { \"lan\", \"lo\" } accept
 }
}
";

impl Drop for Network {
    fn drop(&mut self) {
        for part in NAMESPACES {
            let _ = privileged("ip").args(["netns", "del", &name(self.number, part)]).output();
        }
        // Its other end, and the route over it, go with it.
        let _ = privileged("ip").args(["link", "del", &format!("gp{}", self.number)]).output();
    }
}

fn name(number: u8, part: &str) -> String {
    format!("gatepost-test-{number}-{part}")
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let command: &mut Command = &mut privileged("ip");
    run(command.args(arguments)).map(drop)
}
