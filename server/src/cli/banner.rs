//! What a person sees when the broker is up: where it listens, what becomes of messages, how to
//! publish a first one.
//!
//! Plain text without colours, because it may go to a log. The only password that it ever shows is
//! the one that everybody knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::settings::{Durability, Settings};

/// The addresses that listen, with the ports that port 0 became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundAddresses {
    /// AMQP without TLS.
    pub amqp: Vec<SocketAddr>,
    /// AMQP with TLS.
    pub amqp_tls: Vec<SocketAddr>,
    /// STOMP without TLS.
    pub stomp: Vec<SocketAddr>,
    /// STOMP with TLS.
    pub stomp_tls: Vec<SocketAddr>,
    /// The Prometheus endpoint.
    pub metrics: Vec<SocketAddr>,
}

/// The text, at most ten lines with a line feed at the end of each.
#[must_use]
pub fn banner(settings: &Settings, bound: &BoundAddresses) -> String {
    let mut lines = vec![format!("Warren {} is ready.", env!("CARGO_PKG_VERSION"))];
    let mut row = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));

    for (name, addresses) in [
        ("AMQP", &bound.amqp),
        ("AMQP TLS", &bound.amqp_tls),
        ("STOMP", &bound.stomp),
        ("STOMP TLS", &bound.stomp_tls),
    ] {
        if !addresses.is_empty() {
            let shown: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            row(name, shown.join(", "));
        }
    }
    if !bound.metrics.is_empty() {
        let shown: Vec<String> =
            bound.metrics.iter().map(|address| format!("http://{address}/metrics")).collect();
        row("metrics", shown.join(", "));
    }
    let socket = settings.control_socket();
    let socket = std::path::absolute(&socket).unwrap_or(socket);
    row("control", socket.display().to_string());
    let promise = match settings.durability {
        Durability::Fsync => "a confirm says that the disk has them",
        Durability::Os => "a confirm says that the operating system has them, not the disk",
    };
    let data =
        std::path::absolute(&settings.data_dir).unwrap_or_else(|_| settings.data_dir.clone());
    row("data", format!("{}: {promise}", data.display()));

    let (user, password) = login(settings);
    if let Some(address) = reachable(&bound.amqp) {
        let vhost = percent_encoded(&settings.auth.default_vhost);
        let url = format!("amqp://{user}:{password}@{address}/{vhost}");
        row(
            "pika",
            format!(
                "python3 -c 'import pika; \
                 c = pika.BlockingConnection(pika.URLParameters(\"{url}\")).channel(); \
                 c.queue_declare(\"hello\"); c.basic_publish(\"\", \"hello\", b\"hi\")'"
            ),
        );
    }
    if let Some(address) = reachable(&bound.stomp) {
        row(
            "Net::Stomp",
            format!(
                "perl -MNet::Stomp -e \
                 '$c = Net::Stomp->new({{hostname => \"{}\", port => {}}}); \
                 $c->connect({{login => \"{user}\", passcode => \"{password}\"}}); \
                 $c->send({{destination => \"/queue/hello\", body => \"hi\"}}); $c->disconnect'",
                address.ip(),
                address.port()
            ),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The login to show: the well-known one, or words in its place.
fn login(settings: &Settings) -> (&'static str, &'static str) {
    let auth = &settings.auth;
    if auth.default_user == "guest" && auth.default_password.expose() == "guest" {
        ("guest", "guest")
    } else {
        ("USER", "PASSWORD")
    }
}

/// An address under which this machine reaches a listener, IPv4 if there is one.
fn reachable(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let address =
        addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first())?;
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some(SocketAddr::new(ip, address.port()))
}

/// `text` as one segment of a URL's path (RFC 3986 §2.3).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            encoded.push_str(&format!("%{octet:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn both() -> BoundAddresses {
        BoundAddresses {
            amqp: vec![address("[::]:5672"), address("0.0.0.0:5672")],
            stomp: vec![address("[::1]:61613")],
            metrics: vec![address("127.0.0.1:15692")],
            ..BoundAddresses::default()
        }
    }

    #[test]
    fn it_says_where_things_are_and_how_to_begin() {
        let text = banner(&Settings { data_dir: "/srv/w".into(), ..Settings::default() }, &both());
        assert_eq!(
            text,
            "Warren 0.1.0 is ready.\n\
             \x20 AMQP       [::]:5672, 0.0.0.0:5672\n\
             \x20 STOMP      [::1]:61613\n\
             \x20 metrics    http://127.0.0.1:15692/metrics\n\
             \x20 control    /srv/w/warren.sock\n\
             \x20 data       /srv/w: a confirm says that the disk has them\n\
             \x20 pika       python3 -c 'import pika; c = pika.BlockingConnection(pika.URLParameters(\
             \"amqp://guest:guest@127.0.0.1:5672/%2F\")).channel(); c.queue_declare(\"hello\"); \
             c.basic_publish(\"\", \"hello\", b\"hi\")'\n\
             \x20 Net::Stomp perl -MNet::Stomp -e '$c = Net::Stomp->new({hostname => \"::1\", \
             port => 61613}); $c->connect({login => \"guest\", passcode => \"guest\"}); \
             $c->send({destination => \"/queue/hello\", body => \"hi\"}); $c->disconnect'\n"
                .replace("0.1.0", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn it_shows_no_password_but_the_well_known_one() {
        let mut settings = Settings::default();
        settings.auth.default_password = "hunter2".into();
        settings.stomp.default_passcode = "hunter2".into();
        let text = banner(&settings, &both());
        assert!(text.contains("amqp://USER:PASSWORD@"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("guest"), "{text}");
    }

    #[test]
    fn doors_that_are_shut_are_not_named() {
        let bound = BoundAddresses {
            amqp_tls: vec![address("127.0.0.1:5671")],
            ..BoundAddresses::default()
        };
        let text = banner(&Settings::default(), &bound);
        assert!(text.contains("AMQP TLS   127.0.0.1:5671"), "{text}");
        for absent in ["STOMP", "metrics", "pika"] {
            assert!(!text.contains(absent), "{text}");
        }
    }

    #[test]
    fn virtual_hosts_are_encoded_for_the_url() {
        assert_eq!(percent_encoded("/"), "%2F");
        assert_eq!(percent_encoded("a b-c"), "a%20b-c");
    }
}
