//! Pairing at the tunnel's door: who answers must be the edge of the code, and must know its secret.

use gatepost_protocol::pairing::code::PairingCode;
use gatepost_protocol::pairing::exchange::{Paired, PairingAnswer, PairingRefusal, Side, is_proven, prove};
use gatepost_protocol::secret::Secret;
use tokio::io::AsyncWriteExt as _;

use super::*;

/// An edge that answers every visitor, by its own secret.
async fn edge(secret: Secret, refusal: Option<PairingRefusal>) -> (SocketAddr, NodeKey) {
    let identity = Arc::new(Identity::throwaway());
    let key = identity.key();
    let (sender, _sessions) = mpsc::channel(4);
    let pairing = move |mut visitor: Visitor| {
        let (secret, refusal) = (secret.clone(), refusal.clone());
        let served: std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> = Box::pin(async move {
            let request = visitor.request().await.map_err(|error| error.to_string())?;
            let exporter = *visitor.exporter();
            let known = is_proven(&secret, Side::Home, &exporter, &request.proof);
            let paired = Paired {
                proof: prove(&secret, Side::Edge, &exporter),
                software: software(),
                node: request.node,
                home: known.to_string(),
                more_keys: Vec::new(),
                again: false,
            };
            let answer = refusal.map_or(PairingAnswer::Paired(paired), PairingAnswer::Refused);
            visitor.answer(&answer).await.map_err(|error| error.to_string())
        });
        served
    };
    let acceptor = Acceptor::new(identity, "edge".into(), Arc::new(|_| false), sender, Clock::real());
    let acceptor = Arc::new(acceptor.with_pairing(Arc::new(pairing)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let acceptor = Arc::clone(&acceptor);
            tokio::spawn(async move { acceptor.accept(stream, peer).await });
        }
    });
    (address, key)
}

fn secret(number: u8) -> Secret {
    Secret::new(vec![number; 16])
}

async fn tried(address: SocketAddr, edge_key: NodeKey, number: u8) -> Result<Paired, PairingError> {
    let code =
        PairingCode { address: address.to_string().parse().expect("an address"), edge_key, secret: secret(number) };
    let applicant = Applicant { node: "home".into(), more_keys: Vec::new(), domains: vec!["example.org".into()] };
    let identity = Identity::throwaway();
    Box::pin(soon(crate::tunnel::pair(&identity, &code, applicant, &Clock::real()))).await
}

#[tokio::test]
async fn both_prove_the_secret_or_nothing_comes_of_it() {
    let (address, key) = edge(secret(1), None).await;
    let paired = tried(address, key, 1).await.expect("paired");
    assert_eq!((paired.home.as_str(), paired.node.as_str()), ("true", "home"));
    assert_eq!(tried(address, key, 2).await, Err(PairingError::Unproven));
    let other = NodeKey::of_spki(b"another");
    let stranger = PairingError::Stranger { address: address.to_string(), found: key };
    assert_eq!(tried(address, other, 1).await, Err(stranger));
    let (address, key) = edge(secret(1), Some(PairingRefusal::Used)).await;
    assert_eq!(tried(address, key, 1).await, Err(PairingError::Refused(PairingRefusal::Used)));
}

#[tokio::test]
async fn an_edge_that_does_not_pair_hangs_up() {
    let mut edge = super::Edge::start(|_| true, &Clock::real()).await;
    assert!(matches!(tried(edge.address, edge.key, 1).await, Err(PairingError::Tunnel(TunnelError::Broken(_)))));
    // And homes come as ever.
    dialled(&edge, &Identity::throwaway(), &Clock::real()).await.expect("a session");
    edge.session().await;
}

#[tokio::test]
async fn a_visitor_that_lies_about_length_is_let_go() {
    let log = Log::capture();
    let (address, key) = edge(secret(1), None).await;
    let tcp = tokio::net::TcpStream::connect(address).await.expect("connected");
    let (config, _) = Identity::throwaway().pairing_config(key);
    let mut io = transport::secure_dialled(tcp, config, &Clock::real()).await.expect("secured").io;
    io.write_all(&[0xff, 0xff, 0xff, 0xff, 0]).await.expect("written");
    io.flush().await.expect("flushed");
    log.holds("not paired: the other side's hello can't be read", 1).await;
}
