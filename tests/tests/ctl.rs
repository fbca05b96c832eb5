//! `warren ctl` against a broker with clients: what operators see, do, and are told when it cannot be done.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use proto_amqp::control::protocol::basic;
use proto_stomp::{Command, OwnedFrame, Version};
use warren_server::cli::{HealthArgs, Said, SettingsArgs, ctl_said, exit, health};
use warren_tests::amqp::tables::{table, text};
use warren_tests::amqp::{Options, Peer};
use warren_tests::{TestBroker, eventually, stomp};

/// Runs a command in the words that a shell would give, parted by spaces; `''` is an empty word.
async fn ctl(broker: &TestBroker, line: &str) -> Said {
    let mut words: Vec<OsString> =
        line.split(' ').map(|word| if word == "''" { "" } else { word }.into()).collect();
    words.push("--socket".into());
    words.push(broker.data_dir().join("warren.sock").into());
    match tokio::task::spawn_blocking(move || ctl_said(&words)).await {
        Ok(said) => said,
        Err(error) => panic!("{line}: {error}"),
    }
}

/// What a command prints that has to succeed.
async fn done(broker: &TestBroker, line: &str) -> String {
    let said = ctl(broker, line).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{line} printed {}", said.out);
    said.out
}

/// What a command says that has to fail, and its exit code.
async fn refused(broker: &TestBroker, line: &str) -> (u8, String) {
    let said = ctl(broker, line).await;
    assert!(said.code != 0, "{line} printed {}", said.out);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    (said.code, said.err)
}

#[tokio::test]
async fn queues_are_listed_with_their_counts() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "b").await;
    peer.declare_with(1, "a", table([("x-dead-letter-exchange", text("dead"))])).await;
    for body in ["1", "22", "333"] {
        peer.publish(1, "", "b", body).await;
    }
    assert!(peer.get(1, "b", false).await.is_some());
    assert_eq!(
        done(&broker, "list_queues").await,
        "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\nname\tmessages\na\t0\nb\t3\n"
    );
    assert_eq!(
        done(&broker, "-q list_queues name messages_ready messages_unacknowledged message_bytes")
            .await,
        "name\tmessages_ready\tmessages_unacknowledged\tmessage_bytes\na\t0\t0\t0\nb\t2\t1\t6\n"
    );
    assert_eq!(
        done(&broker, "list_queues -s name arguments").await,
        "a\t[{\"x-dead-letter-exchange\",\"dead\"}]\nb\t[]\n"
    );
    assert_eq!(
        done(&broker, "list_queues name arguments --formatter json").await,
        "[\n{\"name\":\"a\",\"arguments\":[[\"x-dead-letter-exchange\",\"longstr\",\"dead\"]]}\n\
         ,{\"name\":\"b\",\"arguments\":[]}\n]\n"
    );
    broker.shutdown().await;
}

#[tokio::test]
async fn exchanges_and_bindings_are_listed_with_the_default_exchange_first() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.declare_exchange(1, "logs", "topic").await;
    peer.bind(1, "q", "logs", "a.*").await;
    let exchanges = done(&broker, "list_exchanges -q").await;
    assert!(exchanges.starts_with("name\ttype\n\tdirect\namq.direct\tdirect\n"), "{exchanges}");
    assert!(exchanges.ends_with("logs\ttopic\n"), "{exchanges}");
    assert_eq!(
        done(&broker, "list_bindings").await,
        "Listing bindings for vhost /...\n\
         source_name\tsource_kind\tdestination_name\tdestination_kind\trouting_key\targuments\n\
         \texchange\tq\tqueue\tq\t[]\n\
         logs\texchange\tq\tqueue\ta.*\t[]\n"
    );
}

