//! Layers, and every way to get the settings wrong, with the words that come back.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A directory with a `warren.toml`, and sources that see it only.
struct Desk {
    directory: TempDir,
    sources: Sources,
}

impl Desk {
    fn new(main: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("warren.toml");
        fs::write(&path, main).expect("a file");
        let sources = Sources {
            search: vec![path],
            ..Sources::default()
        };
        Self { directory, sources }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory above")).expect("directories");
        fs::write(path, text).expect("a file");
        self
    }
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.variables.push((name.into(), value.into()));
        self
    }
    fn set(mut self, text: &str) -> Self {
        self.sources.overrides.push(Override::Set(text.into()));
        self
    }
    #[track_caller]
    fn settings(&self) -> Settings {
        match load(&self.sources) {
            Ok(loaded) => loaded.settings,
            Err(problems) => panic!("{}", said(&problems, self.directory.path())),
        }
    }
    /// All problems as they print, with the directory as `DIR`.
    #[track_caller]
    fn problems(&self) -> String {
        let problems = load(&self.sources).expect_err("settings that are wrong");
        said(&problems, self.directory.path())
    }
    #[track_caller]
    fn says(&self, texts: &[&str]) {
        let problems = self.problems();
        for text in texts {
            assert!(problems.contains(text), "no {text:?} in:\n{problems}");
        }
    }
}

fn said(problems: &[Problem], directory: &Path) -> String {
    let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
    texts
        .join("\n")
        .replace(directory.to_str().expect("text"), "DIR")
}

// Layers.

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(
        load(&Sources::default())
            .expect("nothing is wrong")
            .settings,
        Settings::default()
    );
}

#[test]
fn each_layer_is_over_the_one_before() {
    let desk = Desk::new("[amqp]\nchannel_max = 1\nheartbeat = \"1s\"\nframe_max = 4096\n")
        .file(
            "conf.d/20-b.toml",
            "amqp.heartbeat = \"3s\"\namqp.handshake_timeout = \"3s\"",
        )
        .file(
            "conf.d/10-a.toml",
            "amqp.heartbeat = \"2s\"\namqp.max_message_size = \"2MiB\"",
        )
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
    assert_eq!(
        amqp.listen,
        Addresses::loopback(5672),
        "what is not set stays"
    );
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
    let desk = desk.variable(
        "WARREN_AUTH__DEFAULT_PASSWORD_FILE",
        path.to_str().expect("text"),
    );
    assert_eq!(desk.settings().auth.default_password.expose(), "hunter2");

    let twice = desk.variable("WARREN_AUTH__DEFAULT_PASSWORD", "other");
    twice.says(&[
        "`auth.default_password` is set twice",
        "WARREN_AUTH__DEFAULT_PASSWORD_FILE",
    ]);
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

// Problems.

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
    let places: Vec<String> = problems
        .iter()
        .map(|problem| problem.place.to_string())
        .collect();
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
        (
            "amqp.channel_max = 70000",
            "must be a whole number from 0 to 65535, not 70000",
        ),
        (
            "amqp.channel_max = -1",
            "must be a whole number from 0 to 65535, not -1",
        ),
        ("amqp.channel_max = 1.5", "not 1.5"),
        ("amqp.listen = 5672", "must be a list of addresses such as"),
        ("amqp.listen = {}", "not a table"),
        (
            "amqp.heartbeat = true",
            "must be a time span such as \"10s\" or \"500ms\", not true",
        ),
        ("data_dir = 5", "`data_dir` must be a path in quotes, not 5"),
        (
            "tls.certificate = []",
            "`tls.certificate` must be a path in quotes, not a list",
        ),
        (
            "stomp.default_vhost = 1",
            "`stomp.default_vhost` must be a string in quotes, not 1",
        ),
        (
            "auth.loopback_only_users = \"guest\"",
            "must be a list in brackets, not \"guest\"",
        ),
        ("tls.min_version = 1.2", "must be a word in quotes"),
        (
            "tls.min_version = \"1.1\"",
            "must be \"1.2\" or \"1.3\", not \"1.1\"",
        ),
        ("durability = \"sync\"", "did you mean \"fsync\"?"),
        ("log.level = \"inof\"", "\"inof\" is not a log level"),
        ("amqp = 5", "`amqp` is a section, not an integer"),
        ("[[amqp]]", "`amqp` is a section, not an array"),
        ("limits.connections = 0", "out of range"),
        (
            "amqp.frame_max = 99999999999999999999",
            "99999999999999999999",
        ),
        ("amqp.frame_max = 0x1_0000_0000_0000_0000", "a size such as"),
        (
            "amqp.frame_max = 1979-05-27",
            "\"1979-05-27\" is not a size",
        ),
    ] {
        let problems = Desk::new(written).problems();
        assert!(
            problems.contains(says),
            "{written}: no {says:?} in:\n{problems}"
        );
        assert!(
            problems.contains("warren.toml:1:"),
            "{written}:\n{problems}"
        );
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
    assert!(
        !desk.problems().contains("heartbeet`"),
        "{}",
        desk.problems()
    );
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
    Desk::new("")
        .set("amqp.tls=1")
        .says(&["`amqp.tls` is a section; set its keys one by one"]);
    Desk::new("")
        .set("amqp.listen=[1")
        .says(&["`amqp.listen` is not a TOML value"]);
    Desk::new("")
        .set("amqp.lisen=[]")
        .says(&["did you mean --set amqp.listen=…?"]);
}

