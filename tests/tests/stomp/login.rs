//! CONNECT: versions, credentials, virtual hosts.

use super::broker::Broker;

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[tokio::test]
async fn connected_says_who_we_are_and_what_was_agreed() {
    let broker = Broker::start().await;
    for (headers, heart_beat, version) in [
        ("", "0,0", "1.0"),
        ("accept-version:1.0\n", "0,0", "1.0"),
        ("accept-version:1.0,1.1\nhost:/\n", "0,0", "1.1"),
        ("accept-version:1.0,1.1,1.2\nheart-beat:500,1500\n", "1000,1000", "1.2"),
        ("accept-version:1.2, 1.1\nlogin:guest\npasscode:guest\n", "0,0", "1.2"),
        ("accept-version:2.0,1.1\nheart-beat:10000,0\n", "0,10000", "1.1"),
    ] {
        for command in ["CONNECT", "STOMP"] {
            let mut peer = broker.connect().await;
            peer.send(&format!("{command}\n{headers}receipt:never\n\n\0")).await;
            peer.expect(&format!(
                "CONNECTED\nserver:Warren/{VERSION}\nsession:S\nheart-beat:{heart_beat}\n\
                 version:{version}\n\n"
            ))
            .await;
            assert!(peer.session.starts_with("session-"), "{}", peer.session);
            assert_eq!(peer.session.len(), "session-".len() + 22);
        }
    }
}

#[tokio::test]
async fn the_server_header_can_be_hidden_and_the_trailing_line_feed_left_out() {
    let broker = Broker::with(|settings| {
        settings.stomp.hide_server_info = true;
        settings.stomp.trailing_lf = false;
    })
    .await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("BEGIN\ntransaction:t\nreceipt:r\n\n\0DISCONNECT\nreceipt:d\n\n\0").await;
    peer.expect_receipt("r").await;
    assert_eq!(peer.octet().await, b'R', "no line feed before the next frame");
    let mut peer = broker.connect().await;
    peer.send("CONNECT\n\n\0").await;
    let connected = peer.next().await;
    assert!(!connected.contains("server:"), "{connected}");
}

#[tokio::test]
async fn every_frame_ends_with_nul_and_a_line_feed() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.0").await;
    peer.send("BEGIN\ntransaction:t\nreceipt:r\n\n\0").await;
    // The line feed of CONNECTED.
    assert_eq!(peer.octet().await, b'\n');
    peer.expect_receipt("r").await;
    assert_eq!(peer.octet().await, b'\n');
}

#[tokio::test]
async fn a_connect_that_fails_is_answered_and_the_connection_ends() {
    let broker = Broker::start().await;
    for (headers, message, body) in [
        ("accept-version:3.0\n", "Version mismatch", "Supported versions are 1.0,1.1,1.2\n"),
        ("login:guest\npasscode:no\n", "Bad CONNECT", "Access refused for user 'guest'\n"),
        ("login:nobody\npasscode:x\n", "Bad CONNECT", "Access refused for user 'nobody'\n"),
        ("login:nobody\n", "Bad CONNECT", "Missing login or passcode header(s)"),
        ("host:other\n", "Bad CONNECT", "Virtual host 'other' access denied"),
        ("heart-beat:soon\n", "Processing error", "Processing error"),
    ] {
        let mut peer = broker.connect().await;
        peer.send(&format!("CONNECT\n{headers}\n\0")).await;
        peer.expect_last_error(message, body).await;
    }
}

#[tokio::test]
async fn without_a_default_user_a_login_is_needed() {
    let broker = Broker::with(|settings| settings.stomp.default_user = String::new()).await;
    let mut peer = broker.connect().await;
    peer.send("CONNECT\n\n\0").await;
    peer.expect_last_error("Bad CONNECT", "Missing login or passcode header(s)").await;
    broker.log_in_with("login:guest\npasscode:guest\n").await;
}

#[tokio::test]
async fn any_other_frame_before_login_is_refused_and_ends_the_connection() {
    let broker = Broker::start().await;
    for frame in ["SEND\ndestination:a\n\n\0", "DISCONNECT\n\n\0", "HELLO\n\n\0"] {
        let mut peer = broker.connect().await;
        peer.send(frame).await;
        peer.expect_last_error("Illegal command", "You must log in using CONNECT first").await;
    }
}

/// Shorter frames than their answers must not make answers pile up.
#[tokio::test]
async fn a_stranger_gets_one_error_at_most() {
    let broker = Broker::start().await;
    let mut peer = broker.connect().await;
    peer.try_send_octets("A\n\n\0".repeat(10_000).as_bytes()).await;
    peer.expect_last_error("Illegal command", "You must log in using CONNECT first").await;
}

#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("CONNECT\n\n\0").await;
    peer.expect_last_error("Illegal command", "You are logged in already").await;
}

#[tokio::test]
async fn an_implicit_login_works_with_the_first_frame_and_says_nothing() {
    let broker = Broker::with(|settings| settings.stomp.implicit_connect = true).await;
    let mut peer = broker.connect().await;
    peer.send("SUBSCRIBE\ndestination:i\nreceipt:1\n\n\0SEND\ndestination:i\n\nx\0").await;
    peer.expect_receipt("1").await;
    let message = peer.next().await;
    assert!(message.starts_with("MESSAGE\ndestination:/queue/i\n"), "{message}");
    assert!(message.ends_with("\n\nx"), "{message}");
    // Who wants to log in still can.
    broker.log_in("1.2").await;
}

#[tokio::test]
async fn frames_behind_a_connect_wait_for_the_login() {
    let broker = Broker::start().await;
    let mut peer = broker.connect().await;
    peer.send("CONNECT\naccept-version:1.1\n\n\0BEGIN\ntransaction:t\nreceipt:1\n\n\0").await;
    assert!(peer.next().await.starts_with("CONNECTED\n"));
    peer.expect_receipt("1").await;
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_dropped_without_a_word() {
    let broker = Broker::with(|settings| {
        settings.stomp.login_timeout = "300ms".parse().unwrap();
    })
    .await;
    let mut silent = broker.connect().await;
    let mut slow = broker.connect().await;
    slow.send("CONN").await;
    silent.expect_end().await;
    slow.expect_end().await;
}
