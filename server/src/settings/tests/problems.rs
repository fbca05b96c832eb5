//! Every way to get a value wrong, with the words that come back.

use super::*;

#[test]
fn an_unknown_key_shows_its_line_and_the_nearest_key() {
    let desk = Desk::new("[amqp]\n\nheartbeet = \"10s\"\n");
    assert_eq!(
        desk.problems(),
        "error: unknown key `amqp.heartbeet`\n --> DIR/warren.toml:3:1\n  |\n3 | heartbeet = \"10s\"\n  \
         | ^^^^^^^^^\n  = help: did you mean `amqp.heartbeat`?"
    );
}

#[test]
fn all_problems_of_all_sources_are_reported_in_order() {
    let desk = Desk::new("ampq.listen = []\n[amqp]\nframe_max = \"128K\"\nchannel_max = 0\n")
        .file("conf.d/1.toml", "log.format = \"jsn\"")
        .variable("WARREN_AMQP__HEARTBEAT", "10")
        .variable("WARREN_AMQP_LISTEN", "[]")
        .set("stomp.trailing_lf=maybe")
        .set("nonsense");
    let problems = load(&desk.sources).expect_err("much is wrong");
    let places: Vec<String> = problems.iter().map(|problem| problem.place.to_string()).collect();
    let dir = desk.directory.path().display();
    assert_eq!(
        places,
        [
            format!("{dir}/conf.d/1.toml:1:14"),
            format!("{dir}/warren.toml:1:1"),
            format!("{dir}/warren.toml:3:13"),
            format!("{dir}/warren.toml:4:15"),
            "environment variable WARREN_AMQP_LISTEN".into(),
            "environment variable WARREN_AMQP__HEARTBEAT".into(),
            "--set".into(),
            "--set stomp.trailing_lf".into(),
        ],
        "{}",
        desk.problems()
    );
    desk.says(&[
        "unknown section `ampq`",
        "did you mean `amqp`?",
        "\"K\" is not a unit",
        "`amqp.channel_max` is 0; it must be from 1 to 65535",
        "`log.format` must be \"text\" or \"json\", not \"jsn\"",
        "did you mean \"json\"?",
        "did you mean WARREN_AMQP__LISTEN?",
        "10 has no unit: write \"10s\"",
        "`stomp.trailing_lf` must be true or false, not \"maybe\"",
        "--set wants KEY=VALUE",
    ]);
}

#[test]
fn a_value_of_the_wrong_type_says_what_it_must_be() {
    for (written, says) in [
        (
            "amqp.channel_max = \"many\"",
            "`amqp.channel_max` must be a whole number from 0 to 65535, not \"many\"",
        ),
        ("amqp.channel_max = 70000", "must be a whole number from 0 to 65535, not 70000"),
        ("amqp.channel_max = -1", "must be a whole number from 0 to 65535, not -1"),
        ("amqp.channel_max = 1.5", "not 1.5"),
        ("amqp.listen = 5672", "must be a list of addresses such as"),
        ("amqp.listen = {}", "not a table"),
        ("amqp.heartbeat = true", "must be a time span such as \"10s\" or \"500ms\", not true"),
        ("data_dir = 5", "`data_dir` must be a path in quotes, not 5"),
        ("tls.certificate = []", "`tls.certificate` must be a path in quotes, not a list"),
        ("stomp.default_vhost = 1", "`stomp.default_vhost` must be a string in quotes, not 1"),
        ("auth.loopback_only_users = \"guest\"", "must be a list in brackets, not \"guest\""),
        ("tls.min_version = 1.2", "must be a word in quotes"),
        ("tls.min_version = \"1.1\"", "must be \"1.2\" or \"1.3\", not \"1.1\""),
        ("durability = \"disk\"", "\"disk\" is not a durability: write \"fsync\" or \"os\""),
        ("durability = 5", "`durability` must be a string in quotes, not 5"),
        ("log.level = \"inof\"", "\"inof\" is not a log level"),
        ("amqp = 5", "`amqp` is a section, not an integer"),
        ("[[amqp]]", "`amqp` is a section, not an array"),
        ("limits.connections = 0", "out of range"),
        ("amqp.frame_max = 99999999999999999999", "99999999999999999999"),
        ("amqp.frame_max = 0x1_0000_0000_0000_0000", "a size such as"),
        ("amqp.frame_max = 1979-05-27", "\"1979-05-27\" is not a size"),
    ] {
        let problems = Desk::new(written).problems();
        assert!(problems.contains(says), "{written}: no {says:?} in:\n{problems}");
        assert!(problems.contains("warren.toml:1:"), "{written}:\n{problems}");
    }
}

