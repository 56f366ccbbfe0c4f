//! What travels over a session.

use bytes::Bytes;
use gatepost_protocol::tunnel::frame::Frame;
use gatepost_protocol::tunnel::hello::Role;

use super::*;

#[tokio::test]
async fn a_request_and_its_data_arrive_and_the_answer_comes_back() {
    let (_edge, (home, _), (_, mut incoming)) = pair(&Clock::real()).await;
    let mut stream = home.open(&request(1)).await.expect("open");
    stream.send_data(Bytes::from_static(b"hello")).await.expect("queued");
    stream.send(&7u32).await.expect("queued");
    stream.end_sending().await.expect("sent");

    let mut served = soon(incoming.recv()).await.expect("an exchange");
    assert_eq!((served.role, &served.request), (Role::Mail, &request(1)));
    assert_eq!(served.stream.frame().await, Ok(Frame::Data(Bytes::from_static(b"hello"))));
    assert_eq!(served.stream.record::<u32>().await, Ok(7));
    assert_eq!(served.stream.frame().await, Err(StreamError::Ended));
    served.stream.send(&8u32).await.expect("queued");
    served.stream.finish().await;

    assert_eq!(soon(stream.record::<u32>()).await, Ok(8));
    assert_eq!(soon(stream.frame()).await, Err(StreamError::Ended));
}
