//! Which source wins, and how a value is written in each.

use super::*;

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(load(&Sources::default()).expect("nothing is wrong").settings, Settings::default());
}

#[test]
fn each_layer_is_over_the_one_before() {
    let desk = Desk::new("[amqp]\nchannel_max = 1\nheartbeat = \"1s\"\nframe_max = 4096\n")
        .file("conf.d/20-b.toml", "amqp.heartbeat = \"3s\"\namqp.handshake_timeout = \"3s\"")
        .file("conf.d/10-a.toml", "amqp.heartbeat = \"2s\"\namqp.max_message_size = \"2MiB\"")
        .file("conf.d/.hidden.toml", "nonsense")
        .file("conf.d/notes.txt", "nonsense")
        .variable("WARREN_AMQP__HANDSHAKE_TIMEOUT", "4s")
        .variable("WARREN_AMQP__MAX_CONSUMERS_PER_CHANNEL", "4")
        .set("amqp.max_consumers_per_channel=5")
        .set("amqp.max_consumers_per_channel=6");
    let amqp = desk.settings().amqp;
    assert_eq!(amqp.channel_max, 1);
    assert_eq!(amqp.frame_max, Size::kib(4));
    assert_eq!(amqp.max_message_size, Size::mib(2));
    assert_eq!(amqp.heartbeat, TimeSpan::seconds(3));
    assert_eq!(amqp.handshake_timeout, TimeSpan::seconds(4));
    assert_eq!(amqp.max_consumers_per_channel, 6);
    assert_eq!(amqp.listen, Addresses::loopback(5672), "what is not set stays");
}

#[test]
fn a_named_file_goes_before_those_that_are_looked_for() {
    let mut desk = Desk::new("data_dir = \"found\"").file("own/own.toml", "data_dir = \"named\"");
    desk.sources.config = Some(desk.path("own/own.toml"));
    assert_eq!(desk.settings().data_dir, Path::new("named"));
}

#[test]
fn further_files_count_without_a_main_file_where_warren_is_installed() {
    let desk = Desk::new("").file("conf.d/10.toml", "data_dir = \"further\"");
    fs::remove_file(desk.path("warren.toml")).expect("removed");
    assert_eq!(desk.settings().data_dir, Path::new("further"));
}

#[test]
fn variables_and_flags_are_toml_or_the_bare_text() {
    let settings = Desk::new("")
        .variable("WARREN_DATA_DIR", "/srv/warren")
        .variable("WARREN_AMQP__LISTEN", "[\"127.0.0.1:1\", \"[::1]:1\"]")
        .variable("WARREN_STOMP__LISTEN", "127.0.0.1:2")
        .variable("WARREN_STOMP__TRAILING_LF", "false")
        .variable("WARREN_STOMP__DEFAULT_PASSCODE", "007")
        .variable("WARREN_AUTH__DEFAULT_PASSWORD", "12345")
        .variable("WARREN_AUTH__LOOPBACK_ONLY_USERS", "[]")
        .set("log.format=json")
        .set("log.level = \"debug\"")
        .set("limits.memory=2GiB")
        .set("tls.min_version=1.3")
        .settings();
    assert_eq!(settings.data_dir, Path::new("/srv/warren"));
    assert_eq!(settings.amqp.listen, Addresses::loopback(1));
    assert_eq!(settings.stomp.listen.as_slice().len(), 1);
    assert!(!settings.stomp.trailing_lf);
    assert_eq!(settings.stomp.default_passcode.expose(), "007");
    assert_eq!(settings.auth.default_password.expose(), "12345");
    assert!(settings.auth.loopback_only_users.is_empty());
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.limits.memory, Memory::Octets(Size::gib(2)));
    assert_eq!(settings.tls.min_version, TlsVersion::V1_3);
}

#[test]
fn passwords_come_from_files_too() {
    let desk = Desk::new("").file("password", "hunter2\n");
    let path = desk.path("password");
    let desk = desk.variable("WARREN_AUTH__DEFAULT_PASSWORD_FILE", path.to_str().expect("text"));
    assert_eq!(desk.settings().auth.default_password.expose(), "hunter2");

    let twice = desk.variable("WARREN_AUTH__DEFAULT_PASSWORD", "other");
    twice.says(&["`auth.default_password` is set twice", "WARREN_AUTH__DEFAULT_PASSWORD_FILE"]);
    let missing = Desk::new("").variable("WARREN_AUTH__DEFAULT_PASSWORD_FILE", "/nowhere/at/all");
    missing.says(&["cannot read /nowhere/at/all"]);
    let not_secret = Desk::new("").variable("WARREN_LOG__LEVEL_FILE", "/etc/hostname");
    not_secret.says(&["unknown key `log.level_file`"]);
}

#[test]
fn variables_of_container_platforms_are_left_alone() {
    let desk = Desk::new("")
        .variable("WARREN_SERVICE_HOST", "10.0.0.1")
        .variable("WARREN_PORT_5672_TCP", "tcp://10.0.0.1:5672")
        .variable("WARREN_CONFIG", "/etc/warren/warren.toml")
        .variable("OTHER_VARIABLE", "x");
    assert_eq!(desk.settings(), Settings::default());
}

#[test]
fn a_named_flag_is_taken_as_it_is() {
    let mut desk = Desk::new("");
    desk.sources.overrides = vec![Override::Named("--data-dir", "data_dir", "[odd] 5".into())];
    assert_eq!(desk.settings().data_dir, Path::new("[odd] 5"));
}