#[tokio::test]
async fn clients_of_both_protocols_are_listed_and_can_be_closed() {
    let broker = TestBroker::start().await;
    let mut amqp = broker.amqp().await;
    let mut stomp = broker.stomp().await;
    stomp.log_in("1.2").await;
    amqp.declare(1, "q").await;
    amqp.qos(1, 7).await;
    amqp.consume(1, "q", "tag").await;
    let connections = done(&broker, "list_connections -s protocol user state channels").await;
    assert_eq!(connections, "AMQP 0-9-1\tguest\trunning\t1\nSTOMP 1.2\tguest\trunning\t1\n");
    let consumers = done(&broker, "list_consumers -s").await;
    let columns: Vec<_> = consumers.trim_end().split('\t').collect();
    let [queue, channel, rest @ ..] = columns.as_slice() else { panic!("{consumers}") };
    assert_eq!((*queue, rest), ("q", &["tag", "true", "7", "true", "[]"][..]));
    let channels = done(&broker, "list_channels -s pid prefetch_count").await;
    assert!(channels.contains(&format!("{channel}\t")), "{channels} has no {channel}");

    let pids = done(&broker, "list_connections -s pid").await;
    let first = pids.lines().next().unwrap_or_default().to_owned();
    assert_eq!(
        done(&broker, &format!("close_connection {first} maintenance")).await,
        format!("Closing connection {first}, reason: maintenance...\n")
    );
    amqp.expect_close(320, "CONNECTION_FORCED - maintenance", (0, 0)).await;
    assert_eq!(
        done(&broker, "-q close_all_user_connections guest bye").await,
        "Closed 2 connections\n",
        "the one that has not answered yet counts"
    );
    drop(amqp);
    drop(stomp);
    eventually("all connections are gone", async || {
        done(&broker, "list_connections -s").await.is_empty()
    })
    .await;
    let (code, err) = refused(&broker, "close_connection <warren@x.1.0> bye").await;
    assert_eq!(code, 69);
    assert!(err.contains("list_connections"), "{err}");
}

#[tokio::test]
async fn queues_are_purged_and_deleted_under_their_conditions() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "orders").await;
    peer.publish(1, "", "orders", "1").await;
    assert_eq!(peer.counts(1, "orders").await.0, 1);
    let (code, err) = refused(&broker, "delete_queue --if-empty orders").await;
    assert_eq!(code, 64);
    assert!(err.contains("not empty") && err.contains("purge_queue"), "{err}");
    assert_eq!(
        done(&broker, "purge_queue orders").await,
        "Purging queue 'orders' in vhost '/' ...\n"
    );
    assert_eq!(peer.counts(1, "orders").await.0, 0);
    peer.consume(1, "orders", "tag").await;
    let (code, err) = refused(&broker, "delete_queue --if-unused orders").await;
    assert_eq!(code, 64);
    assert!(err.contains("in use"), "{err}");
    assert_eq!(
        done(&broker, "delete_queue orders").await,
        "Deleting queue 'orders' on vhost '/' ...\n\
         Queue was successfully deleted with 0 ready messages\n"
    );
    let cancelled: basic::Cancel = peer.expect(1).await;
    assert_eq!(cancelled.consumer_tag.as_str(), "tag", "its consumer is told");
    peer.declare(1, "invoices").await;
    let (code, err) = refused(&broker, "purge_queue invoice").await;
    assert_eq!(code, 69);
    assert!(err.contains("did you mean 'invoices'?"), "{err}");
}

#[tokio::test]
async fn users_and_permissions_take_effect_at_once() {
    let broker = TestBroker::start().await;
    let added = done(&broker, "add_user alice secret").await;
    assert!(added.starts_with("Adding user \"alice\" ...\nDone. "), "{added}");
    assert_eq!(refused(&broker, "add_user alice other").await.0, 70);
    done(&broker, "set_user_tags alice management monitoring").await;
    assert_eq!(
        done(&broker, "list_users -s").await,
        "alice\t[management, monitoring]\nguest\t[administrator]\n"
    );
    assert_eq!(
        done(&broker, "authenticate_user alice secret").await,
        "Authenticating user \"alice\" ...\nSuccess\n"
    );
    done(&broker, "change_password alice changed").await;
    let (code, err) = refused(&broker, "authenticate_user alice secret").await;
    assert_eq!((code, err.contains("secret")), (65, false), "{err}");
    done(&broker, "set_permissions alice ^a '' .*").await;
    assert_eq!(done(&broker, "list_permissions -s").await, "alice\t^a\t\t.*\nguest\t.*\t.*\t.*\n");
    assert_eq!(done(&broker, "list_user_permissions alice -s").await, "/\t^a\t\t.*\n");
    let (code, err) = refused(&broker, "set_permissions alice ( .* .*").await;
    assert_eq!(code, 65);
    assert!(err.contains("'(' is not a regular expression: unclosed group"), "{err}");
    done(&broker, "clear_permissions alice").await;
    assert_eq!(done(&broker, "list_user_permissions alice -s").await, "");
    done(&broker, "delete_user alice").await;
    for line in ["delete_user alice", "set_user_tags alice", "set_permissions alice a b c"] {
        assert_eq!(refused(&broker, line).await.0, 67, "{line}");
    }
}

