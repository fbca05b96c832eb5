//! A desk with settings files on it, and what the rest of the server asks; the parts of the matter are in the
//! modules.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

mod layers;
mod problems;
mod rules;

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
        let sources = Sources { search: vec![path], ..Sources::default() };
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
    texts.join("\n").replace(directory.to_str().expect("text"), "DIR")
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
    assert_eq!(stomp.client_ca, Some("ca".into()), "what it has not comes from the common ones");
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
    let desk = desk.set(&format!("data_dir={data_dir}"));
    let loaded = load(&desk.sources).expect("nothing is wrong with the settings themselves");
    let problems = said(&machine::check(&loaded), desk.directory.path());
    for says in [
        "TLS certificate /nowhere/c.pem: cannot be read",
        "DIR/warren.toml:1:19",
        "TLS key /nowhere/k.pem: cannot be read",
        "DIR/warren.toml:2:11",
        "DIR/occupied is not a directory",
        "--set data_dir",
    ] {
        assert!(problems.contains(says), "no {says:?} in:\n{problems}");
    }
    assert_eq!(problems.matches("TLS").count(), 2, "the common files are tried once:\n{problems}");
    assert!(check_all(&desk.sources).is_err());
}

#[test]
fn the_machine_is_asked_though_settings_are_wrong() {
    let desk = Desk::new(
        "amqp.channel_max = 0\ntls.certificate = \"/nowhere/c.pem\"\ntls.key = \"/nowhere/k.pem\"\n",
    );
    fs::write(desk.path("occupied"), "").expect("a file");
    let data_dir = desk.path("occupied").display().to_string();
    let desk = desk.set(&format!("data_dir={data_dir}")).set("stomp.trailing_lf=maybe");
    let problems = check_all(&desk.sources).expect_err("much is wrong");
    let places: Vec<String> = problems.iter().map(|problem| problem.place.to_string()).collect();
    let file = desk.path("warren.toml").display().to_string();
    assert_eq!(
        places,
        [
            format!("{file}:1:20"),
            format!("{file}:2:19"),
            format!("{file}:3:11"),
            "--set stomp.trailing_lf".into(),
            "--set data_dir".into(),
        ],
        "{}",
        said(&problems, desk.directory.path())
    );
}

#[test]
fn the_machine_is_not_asked_about_what_could_not_be_read() {
    // The default of data_dir is nobody's wish here, and the certificate is complained about already.
    let desk = Desk::new("data_dir = 5\n[tls]\ncertificate = \"/nowhere/c.pem\"\n");
    let problems = check_all(&desk.sources).expect_err("two are wrong");
    let keys: Vec<_> = problems.iter().filter_map(|problem| problem.key.as_deref()).collect();
    assert_eq!(keys, ["data_dir", "tls.certificate"]);
}

#[test]
fn good_settings_pass_all_checks_and_make_nothing() {
    let desk = Desk::new("");
    let data_dir = desk.path("not/yet/there");
    let desk = desk.set(&format!("data_dir={}", data_dir.display()));
    let settings = check_all(&desk.sources).expect("all is well").settings;
    assert_eq!(settings.data_dir, data_dir);
    assert!(!desk.path("not").exists());
}

#[test]
fn sources_do_not_print_what_may_be_a_password() {
    let desk = Desk::new("")
        .variable("WARREN_AUTH__DEFAULT_PASSWORD", "hunter2")
        .set("auth.default_password=hunter2");
    let text = format!("{:?} {:?}", desk.sources, load(&desk.sources).expect("good settings"));
    assert!(text.contains("WARREN_AUTH__DEFAULT_PASSWORD") && !text.contains("hunter2"), "{text}");
}
