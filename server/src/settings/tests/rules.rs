//! Bounds, rules between keys, and warnings.

use super::super::rules::{all_bounds, warnings};
use super::*;

#[test]
fn rules_between_keys_hold() {
    for (written, says) in [
        (
            "limits.outbox_low = \"4MiB\"",
            "`limits.outbox_low` (4MiB) must be below `limits.outbox_high` (4MiB)",
        ),
        ("amqp.heartbeat = \"1500ms\"", "AMQP counts whole seconds"),
        ("amqp.heartbeat = \"1day\"", "it must be from 0s to 18h 12m 15s"),
        ("amqp.frame_max = 2048", "`amqp.frame_max` is 2KiB; it must be from 4KiB to 16MiB"),
        ("stomp.default_vhost = \"\"", "`stomp.default_vhost` is empty"),
        ("data_dir = \"\"", "`data_dir` is empty"),
        ("auth.mechanisms = []", "no AMQP client could log in"),
        ("auth.mechanisms = [\"PLAIN\", \"PLAIN\"]", "names PLAIN twice"),
        ("auth.default_password = \"\"", "`auth.default_password` is empty"),
        ("stomp.implicit_connect = true\nstomp.default_user = \"\"", "needs `stomp.default_user`"),
        ("store.scrub_rate = \"5GiB\"", "`store.scrub_rate` is 5GiB; it must be from 0B to 4GiB"),
        ("store.scrub_interval = \"1s\"", "it must be from 1m to 28days"),
        ("store.scrub_interval = 0", "it must be from 1m to 28days"),
        (
            "store.accept_data_loss = true\nstore.strict = true",
            "`store.accept_data_loss` is of no use with `store.strict`",
        ),
        ("tls.certificate = \"c\"", "`tls.certificate` is set without `tls.key`"),
        ("tls.key = \"k\"", "`tls.key` is set without `tls.certificate`"),
        ("stomp.tls.key = \"k\"", "`stomp.tls.key` is set without `stomp.tls.certificate`"),
        (
            "amqp.tls.listen = \"127.0.0.1:5671\"",
            "`amqp.tls.listen` has addresses but there is no certificate",
        ),
        (
            "stomp.listen = \"127.0.0.1:5672\"",
            "`amqp.listen` and `stomp.listen` both want 127.0.0.1:5672",
        ),
        ("amqp.listen = [\"[::1]:1\", \"[::1]:1\"]", "`amqp.listen` names [::1]:1 twice"),
        ("amqp.listen = []\nstomp.listen = []", "nothing listens"),
        ("amqp.listen = [\"0.0.0.0:1\", \"[::]:1\"]", "one covers the other"),
        (
            "stomp.listen = \"0.0.0.0:5672\"",
            "`amqp.listen` has 127.0.0.1:5672 and `stomp.listen` 0.0.0.0:5672",
        ),
    ] {
        let desk = Desk::new(written);
        let problems = desk.problems();
        assert!(problems.contains(says), "{written}: no {says:?} in:\n{problems}");
        assert!(problems.contains("DIR/warren.toml:1:"), "{written}:\n{problems}");
        assert_eq!(problems.matches("error:").count(), 1, "{problems}");
    }
    let long = format!("auth.default_user = \"{}\"", "x".repeat(256));
    Desk::new(&long).says(&["has a name of 256 octets; at most 255 fit"]);
    let deep = format!("data_dir = \"/{}\"", "x".repeat(100));
    Desk::new(&deep).says(&["at most 107", "set `control.socket` to a shorter path"]);
}

#[test]
fn port_zero_is_nobodys() {
    let settings =
        Desk::new("amqp.listen = \"127.0.0.1:0\"\nstomp.listen = \"127.0.0.1:0\"").settings();
    assert_eq!(settings.amqp.listen, settings.stomp.listen);
}

#[test]
fn the_defaults_keep_every_bound() {
    for bounds in all_bounds(&Settings::default()) {
        assert!(bounds.held, "{bounds:?}");
    }
}

#[test]
fn warnings_are_for_what_is_allowed_but_should_be_known() {
    assert_eq!(warnings(&Settings::default(), 1024), [""; 0]);
    let settings = Desk::new(
        "durability = \"os\"\namqp.listen = \"0.0.0.0:5672\"\nauth.loopback_only_users = []\n\
         limits.connections = 1024",
    )
    .settings();
    let warnings = warnings(&settings, 1024).join("\n");
    for says in ["not that the disk", "user guest", "without TLS", "LimitNOFILE"] {
        assert!(warnings.contains(says), "no {says:?} in:\n{warnings}");
    }
}
