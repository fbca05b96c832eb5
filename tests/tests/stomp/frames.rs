//! Octets that are no frames, frames that are none of a client's.

use super::broker::Broker;

#[tokio::test]
async fn a_malformed_frame_ends_its_connection_and_no_other() {
    let broker = Broker::start().await;
    let mut bystander = broker.log_in("1.2").await;
    for (octets, body) in [
        ("SEND\nno colon\n\n\0", "Line 2 is not of the form name:value\n"),
        (
            "SEND\na:b\rc\n\n\0",
            "Line 2 has a carriage return that is not followed by a line feed\n",
        ),
        ("SEND\na:\\t\n\n\0", "Line 2 has an undefined escape sequence\n"),
        ("SEND\na:b\0", "Line 2 has a NUL; a blank line ends the headers\n"),
        ("SEND\ncontent-length:x\n\n\0", "The content-length header is not a number of octets\n"),
        ("SEND\ncontent-length:1\n\nab\0", "The body of 1 octets is not followed by a NUL\n"),
    ] {
        let mut peer = broker.log_in("1.2").await;
        peer.send(octets).await;
        peer.expect_last_error("Invalid frame", body).await;
    }
    bystander.expect_nothing().await;
}

#[tokio::test]
async fn what_came_before_a_malformed_frame_is_done() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    // The queue is there and kept: its receipt has nothing to wait for when the connection ends.
    peer.send("SUBSCRIBE\nid:0\ndestination:/queue/before\nreceipt:0\n\n\0").await;
    peer.expect_receipt("0").await;
    peer.send("UNSUBSCRIBE\nid:0\n\n\0").await;
    peer.send("SEND\ndestination:/queue/before\nreceipt:1\n\nkept\0SEND\nno colon\n\n\0").await;
    peer.expect_receipt("1").await;
    peer.expect_last_error("Invalid frame", "Line 2 is not of the form name:value\n").await;
    let mut other = broker.log_in("1.2").await;
    other.send("SUBSCRIBE\nid:0\ndestination:/queue/before\n\n\0").await;
    assert!(other.next().await.ends_with("\n\nkept"));
}

#[tokio::test]
async fn commands_that_no_client_has_are_refused_and_the_connection_goes_on() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    for command in ["HELLO", "send", "MESSAGE", "CONNECTED", "RECEIPT", "ERROR"] {
        peer.send(&format!("{command}\na:b\n\n\0")).await;
        let body = format!("Could not interpret command \"{command}\"\n");
        peer.expect_error("Bad command", &body).await;
    }
    peer.expect_nothing().await;
}

#[tokio::test]
async fn an_error_names_the_receipt_that_there_will_not_be() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("SEND\nreceipt:7\n\n\0").await;
    peer.expect(
        "ERROR\nmessage:Missing destination\ncontent-type:text/plain\nversion:1.0,1.1,1.2\n\
         receipt-id:7\ncontent-length:43\n\n\"SEND\" must include a 'destination' header\n",
    )
    .await;
    peer.expect_nothing().await;
}

#[tokio::test]
async fn frames_may_arrive_octet_by_octet() {
    let broker = Broker::start().await;
    let mut peer = broker.connect().await;
    let frames = "CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:0\ndestination:/queue/o\n\n\0\
                  SEND\ndestination:/queue/o\ncontent-length:2\n\nhi\0";
    for octet in frames.bytes() {
        peer.send_octets(&[octet]).await;
    }
    assert!(peer.next().await.starts_with("CONNECTED\n"));
    assert!(peer.next().await.ends_with("content-length:2\n\nhi"));
}

#[tokio::test]
async fn a_large_body_comes_through() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/topic/large\n\n").await;
    for len in [65_535, 65_536, 3_000_000] {
        let body: String = ('a'..='z').cycle().take(len).collect();
        peer.send(&format!("SEND\ndestination:/topic/large\n\n{body}\0")).await;
        let message = peer.next().await;
        assert!(message.contains(&format!("content-length:{len}\n\n")));
        assert!(message.ends_with(&body), "{len}");
    }
}