#[test]
fn no_problem_shows_a_password() {
    let desk = Desk::new("stomp.default_passcode = 4711\n[stomp.default_pass]\nx = \"4711\"\n")
        .file(
            "conf.d/1.toml",
            "auth.default_password = \"4711\"\nstomp.default_passcod = \"4711\"",
        )
        .file("conf.d/2.toml", "auth.default_password = \"4711")
        .variable("WARREN_AUTH__DEFAULT_PASSWORD", "")
        .variable("WARREN_AUTH__DEFAULT_PASSWRD", "4711")
        .set("auth.default_passwrd=4711");
    let problems = desk.problems();
    assert!(!problems.contains("4711"), "{problems}");
    assert_eq!(problems.matches("error:").count(), 7, "{problems}");
}

// Rules.

#[test]
fn rules_between_keys_hold() {
    for (written, says) in [
        (
            "limits.outbox_low = \"4MiB\"",
            "`limits.outbox_low` (4MiB) must be below `limits.outbox_high` (4MiB)",
        ),
        (
            "limits.message_memory = \"70%\"",
            "must not be above `limits.memory` (60%)",
        ),
        (
            "limits.message_memory = \"2GiB\"\nlimits.memory = \"1GiB\"",
            "must not be above",
        ),
        ("amqp.heartbeat = \"1500ms\"", "AMQP counts whole seconds"),
        (
            "amqp.heartbeat = \"1day\"",
            "it must be from 0s to 18h 12m 15s",
        ),
        (
            "amqp.frame_max = 2048",
            "`amqp.frame_max` is 2KiB; it must be from 4KiB to 16MiB",
        ),
        (
            "stomp.default_vhost = \"\"",
            "`stomp.default_vhost` is empty",
        ),
        ("data_dir = \"\"", "`data_dir` is empty"),
        ("auth.mechanisms = []", "no AMQP client could log in"),
        (
            "auth.mechanisms = [\"PLAIN\", \"PLAIN\"]",
            "names PLAIN twice",
        ),
        (
            "auth.default_password = \"\"",
            "`auth.default_password` is empty",
        ),
        (
            "stomp.implicit_connect = true\nstomp.default_user = \"\"",
            "needs `stomp.default_user`",
        ),
        (
            "tls.certificate = \"c\"",
            "`tls.certificate` is set without `tls.key`",
        ),
        (
            "tls.key = \"k\"",
            "`tls.key` is set without `tls.certificate`",
        ),
        (
            "stomp.tls.key = \"k\"",
            "`stomp.tls.key` is set without `stomp.tls.certificate`",
        ),
        (
            "amqp.tls.listen = \"127.0.0.1:5671\"",
            "`amqp.tls.listen` has addresses but there is no certificate",
        ),
        (
            "stomp.listen = \"127.0.0.1:5672\"",
            "`amqp.listen` and `stomp.listen` both want 127.0.0.1:5672",
        ),
        (
            "amqp.listen = [\"[::1]:1\", \"[::1]:1\"]",
            "`amqp.listen` names [::1]:1 twice",
        ),
        ("amqp.listen = []\nstomp.listen = []", "nothing listens"),
        (
            "amqp.listen = [\"0.0.0.0:1\", \"[::]:1\"]",
            "one covers the other",
        ),
        (
            "stomp.listen = \"0.0.0.0:5672\"",
            "`amqp.listen` has 127.0.0.1:5672 and `stomp.listen` 0.0.0.0:5672",
        ),
    ] {
        let desk = Desk::new(written);
        let problems = desk.problems();
        assert!(
            problems.contains(says),
            "{written}: no {says:?} in:\n{problems}"
        );
        assert!(
            problems.contains("DIR/warren.toml:1:"),
            "{written}:\n{problems}"
        );
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
    for bounds in rules::all_bounds(&Settings::default()) {
        assert!(bounds.held, "{bounds:?}");
    }
}

#[test]
fn warnings_are_for_what_is_allowed_but_should_be_known() {
    assert_eq!(
        rules::warnings(&Settings::default(), 1024),
        Vec::<String>::new()
    );
    let settings = Desk::new(
        "durability = \"os\"\namqp.listen = \"0.0.0.0:5672\"\nauth.loopback_only_users = []\n\
         limits.connections = 1024",
    )
    .settings();
    let warnings = rules::warnings(&settings, 1024).join("\n");
    for says in ["power failure", "user guest", "without TLS", "LimitNOFILE"] {
        assert!(warnings.contains(says), "no {says:?} in:\n{warnings}");
    }
}

// What the rest of the server asks.

#[test]
fn a_listener_s_own_certificate_goes_before_the_common_one() {
    let settings = Desk::new(
        "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\nmin_version = \"1.3\"\n\
         [stomp.tls]\nlisten = \"127.0.0.1:61614\"\ncertificate = \"sc\"\nkey = \"sk\"\n",
    )
    .settings();
    let amqp = settings.amqp_tls().expect("the common files");
    assert_eq!((amqp.certificate, amqp.key), ("c".into(), "k".into()));
    let stomp = settings.stomp_tls().expect("its own files");
    assert_eq!((stomp.certificate, stomp.key), ("sc".into(), "sk".into()));
    assert_eq!(
        stomp.client_ca,
        Some("ca".into()),
        "what it has not comes from the common ones"
    );
    assert_eq!(stomp.min_version, TlsVersion::V1_3);
    assert_eq!(Settings::default().amqp_tls(), None);
}

#[test]
fn the_control_socket_is_in_the_data_directory_unless_named() {
    let default = Desk::new("data_dir = \"/srv/w\"").settings();
    assert_eq!(default.control_socket(), Path::new("/srv/w/warren.sock"));
    let named = Desk::new("control.socket = \"/run/w.sock\"").settings();
    assert_eq!(named.control_socket(), Path::new("/run/w.sock"));
}

#[test]
fn an_empty_default_user_is_no_login() {
    assert!(Stomp::default().default_login().is_some());
    let none = Desk::new("stomp.default_user = \"\"").settings();
    assert!(none.stomp.default_login().is_none());
}

#[test]
fn effective_settings_read_back_and_name_their_origins() {
    let desk = Desk::new("amqp.heartbeat = \"5s\"\nauth.default_password = \"hunter2\"")
        .variable("WARREN_LOG__FORMAT", "json")
        .set("limits.memory=50%");
    let loaded = load(&desk.sources).expect("nothing is wrong");
    let text = loaded.effective();
    for line in [
        "heartbeat = \"5s\"  # DIR/warren.toml:1:18",
        "format = \"json\"  # environment variable WARREN_LOG__FORMAT",
        "memory = \"50%\"  # --set limits.memory",
        "default_password = \"********\"",
        "# certificate is not set",
        "frame_max = \"128KiB\"\n",
    ] {
        let line = line.replace("DIR", desk.directory.path().to_str().expect("text"));
        assert!(text.contains(&line), "no {line:?} in:\n{text}");
    }
    let mut again: Settings = toml::from_str(&text).expect("it reads back");
    again.auth.default_password = loaded.settings.auth.default_password.clone();
    again.stomp.default_passcode = loaded.settings.stomp.default_passcode.clone();
    assert_eq!(again, loaded.settings);
}

// The machine.

#[test]
fn the_machine_is_asked_about_files_and_directories() {
    let desk = Desk::new("tls.certificate = \"/nowhere/c.pem\"\ntls.key = \"/nowhere/k.pem\"\n");
    fs::write(desk.path("occupied"), "").expect("a file");
    let data_dir = desk.path("occupied").display().to_string();
    let desk = desk
        .set(&format!("data_dir={data_dir}"))
        .set("limits.memory=1KiB");
    let loaded = load(&desk.sources).expect("nothing is wrong with the settings themselves");
    let problems = said(&machine::check(&loaded), desk.directory.path());
    for says in [
        "TLS certificate /nowhere/c.pem: cannot be read",
        "DIR/warren.toml:1:19",
        "DIR/occupied is not a directory",
        "--set data_dir",
        "`limits.message_memory` (40%) must not be above `limits.memory` (1KiB)",
    ] {
        assert!(problems.contains(says), "no {says:?} in:\n{problems}");
    }
    assert_eq!(
        problems.matches("TLS").count(),
        1,
        "the common files are tried once:\n{problems}"
    );
    assert!(check_all(&desk.sources).is_err());
}

#[test]
fn good_settings_pass_all_checks_and_make_nothing() {
    let desk = Desk::new("");
    let data_dir = desk.path("not/yet/there");
    let desk = desk.set(&format!("data_dir={}", data_dir.display()));
    let settings = check_all(&desk.sources).expect("all is well");
    assert_eq!(settings.data_dir, data_dir);
    assert!(!desk.path("not").exists());
}

#[test]
fn sources_do_not_print_what_may_be_a_password() {
    let desk = Desk::new("")
        .variable("WARREN_AUTH__DEFAULT_PASSWORD", "hunter2")
        .set("auth.default_password=hunter2");
    let text = format!(
        "{:?} {:?}",
        desk.sources,
        load(&desk.sources).expect("good settings")
    );
    assert!(
        text.contains("WARREN_AUTH__DEFAULT_PASSWORD") && !text.contains("hunter2"),
        "{text}"
    );
}