#[test]
fn of_a_list_the_wrong_elements_are_pointed_at() {
    let desk =
        Desk::new("auth.mechanisms = [\"PLAIN\", \"PLAN\"]\namqp.listen = [\"5672\", \"[::1]:1\"]");
    desk.says(&[
        "warren.toml:1:29",
        "`auth.mechanisms` must be \"PLAIN\" or \"AMQPLAIN\", not \"PLAN\"",
        "warren.toml:2:16",
        "\"5672\" is not an address to listen on",
    ]);
    assert_eq!(desk.problems().matches("error:").count(), 2);
}

#[test]
fn broken_toml_names_every_broken_line_and_nothing_else() {
    let desk =
        Desk::new("[amqp]\nheartbeat = 10s\nheartbeet = 1\nlisten = [\n").set("log.format=xml");
    desk.says(&["this is not TOML", "warren.toml:2:", "--set log.format"]);
    assert!(!desk.problems().contains("heartbeet`"), "{}", desk.problems());
    Desk::new("data_dir = \"a\"\ndata_dir = \"b\"").says(&["this is not TOML: duplicate key"]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let mut desk = Desk::new("");
    desk.sources.config = Some(desk.path("other.toml"));
    desk.says(&["cannot read DIR/other.toml: No such file"]);
    let desk = Desk::new("");
    fs::write(desk.path("warren.toml"), b"data_dir = \"\xff\"").expect("a file");
    desk.says(&["cannot read DIR/warren.toml"]);
    let desk = Desk::new("").file("conf.d", "a file, not a directory");
    desk.says(&["cannot read DIR/conf.d"]);
}

#[test]
fn names_kept_for_later_are_refused_with_the_reason() {
    let desk = Desk::new("[management]\nlisten = [\"127.0.0.1:15672\"]\n")
        .variable("WARREN_WEB_STOMP__LISTEN", "[]");
    desk.says(&[
        "`management` cannot be set: the HTTP API",
        "`web_stomp.listen` cannot be set: STOMP over WebSocket comes with the HTTP API",
    ]);
}

#[test]
fn sections_are_not_values() {
    Desk::new("").set("amqp.tls=1").says(&["`amqp.tls` is a section; set its keys one by one"]);
    Desk::new("").set("amqp.listen=[1").says(&["`amqp.listen` is not a TOML value"]);
    Desk::new("").set("amqp.lisen=[]").says(&["did you mean --set amqp.listen=…?"]);
}

#[test]
fn no_problem_shows_a_password() {
    let desk = Desk::new("stomp.default_passcode = 4711\n[stomp.default_pass]\nx = \"4711\"\n")
        .file("conf.d/1.toml", "auth.default_password = \"4711\"\nstomp.default_passcod = \"4711\"")
        .file("conf.d/2.toml", "auth.default_password = \"4711")
        .variable("WARREN_AUTH__DEFAULT_PASSWORD", "")
        .variable("WARREN_AUTH__DEFAULT_PASSWRD", "4711")
        .set("auth.default_passwrd=4711");
    let problems = desk.problems();
    assert!(!problems.contains("4711"), "{problems}");
    assert_eq!(problems.matches("error:").count(), 7, "{problems}");
}

#[test]
fn durability_is_one_of_two_words() {
    for (word, durability) in [("fsync", Durability::Fsync), ("os", Durability::Os)] {
        let settings = Desk::new(&format!("durability = \"{word}\"")).settings();
        assert_eq!(settings.durability, durability);
        assert_eq!(settings.durability.word(), word);
    }
    assert_eq!(Settings::default().durability, Durability::Fsync);
}

#[test]
fn a_message_has_room_in_a_file_of_the_log() {
    Desk::new("amqp.max_message_size = \"64MiB\"").says(&[
        "`amqp.max_message_size` (64MiB) must be at least 256KiB below `store.log_file_size` (64MiB)",
    ]);
    Desk::new("amqp.max_message_size = \"512MiB\"\nstore.log_file_size = \"1GiB\"").settings();
}

#[test]
fn what_is_not_honoured_is_not_a_key() {
    Desk::new("limits.message_memory = \"40%\"").says(&["unknown key `limits.message_memory`"]);
}