/// A client of each protocol that consumes in a virtual host, as a user whose password is its name.
async fn consumers(broker: &TestBroker, user: &str, vhost: &str) -> (Peer, stomp::Peer) {
    let options = Options { vhost: vhost.to_owned(), ..Options::user(user) };
    let mut amqp = broker.amqp_as(&options).await;
    amqp.declare(1, "q").await;
    amqp.consume(1, "q", "tag").await;
    let mut stomp = stomp::Peer::connect(broker.stomp_address()).await;
    let connect = OwnedFrame::new(Command::Connect)
        .header("accept-version", "1.2")
        .header("host", vhost)
        .header("login", user)
        .header("passcode", user);
    stomp.send(&connect).await;
    stomp.expect(Command::Connected).await;
    stomp.set_version(Version::V1_2);
    let subscribe = OwnedFrame::new(Command::Subscribe)
        .header("id", "0")
        .header("destination", "/amq/queue/q")
        .header("receipt", "0");
    stomp.send(&subscribe).await;
    stomp.expect_receipt("0").await;
    (amqp, stomp)
}

async fn are_closed((mut amqp, mut stomp): (Peer, stomp::Peer), reason: &str) {
    let reason = format!("CONNECTION_FORCED - {reason}");
    amqp.expect_connection_error(320, &reason, (0, 0)).await;
    let error = stomp.expect_error("connection_forced").await;
    assert_eq!(String::from_utf8_lossy(&error.body), reason);
}

#[tokio::test]
async fn who_may_no_longer_be_there_does_not_go_on_consuming() {
    let broker = TestBroker::start().await;
    done(&broker, "add_vhost staging").await;
    for user in ["alice", "bob"] {
        done(&broker, &format!("add_user {user} {user}")).await;
        for vhost in ["/", "staging"] {
            done(&broker, &format!("set_permissions -p {vhost} {user} .* .* .*")).await;
        }
    }
    let bob = consumers(&broker, "bob", "/").await;
    let there = consumers(&broker, "alice", "staging").await;
    let here = consumers(&broker, "alice", "/").await;

    done(&broker, "clear_permissions alice").await;
    are_closed(here, "permissions of user 'alice' in vhost '/' are cleared").await;
    done(&broker, "delete_user alice").await;
    are_closed(there, "user 'alice' is deleted").await;

    let (amqp, mut stomp) = consumers(&broker, "bob", "staging").await;
    done(&broker, "delete_vhost staging").await;
    // Over STOMP an ERROR says first that the queue is gone.
    let cancelled = stomp.expect(Command::Error).await;
    assert_eq!(cancelled.get("message"), Some(&b"Server cancelled subscription"[..]));
    are_closed((amqp, stomp), "vhost 'staging' is deleted").await;

    let (mut amqp, mut stomp) = bob;
    amqp.expect_nothing(1).await;
    stomp.expect_silence().await;
}

#[tokio::test]
async fn virtual_hosts_come_and_go() {
    let broker = TestBroker::start().await;
    done(&broker, "add_vhost staging").await;
    done(&broker, "add_vhost staging").await;
    assert_eq!(done(&broker, "list_vhosts").await, "Listing vhosts ...\nname\n/\nstaging\n");
    assert_eq!(done(&broker, "list_queues -s -p staging").await, "");
    let (code, err) = refused(&broker, "list_queues -p stagin").await;
    assert_eq!(code, 65);
    assert!(err.contains("did you mean 'staging'?"), "{err}");
    for line in ["set_permissions -p nowhere guest a b c", "clear_permissions -p nowhere guest"] {
        assert_eq!(refused(&broker, line).await.0, 65, "{line}");
    }
    assert_eq!(done(&broker, "list_queues -q --offline").await, "name\tmessages\n");
    assert_eq!(done(&broker, "list_vhosts -s -t 0").await, "/\nstaging\n");
    done(&broker, "delete_vhost --dry-run staging").await;
    done(&broker, "delete_vhost staging").await;
    assert_eq!(refused(&broker, "delete_vhost staging").await.0, 65);
}

