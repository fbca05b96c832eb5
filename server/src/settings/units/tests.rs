//! What each written form means, what is refused and with which advice.

use super::*;

fn read<T: for<'de> Deserialize<'de>>(toml_value: &str) -> Result<T, String> {
    let document = format!("value = {toml_value}");
    let mut table: std::collections::BTreeMap<String, T> =
        toml::from_str(&document).map_err(|error| error.message().to_owned())?;
    Ok(table.remove("value").expect("the key above"))
}

#[track_caller]
fn refused<T: for<'de> Deserialize<'de> + fmt::Debug>(toml_value: &str, says: &str) {
    let error = read::<T>(toml_value).expect_err(toml_value);
    assert!(error.contains(says), "{toml_value}: {error}");
}

#[test]
fn sizes_read_binary_decimal_and_bare_units() {
    for (written, octets) in [
        ("\"16MiB\"", 16 << 20),
        ("\"64 KiB\"", 64 << 10),
        ("\"64kib\"", 64 << 10),
        ("\"1GB\"", 1_000_000_000),
        ("\"10kB\"", 10_000),
        ("\"512\"", 512),
        ("\"512B\"", 512),
        ("131072", 131_072),
        ("\"2TiB\"", 2 << 40),
    ] {
        assert_eq!(read::<Size>(written), Ok(Size::new(octets)), "{written}");
    }
    refused::<Size>("\"16M\"", "\"M\" is not a unit");
    refused::<Size>("\"1.5GiB\"", "fractions");
    refused::<Size>("\"lots\"", "does not start with a number");
    refused::<Size>("\"99999999999TiB\"", "more than 2^64");
    refused::<Size>("-1", "integer `-1`");
    refused::<Size>("true", "a size such as");
}

#[test]
fn sizes_print_in_the_largest_unit_that_divides_them_and_read_back() {
    for (size, text) in [
        (Size::mib(16), "16MiB"),
        (Size::new(131_072), "128KiB"),
        (Size::new(1_000), "1000B"),
        (Size::new(0), "0B"),
        (Size::gib(3), "3GiB"),
    ] {
        assert_eq!(size.to_string(), text);
        assert_eq!(text.parse(), Ok(size));
    }
}

#[test]
fn time_spans_need_a_unit_unless_they_are_zero() {
    assert_eq!(read("\"10s\""), Ok(TimeSpan::seconds(10)));
    assert_eq!(read("\"1h 30m\""), Ok(TimeSpan::seconds(5400)));
    assert_eq!(read("0"), Ok(TimeSpan::seconds(0)));
    assert_eq!(read("\"0s\""), Ok(TimeSpan::seconds(0)));
    let half: TimeSpan = read("\"500ms\"").expect("half a second");
    assert_eq!(half.to_string(), "500ms");
    assert_eq!(half.to_string().parse(), Ok(half));
    refused::<TimeSpan>("10", "10 has no unit: write \"10s\"");
    refused::<TimeSpan>("\"10\"", "is not a time span");
    refused::<TimeSpan>("\"10 parsecs\"", "is not a time span");
}

#[test]
fn memory_is_a_share_or_a_size() {
    let share: Memory = read("\"60%\"").expect("a share");
    assert_eq!(share.resolve(Size::gib(10)), Size::gib(6));
    assert_eq!(share.to_string(), "60%");
    let fixed: Memory = read("\"2GiB\"").expect("a size");
    assert_eq!(fixed.resolve(Size::gib(10)), Size::gib(2));
    assert_eq!(Memory::Share(100).resolve(Size::new(u64::MAX)), Size::new(u64::MAX));
    refused::<Memory>("\"0%\"", "1% to 100%");
    refused::<Memory>("\"101%\"", "1% to 100%");
    refused::<Memory>("\"0.6\"", "fractions");
}

#[test]
fn connections_are_counted_or_follow_the_open_files() {
    assert_eq!(read("\"auto\""), Ok(ConnectionLimit::Auto));
    assert_eq!(read("5000"), Ok(ConnectionLimit::Count(5000)));
    assert_eq!(read("\"5000\""), Ok(ConnectionLimit::Count(5000)));
    refused::<ConnectionLimit>("0", "out of range");
    refused::<ConnectionLimit>("\"many\"", "neither a number nor");
}

#[test]
fn a_misspelt_log_level_is_not_taken_for_a_module() {
    assert!(read::<LogFilter>("\"info\"").is_ok());
    assert!(read::<LogFilter>("\"warn,warren_server::amqp=debug\"").is_ok());
    refused::<LogFilter>("\"inof\"", "\"inof\" is not a log level");
    refused::<LogFilter>("\"info,amqp=loud\"", "\"amqp=loud\" is not a log level");
    refused::<LogFilter>("\"\"", "is not a log level");
}

#[test]
fn addresses_are_lists_or_one_string_and_errors_say_what_to_write() {
    assert_eq!(read("[\"127.0.0.1:1\", \"[::1]:1\"]"), Ok(Addresses::loopback(1)));
    let one: Addresses = read("\"0.0.0.0:5672\"").expect("one address");
    assert_eq!(one.as_slice().len(), 1);
    assert!(read::<Addresses>("[]").expect("an empty list").is_empty());
    refused::<Addresses>("\"5672\"", "\"127.0.0.1:5672\" for this machine only");
    refused::<Addresses>("[\":5672\"]", "\"[::]:5672\" for every address");
    refused::<Addresses>("\"*:5672\"", "the address is missing");
    refused::<Addresses>("\"10.0.0.1\"", "the port is missing; write \"10.0.0.1:5672\"");
    refused::<Addresses>("\"[::1]\"", "the port is missing; write \"[::1]:5672\"");
    refused::<Addresses>("\"fe80:0:0:0:0:0:0:1:5672\"", "brackets");
    refused::<Addresses>("\"localhost:5672\"", "host names are not looked up");
    refused::<Addresses>("\"127.0.0.1:99999\"", "IP address and a port");
    refused::<Addresses>("[5672]", "string");
}

#[test]
fn a_secret_never_shows_itself() {
    let secret: Secret = read("\"hunter2\"").expect("a string");
    assert_eq!(secret.expose(), "hunter2");
    assert_eq!(format!("{secret:?}"), MASK);
    assert_eq!(serde_json::to_value(&secret).expect("a string"), MASK);
}
