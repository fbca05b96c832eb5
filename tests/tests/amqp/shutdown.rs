//! How the broker says goodbye.

use proto_amqp::Version;
use proto_amqp::control::protocol::connection;
use warren_tests::amqp::Peer;
use warren_tests::{DEADLINE, TestBroker};

const TEXT: &str = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";

#[tokio::test]
async fn every_connection_is_closed_with_320() {
    let broker = TestBroker::start().await;
    let (mut one, mut two) = (broker.amqp().await, broker.amqp().await);
    one.declare(1, "q").await;
    one.consume(1, "q", "tag").await;
    let ends = tokio::spawn(broker.shutdown());
    for peer in [&mut one, &mut two] {
        peer.expect_close(320, TEXT, (0, 0)).await;
        peer.send(0, connection::CloseOk {}).await;
        peer.expect_end().await;
    }
    ends.await.unwrap();
}

#[tokio::test]
async fn clients_that_do_not_answer_hold_up_nobody() {
    // Whoever waits for the whole `drain_timeout` is found out. On an address of its own: the port that it leaves is not
    // taken by the broker of another test.
    let settings = ["drain_timeout=10m", "amqp.listen=127.20.15.1:0"];
    let broker = TestBroker::set(&settings).await;
    let _mute = broker.amqp().await;
    let mut stranger = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    stranger.start().await;
    let address = broker.amqp_address();
    let stopped = tokio::time::timeout(DEADLINE, broker.shutdown()).await;
    assert!(stopped.is_ok(), "it waits for those who do not answer");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn several_brokers_live_side_by_side() {
    let (one, two) = (TestBroker::start().await, TestBroker::start().await);
    let (mut at_one, mut at_two) = (one.amqp().await, two.amqp().await);
    at_one.declare(1, "q").await;
    at_one.publish(1, "", "q", "here").await;
    at_two.declare(1, "q").await;
    assert_eq!(at_two.counts(1, "q").await, (0, 0));
    assert_eq!(at_one.drain(1, "q").await, ["here"]);
    one.shutdown().await;
    at_two.expect_nothing(1).await;
}