#[tokio::test]
async fn the_broker_tells_how_it_is_without_telling_passwords() {
    let broker = TestBroker::set(&["auth.default_password=hunter2"]).await;
    let address = broker.amqp_address();
    let status = done(&broker, "status").await;
    for line in [
        format!("OS PID: {}\n", std::process::id()),
        "Alarms\n\n(none)\n".to_owned(),
        format!("Interface: 127.0.0.1, port: {}, protocol: amqp, ", address.port()),
    ] {
        assert!(status.contains(&line), "{status} has no {line}");
    }
    assert!(done(&broker, "listeners").await.contains("protocol: stomp, "));
    let environment = done(&broker, "environment").await;
    assert!(environment.contains("auth.default_password = \"********\"\n"), "{environment}");
    for format in ["table", "json"] {
        for command in ["environment", "status"] {
            let said = done(&broker, &format!("{command} --formatter {format}")).await;
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    assert!(done(&broker, "check_running").await.ends_with("is fully booted and running\n"));
    assert!(done(&broker, "check_local_alarms").await.ends_with("reported no local alarms\n"));
    assert_eq!(done(&broker, "ping --formatter json").await, "{\"message\":\"Ping succeeded\"}\n");
    assert_eq!(done(&broker, "await_startup").await, "");
}

/// How `warren health` ends, asked about the broker whose data are there.
async fn health_of(data_dir: &std::path::Path) -> ExitCode {
    let settings =
        SettingsArgs { data_dir: Some(data_dir.display().to_string()), ..SettingsArgs::default() };
    let args = HealthArgs { timeout: Duration::from_secs(10), settings };
    match tokio::task::spawn_blocking(move || health(&args)).await {
        Ok(code) => code,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_broker_is_healthy_while_it_answers() {
    let broker = TestBroker::start().await;
    assert_eq!(health_of(broker.data_dir()).await, ExitCode::SUCCESS);
    let elsewhere = broker.data_dir().join("elsewhere");
    assert_eq!(health_of(&elsewhere).await, exit::UNAVAILABLE.into());
}

#[tokio::test]
async fn an_alarm_is_a_failed_check() {
    // More than any disk has.
    let broker = TestBroker::set(&["limits.disk_free=1000000TiB"]).await;
    eventually("the disk alarm is on", async || {
        ctl(&broker, "check_local_alarms").await.code == 69
    })
    .await;
    let (_, err) = refused(&broker, "check_local_alarms").await;
    assert!(err.contains("disk") && err.contains("publishers are held"), "{err}");
    assert_eq!(health_of(broker.data_dir()).await, exit::UNAVAILABLE.into());
}

#[tokio::test]
async fn stop_stops_the_broker() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    assert!(done(&broker, "stop").await.starts_with("Stopping and halting node warren@"));
    broker.running().asked_to_stop().await;
    let stopped = broker.shutdown();
    let told = peer.expect_close(
        320,
        "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
        (0, 0),
    );
    tokio::join!(stopped, told);
}

#[tokio::test]
async fn the_log_of_a_program_with_a_broker_inside_is_its_own() {
    let broker = TestBroker::start().await;
    let (code, err) = refused(&broker, "set_log_level debug").await;
    assert_eq!(code, 69);
    assert!(err.contains("a log of its own"), "{err}");
    let (code, err) = refused(&broker, "set_log_level info,loud").await;
    assert_eq!(code, 64);
    assert!(err.contains("\"loud\" is not a log level"), "{err}");
    // rabbitmqctl's words are understood: they get as far as ours.
    for level in ["none", "critical", "warning"] {
        assert_eq!(refused(&broker, &format!("set_log_level {level}")).await.0, 69, "{level}");
    }
}

#[tokio::test]
async fn a_second_broker_does_not_take_the_socket_of_the_first() {
    let broker = TestBroker::start().await;
    let socket = broker.data_dir().join("warren.sock");
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let mut settings = warren_server::settings::Settings {
        data_dir: directory.path().into(),
        ..warren_server::settings::Settings::default()
    };
    settings.amqp.listen = warren_tests::loopback();
    settings.stomp.listen = warren_tests::loopback();
    settings.metrics.listen = warren_server::settings::Addresses::default();
    settings.control.socket = Some(socket);
    let error = match warren_server::start(settings).await {
        Ok(_) => panic!("two brokers behind one socket"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("a running broker answers there"), "{error}");
    done(&broker, "ping").await;
}
