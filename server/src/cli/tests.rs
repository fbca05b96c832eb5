//! What the arguments mean, what is refused, and that help is help.

use std::path::Path;

use super::*;

fn parsed(line: &str) -> Command {
    let arguments = line.split_whitespace().map(OsString::from);
    try_parse(arguments).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(line: &str) -> String {
    let arguments = line.split_whitespace().map(OsString::from);
    match try_parse(arguments) {
        Ok(command) => panic!("{line} was taken as {command:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}

/// Paragraphs of help are wrapped for the terminal: one that is wrapped in the text too leaves lines of a word.
#[test]
fn paragraphs_of_help_are_wrapped_once() {
    fn check(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let is_prose =
            |line: &str| !(line.is_empty() || line.starts_with(' ') || line.ends_with(':'));
        let lines: Vec<&str> = help.lines().collect();
        for two in lines.windows(2) {
            let is_wrapped = two.iter().all(|line| is_prose(line));
            assert!(!is_wrapped, "{}: {two:#?}", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&definition());
    check(&ctl::definition());
}

#[test]
fn without_a_command_the_broker_starts() {
    let expected = SettingsArgs {
        config: Some("w.toml".into()),
        set: vec!["a=1".into(), "b=2".into()],
        data_dir: Some("d".into()),
    };
    for line in [
        "warren --config w.toml --set a=1 --set b=2 --data-dir d",
        "warren server --config w.toml --set a=1 --set b=2 --data-dir d",
    ] {
        let Command::Server(args) = parsed(line) else { panic!("{line}") };
        assert_eq!(args, ServerArgs { settings: expected.clone(), ..ServerArgs::default() });
    }
    let Command::Server(args) = parsed("warren") else { panic!("no command") };
    assert_eq!(args, ServerArgs::default());
}

#[test]
fn what_becomes_of_a_damaged_store_has_flags_of_its_own() {
    let on = |line: &str| {
        let Command::Server(args) = parsed(line) else { panic!("{line}") };
        let loaded = load(&Sources { overrides: args.sources().overrides, ..Sources::default() });
        let store = loaded.unwrap_or_else(|problems| panic!("{problems:?}")).settings.store;
        (store.strict, store.accept_data_loss)
    };
    assert_eq!(on("warren server"), (false, false));
    assert_eq!(on("warren --strict"), (true, false));
    assert_eq!(on("warren server --strict --set store.strict=false"), (true, false));
    assert_eq!(on("warren server --accept-data-loss"), (false, true));
    assert!(refused("warren check-config --strict").contains("unexpected argument"));
    let Command::Server(both) = parsed("warren --strict --accept-data-loss") else {
        panic!("no command")
    };
    let overrides = both.sources().overrides;
    let problems = load(&Sources { overrides, ..Sources::default() }).expect_err("at odds");
    let said = problems.iter().map(Problem::to_string).collect::<String>();
    assert!(said.contains("--accept-data-loss"), "{said}");
}

#[test]
fn options_before_a_command_are_refused_not_ignored() {
    assert!(refused("warren --config w.toml ctl status").contains("cannot be used with"));
}

#[test]
fn check_config_takes_a_file_either_way_but_once() {
    let Command::CheckConfig(args) = parsed("warren check-config w.toml --print-effective") else {
        panic!("check-config");
    };
    assert_eq!(args.file.as_deref(), Some(Path::new("w.toml")));
    assert!(args.print_effective);
    assert!(refused("warren check-config w.toml --config v.toml").contains("cannot be used with"));
}

#[test]
fn ctl_reads_its_own_arguments() {
    let words = ["list_queues", "-p", "/", "--formatter", "json", "name"];
    let line = words.join(" ");
    for program in ["warren ctl", "rabbitmqctl", "/usr/sbin/rabbitmqctl"] {
        let Command::Ctl(args) = parsed(&format!("{program} {line}")) else { panic!("{program}") };
        assert_eq!(args.arguments, words, "{program}");
    }
    let Command::Ctl(args) = parsed("warren ctl --help") else { panic!("ctl") };
    assert_eq!(args.arguments, ["--help"]);
}

#[test]
fn bench_takes_a_benchmark_and_its_arguments() {
    use crate::bench::BenchCommand;
    let Command::Bench(args) = parsed("warren bench throughput --size 16") else { panic!("bench") };
    assert!(matches!(args.command, BenchCommand::Throughput(_)));
    assert!(refused("warren bench throughputs").contains("'throughput'"));
}

#[test]
fn health_waits_for_some_time() {
    let Command::Health(args) = parsed("warren health --timeout 500ms") else { panic!("health") };
    assert_eq!(args.timeout, Duration::from_millis(500));
    assert!(refused("warren health --timeout 5").contains("is not a time span"));
    assert!(refused("warren health --timeout 0s").contains("too short"));
}

#[test]
fn a_misspelt_command_is_told_the_right_one() {
    assert!(refused("warren check-confg").contains("'check-config'"));
    assert!(refused("warren completions basch").contains("bash"));
}

#[test]
fn every_command_has_help_with_examples() {
    let mut definition = definition();
    assert!(definition.render_long_help().to_string().contains("EXAMPLES:"));
    for command in definition.get_subcommands_mut() {
        let own_help = ["ctl", "bench"].contains(&command.get_name());
        let help = command.render_long_help().to_string();
        assert!(own_help || help.contains("EXAMPLES:"), "{help}");
        assert!(command.get_about().is_some(), "{}", command.get_name());
    }
}

#[test]
fn the_flags_become_sources() {
    let args = SettingsArgs {
        config: Some("w.toml".into()),
        set: vec!["log.level=debug".into()],
        data_dir: Some("/d".into()),
    };
    let sources = args.sources();
    assert_eq!(sources.config.as_deref(), Some(Path::new("w.toml")));
    assert_eq!(
        sources.overrides,
        [
            Override::Set("log.level=debug".into()),
            Override::Named("--data-dir", "data_dir", "/d".into())
        ]
    );
}
