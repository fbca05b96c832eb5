//! What is understood, how answers look, and that nothing a broker says can hurt a terminal.

use super::*;

fn parsed(line: &str) -> Cli {
    let words = std::iter::once("warren ctl").chain(line.split_whitespace());
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(line: &str) -> String {
    let said = converse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
    assert_eq!((said.code, said.out.as_str()), (exit::USAGE, ""), "{line}: {}", said.err);
    said.err
}

fn request(line: &str) -> (Request, String) {
    let client = Client::new("/nowhere".into(), Some(Duration::from_secs(60)));
    let typed = || Ok("typed".to_owned());
    let plan = Plan::of(&parsed(line).command, &client, typed).expect("a plan");
    (plan.request, (plan.banner)("warren@host"))
}

fn listed(format: Format, header: bool) -> String {
    let rows = Rows {
        columns: vec!["name".into(), "messages".into(), "arguments".into()],
        rows: vec![
            vec![
                json!("orders"),
                json!(3),
                json!([["x-dlx", "longstr", "dead"], ["x-max-length", "signedint", 10]]),
            ],
            vec![json!("a\t\"b\",\u{1b}[31m"), json!(0), json!([])],
        ],
    };
    let mut out = String::new();
    format::rows(&rows, format, header, &mut out);
    out
}

#[test]
fn the_definition_is_sound() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn options_stand_before_the_command_or_behind_it() {
    for line in ["-q -n rabbit@h list_queues -p /v name", "list_queues name -p /v --quiet --node x"]
    {
        let cli = parsed(line);
        assert!(!cli.common.chatters(), "{line}");
        let (request, banner) = request(line);
        let Request::List { vhost, columns, .. } = request else { panic!("{line}") };
        assert_eq!((vhost.as_deref(), columns), (Some("/v"), vec!["name".to_owned()]), "{line}");
        assert_eq!(banner, "Timeout: 60.0 seconds ...\nListing queues for vhost /v ...\n");
    }
    let (Request::List { columns, .. }, _) = request("list_queues name,messages consumers") else {
        panic!("a list")
    };
    assert_eq!(columns, ["name", "messages", "consumers"], "commas part columns too");
}

#[test]
fn an_option_without_meaning_is_refused_not_ignored() {
    assert!(refused("ping -p /").contains("'-p'"));
    assert!(refused("list_exchanges --online").contains("'--online'"));
    assert!(refused("close_all_connections --global -p / bye").contains("cannot be used with"));
    assert!(refused("list_queues --formatter erlang").contains("pretty_table"));
    assert!(refused("lst_queues").contains("list_queues"));
    assert!(refused("set_permissions bob a b").contains("<READ>"));
    assert!(refused("").contains("EXAMPLES:"));
}

#[test]
fn a_list_of_queues_can_be_of_this_node_or_of_those_that_are_down() {
    let show = |line: &str| {
        let client = Client::new("/nowhere".into(), None);
        Plan::of(&parsed(line).command, &client, || Ok(String::new())).expect("a plan").show
    };
    for all in ["", "--online", "--local", "--online --offline", "--local --offline"] {
        assert_eq!(show(&format!("list_queues {all}")), Show::Rows, "{all}");
    }
    assert_eq!(show("list_queues --offline"), Show::Header, "no other node has a queue");
}

#[test]
fn no_time_is_no_limit() {
    let words = ["-t", "0", "--socket", "/nowhere/s", "list_queues"].map(OsString::from);
    let cli = Cli::try_parse_from(std::iter::once("warren ctl".into()).chain(words));
    let cli = cli.expect("a command");
    let client = client(&cli).expect("a client");
    assert_eq!(client.timeout(), None);
    let plan = Plan::of(&cli.command, &client, || Ok(String::new())).expect("a plan");
    assert_eq!((plan.banner)("n"), "Timeout: infinity ...\nListing queues for vhost / ...\n");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_asks_nobody() {
    let said = |line: &str| {
        converse(
            &format!("--socket /nowhere/s --dry-run {line}")
                .split(' ')
                .map(OsString::from)
                .collect::<Vec<_>>(),
        )
    };
    let expected = Said { out: "Adding user \"bob\" ...\n".into(), ..Said::default() };
    assert_eq!(said("add_user bob"), expected, "without a password, which it does not ask for");
    assert_eq!(said("-q delete_vhost v"), Said::default());
    assert_eq!(said("delete_vhost").code, exit::USAGE);
}

#[test]
fn help_is_a_result() {
    for line in ["--help", "-?", "-h", "help add_user", "add_user --help"] {
        let said = converse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}");
        assert!(said.out.contains("Usage: warren ctl"), "{line}: {}", said.out);
    }
}

#[test]
fn a_password_is_asked_for_when_it_is_not_given() {
    let (Request::AddUser { password, .. }, banner) = request("add_user alice") else {
        panic!("add_user")
    };
    assert_eq!((password.0.as_str(), banner.as_str()), ("typed", "Adding user \"alice\" ...\n"));
    let (Request::ChangePassword { password, .. }, _) = request("change_password alice pw") else {
        panic!("change_password")
    };
    assert_eq!(password.0, "pw");
}

#[test]
fn commands_are_announced_in_the_words_of_rabbitmqctl() {
    for (line, expected) in [
        ("list_bindings", "Listing bindings for vhost /...\n"),
        ("list_permissions -p v", "Listing permissions for vhost \"v\" ...\n"),
        ("list_consumers", "Listing consumers in vhost / ...\n"),
        ("purge_queue q", "Purging queue 'q' in vhost '/' ...\n"),
        ("delete_queue --if-empty q", "Deleting queue 'q' on vhost '/' if queue is empty ...\n"),
        (
            "delete_queue -e -u q",
            "Deleting queue 'q' on vhost '/' if queue is empty and unused ...\n",
        ),
        ("close_connection c bye", "Closing connection c, reason: bye...\n"),
        ("close_all_connections bye", "Closing all connections in vhost /, reason: bye...\n"),
        ("set_user_tags u a b", "Setting tags for user \"u\" to [a, b] ...\n"),
        ("set_permissions -p v u a b c", "Setting permissions for user \"u\" in vhost \"v\" ...\n"),
        ("stop", "Stopping and halting node warren@host ...\n"),
    ] {
        assert_eq!(request(line).1, expected, "{line}");
    }
}

#[test]
fn a_table_has_tabs_between_columns_and_none_inside() {
    assert_eq!(
        listed(Format::Table, true),
        "name\tmessages\targuments\n\
         orders\t3\t[{\"x-dlx\",\"dead\"},{\"x-max-length\",10}]\n\
         a\\t\"b\",\\u{1b}[31m\t0\t[]\n"
    );
    assert!(listed(Format::Table, false).starts_with("orders\t"));
}

#[test]
fn csv_quotes_everything() {
    assert_eq!(
        listed(Format::Csv, true),
        "\"name\",\"messages\",\"arguments\"\n\
         \"orders\",\"3\",\"[{\"\"x-dlx\"\",\"\"dead\"\"},{\"\"x-max-length\"\",10}]\"\n\
         \"a\t\"\"b\"\",\u{1b}[31m\",\"0\",\"[]\"\n"
    );
}

#[test]
fn json_is_one_document_with_an_object_a_line() {
    let text = listed(Format::Json, true);
    assert!(
        text.starts_with("[\n{\"name\":\"orders\",\"messages\":3,\"arguments\":[[\"x-dlx\","),
        "{text}"
    );
    assert!(text.ends_with("\n]\n") && text.contains("\n,{\"name\":\"a\\t"), "{text}");
    let document: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let lines: Vec<Value> = listed(Format::JsonStream, true)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(document, lines);
    let mut none = String::new();
    format::rows(&Rows::default(), Format::Json, true, &mut none);
    assert_eq!(none, "[\n]\n");
}

#[test]
fn a_pretty_table_has_straight_edges() {
    let text = listed(Format::PrettyTable, true);
    let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert_eq!(widths.len(), 7, "{text}");
    assert!(widths.iter().all(|width| Some(width) == widths.first()), "{text}");
    assert!(text.starts_with("┌─") && text.contains("│ orders "), "{text}");
}

#[test]
fn nested_arguments_keep_their_types() {
    let rows = Rows {
        columns: vec!["arguments".into()],
        rows: vec![vec![json!([
            ["t", "table", [["a", "longstr", "b"], ["n", "bool", true]]],
            ["l", "array", [["longstr", "x"], ["signedint", 1]]],
            ["v", "void", "undefined"],
        ])]],
    };
    let mut out = String::new();
    format::rows(&rows, Format::Table, false, &mut out);
    assert_eq!(out, "[{\"t\",[{\"a\",\"b\"},{\"n\",true}]},{\"l\",[\"x\",1]},{\"v\",undefined}]\n");
}

#[test]
fn the_settings_read_back_as_toml() {
    let tree = serde_json::to_value(crate::settings::Settings::default()).expect("JSON");
    let text = format::settings(&tree);
    let read: crate::settings::Settings = toml::from_str(&text).expect("TOML");
    assert_eq!(read.amqp, crate::settings::Settings::default().amqp);
    assert!(text.contains("auth.default_password = \"********\"\n"), "{text}");
    assert!(text.contains("# tls.key is not set\n"), "{text}");
}

#[test]
fn a_broker_that_is_not_there_is_one_sentence_with_a_way_out() {
    let words = ["list_queues", "--socket", "/nowhere/warren.sock"].map(OsString::from);
    let said = converse(&words);
    assert_eq!((said.code, said.out.as_str()), (exit::UNAVAILABLE, ""));
    for part in ["/nowhere/warren.sock", "warren server", "--data-dir"] {
        assert!(said.err.contains(part), "{}", said.err);
    }
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}

#[test]
fn settings_that_are_wrong_are_told_from_a_broker_that_is_not_there() {
    let words = ["ping", "--config", "/nowhere/warren.toml"].map(OsString::from);
    let said = converse(&words);
    assert_eq!(said.code, exit::CONFIG);
    assert!(said.err.contains("/nowhere/warren.toml"), "{}", said.err);
}
