//! A TCP proxy that can break: cut every connection now or after so many octets, swallow all bytes, or
//! refuse to connect. It keeps its port over restarts of what is behind it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context as _;

use crate::world::ports;

/// What it does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Swallows them, both ways; connections stay open.
    BlackHole,
    /// Closes each new connection at once.
    Refuse,
}

/// A running proxy. It ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    mode: Mode,
    ended: bool,
    // Octets that may still go towards who dialled, over all connections; then everything is cut.
    allowance: Option<u64>,
    passed: u64,
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// Listens on a free port and connects to `target` for each connection.
    pub fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let address = ports::free();
        let listener = TcpListener::bind(address).with_context(|| format!("can't bind {address}"))?;
        let shared = Arc::new(Mutex::new(Shared {
            mode: Mode::Pass,
            ended: false,
            allowance: None,
            passed: 0,
            streams: Vec::new(),
        }));
        let proxy = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || accept(&listener, target, &shared));
        Ok(proxy)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.lock().mode = mode;
    }

    /// Cuts every connection now; new ones are made as the mode says.
    pub fn cut(&self) {
        self.lock().cut();
    }

    /// Cuts every connection once so many more octets went towards who dialled. In a tunnel that is what the
    /// edge says to the home: inbound mail.
    pub fn cut_after(&self, octets: u64) {
        self.lock().allowance = Some(octets);
    }

    /// True once the cut of [`Proxy::cut_after`] has happened.
    pub fn has_cut(&self) -> bool {
        self.lock().allowance.is_none()
    }

    /// Octets that went towards who dialled so far.
    pub fn passed(&self) -> u64 {
        self.lock().passed
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut shared = self.lock();
        shared.ended = true;
        shared.cut();
        drop(shared);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn cut(&mut self) {
        for stream in self.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Mutex<Shared>>) {
    for stream in listener.incoming() {
        let mut state = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.ended {
            return;
        }
        let Ok(dialler) = stream else { continue };
        if state.mode == Mode::Refuse {
            continue;
        }
        let Ok(behind) = TcpStream::connect(target) else { continue };
        let _ = (dialler.set_nodelay(true), behind.set_nodelay(true));
        let clones = (dialler.try_clone(), behind.try_clone(), dialler.try_clone(), behind.try_clone());
        let (Ok(dialler_kept), Ok(behind_kept), Ok(dialler_write), Ok(behind_write)) = clones else { continue };
        state.streams.extend([dialler_kept, behind_kept]);
        drop(state);
        let (there, back) = (Arc::clone(shared), Arc::clone(shared));
        std::thread::spawn(move || pump(dialler, behind_write, &there, false));
        std::thread::spawn(move || pump(behind, dialler_write, &back, true));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Mutex<Shared>, towards_dialler: bool) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(octets) = from.read(&mut chunk) {
        if octets == 0 {
            break;
        }
        let mut pass = octets;
        {
            let mut state = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if state.mode == Mode::BlackHole {
                continue;
            }
            if towards_dialler {
                if let Some(allowance) = &mut state.allowance {
                    pass = octets.min(usize::try_from(*allowance).unwrap_or(usize::MAX));
                    *allowance -= pass as u64;
                    if pass < octets {
                        state.allowance = None;
                        state.cut();
                        break;
                    }
                }
                state.passed += pass as u64;
            }
        }
        if to.write_all(&chunk[..pass]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
