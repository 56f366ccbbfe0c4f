//! A door that a reload opens, shuts or moves while its connections go on. What is to be is planned first, with every
//! listener open that will be needed, so that a plan either fails as a whole or is carried out as a whole.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{BindError, Listening, bind, bind_beside};
use crate::shutdown::Shutdown;
use tokio::net::TcpListener;

/// One door, shut at first. Dropped, it is shut; its connections go on.
#[derive(Debug, Default)]
pub struct Door {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// As the config has it: port 0 stays where it is.
    configured: SocketAddr,
    real: SocketAddr,
    listener: Arc<TcpListener>,
    /// Dropped, it tells the task to shut.
    _task: Shutdown,
}

/// What is to become of a door. Dropped, nothing has happened.
#[derive(Debug)]
#[must_use]
pub struct Plan(Step);

#[derive(Debug)]
enum Step {
    Keep,
    Shut,
    Open { configured: SocketAddr, real: SocketAddr, listener: Arc<TcpListener> },
}

impl Door {
    /// Opens what is to be opened, and serves nothing yet. To be called inside the runtime.
    pub fn plan(&self, configured: Option<SocketAddr>) -> Result<Plan, BindError> {
        let Some(configured) = configured else { return Ok(Plan(Step::Shut)) };
        let listener = match &self.open {
            Some(open) if open.configured == configured => return Ok(Plan(Step::Keep)),
            Some(open) if open.real.port() == configured.port() => bind_beside(configured, &open.listener)?,
            _ => bind(configured)?,
        };
        let real = listener.local_addr().map_err(|source| BindError {
            address: configured,
            remedy: source.to_string(),
            source,
        })?;
        Ok(Plan(Step::Open { configured, real, listener: Arc::new(listener) }))
    }

    /// Makes it so. `serve` is asked only for a new listener, and serves until it is shut or moved.
    pub fn carry_out<F>(&mut self, plan: Plan, serve: impl FnOnce(Listening) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match plan.0 {
            Step::Keep => {}
            Step::Shut => self.shut(),
            Step::Open { configured, real, listener } => {
                let (task, shut) = Shutdown::new();
                tokio::spawn(serve(Listening { listener: Arc::clone(&listener), shut: Some(shut) }));
                self.open = Some(Open { configured, real, listener, _task: task });
            }
        }
    }

    /// Where it really is, while it is open.
    pub fn address(&self) -> Option<SocketAddr> {
        self.open.as_ref().map(|open| open.real)
    }

    /// Takes nothing more.
    pub fn shut(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::super::{Admitted, DoorLimits, Places, Refusal, serve};
    use super::*;
    use crate::shutdown::{Shutdown, Signal};

    fn echo(signal: Signal) -> impl FnOnce(Listening) -> futures_util::future::BoxFuture<'static, ()> {
        let places = Places::new(DoorLimits { connections_max: 9, connections_per_address_max: 9 });
        move |listening| {
            Box::pin(serve("test", listening, places, signal, Refusal::SILENT, |mut admitted: Admitted| async move {
                let mut octet = [0];
                while admitted.stream.read_exact(&mut octet).await.is_ok() {
                    admitted.stream.write_all(&octet).await.unwrap();
                }
            }))
        }
    }

    async fn echoes(stream: &mut TcpStream) -> bool {
        let mut octet = [0];
        stream.write_all(b"x").await.is_ok() && stream.read_exact(&mut octet).await.is_ok() && &octet == b"x"
    }

    async fn until_shut(address: SocketAddr) {
        // The task that held the listener is dropped a moment later.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_door_moves_and_who_is_inside_stays_inside() {
        let (_shutdown, signal) = Shutdown::new();
        let mut door = Door::default();
        let plan = door.plan("127.0.0.1:0".parse().ok()).unwrap();
        door.carry_out(plan, echo(signal.clone()));
        let first = door.address().unwrap();
        let mut inside = TcpStream::connect(first).await.unwrap();
        assert!(echoes(&mut inside).await);
        // The same setting: the same listener.
        let plan = door.plan("127.0.0.1:0".parse().ok()).unwrap();
        door.carry_out(plan, |_| async { unreachable!("it is kept") });
        assert_eq!(door.address(), Some(first));
        let plan = door.plan("127.0.0.2:0".parse().ok()).unwrap();
        door.carry_out(plan, echo(signal.clone()));
        until_shut(first).await;
        assert!(echoes(&mut inside).await);
        assert!(echoes(&mut TcpStream::connect(door.address().unwrap()).await.unwrap()).await);
        let plan = door.plan(None).unwrap();
        let last = door.address().unwrap();
        door.carry_out(plan, |_| async {});
        until_shut(last).await;
        assert!(echoes(&mut inside).await);
    }

    #[tokio::test]
    async fn a_door_opens_wider_on_its_own_port_and_never_on_anothers() {
        let (_shutdown, signal) = Shutdown::new();
        let mut door = Door::default();
        let plan = door.plan("127.0.0.1:0".parse().ok()).unwrap();
        door.carry_out(plan, echo(signal.clone()));
        let narrow = door.address().unwrap();
        let wide = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), narrow.port());
        let plan = door.plan(Some(wide)).unwrap();
        // Dropped, a plan has done nothing.
        drop(plan);
        assert!(echoes(&mut TcpStream::connect(narrow).await.unwrap()).await);
        let plan = door.plan(Some(wide)).unwrap();
        door.carry_out(plan, echo(signal.clone()));
        assert!(echoes(&mut TcpStream::connect(("127.0.0.1", narrow.port())).await.unwrap()).await);
        let plan = door.plan(Some(narrow)).unwrap();
        door.carry_out(plan, echo(signal));
        assert!(echoes(&mut TcpStream::connect(narrow).await.unwrap()).await);
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = door.plan(stranger.local_addr().ok()).unwrap_err().to_string();
        assert!(error.contains("is taken by another program"), "{error}");
        assert!(echoes(&mut TcpStream::connect(narrow).await.unwrap()).await);
    }
}
