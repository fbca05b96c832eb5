//! Where the broker is: `amqp://user:password@host:port/vhost` and `stomp://…`.
//!
//! Read by hand, because two schemes and five parts need no library. TLS schemes are refused rather than
//! taken for plain ones. Addresses that are not loopback are refused unless asked for: a mistyped URL must
//! not put load on somebody's broker.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use super::args::{Protocol, TargetArgs};
use super::error::BenchError;

/// A broker, its protocol and the login.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) protocol: Protocol,
    pub(super) socket: SocketAddr,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password: errors and assertions print this.
        write!(f, "{:?} {} {:?} {:?}", self.protocol, self.socket, self.user, self.vhost)
    }
}

impl Address {
    /// Finds the broker meant by the arguments; resolves its name.
    ///
    /// # Errors
    /// [`BenchError::Usage`] for a URL that cannot be read, a scheme that is not spoken or not the protocol
    /// asked for, a name that does not resolve, or a remote address without `--allow-remote`.
    pub(super) fn of(target: &TargetArgs) -> Result<Self, BenchError> {
        let default = match target.protocol {
            Some(Protocol::Stomp) => "stomp://guest:guest@127.0.0.1:61613",
            Some(Protocol::Amqp) | None => "amqp://guest:guest@127.0.0.1:5672/%2f",
        };
        let address = Self::parse(target.url.as_deref().unwrap_or(default))?;
        if let Some(protocol) = target.protocol
            && protocol != address.protocol
        {
            return Err(BenchError::Usage(format!(
                "--protocol {} contradicts the scheme of --url",
                protocol.name()
            )));
        }
        if !address.socket.ip().is_loopback() && !target.allow_remote {
            return Err(BenchError::Usage(format!(
                "{} is not a loopback address; --allow-remote lets a benchmark load another machine",
                address.socket.ip()
            )));
        }
        Ok(address)
    }

    /// The broker of this process or of a child, with the login everyone starts with.
    pub(super) fn local(protocol: Protocol, socket: SocketAddr) -> Self {
        Self {
            protocol,
            socket,
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: "/".to_owned(),
        }
    }

    /// Reads a URL and resolves its host.
    fn parse(url: &str) -> Result<Self, BenchError> {
        let wrong = |why: &str| BenchError::Usage(format!("--url: {why}"));
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| wrong("`scheme://` is missing"))?;
        let (protocol, default_port) = match scheme {
            "amqp" => (Protocol::Amqp, 5672),
            "stomp" => (Protocol::Stomp, 61613),
            "amqps" | "stomps" | "stomp+ssl" => {
                return Err(wrong("TLS is not spoken by the load generator; use the plain port"));
            }
            other => return Err(wrong(&format!("`{other}` is neither `amqp` nor `stomp`"))),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (login, place),
            None => ("guest:guest", authority),
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match place.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong(&format!("`{port}` is not a port")))?)
            }
            _ => (place, default_port),
        };
        let socket = resolve(host.trim_start_matches('[').trim_end_matches(']'), port)?;
        // No path at all is the default virtual host; an empty one after the slash is the virtual host "".
        let vhost = path.map_or_else(|| Some("/".to_owned()), percent_decode);
        match (percent_decode(user), percent_decode(password), vhost) {
            (Some(user), Some(password), Some(vhost)) => {
                Ok(Self { protocol, socket, user, password, vhost })
            }
            _ => Err(wrong("a `%` is not followed by two hexadecimal digits of UTF-8")),
        }
    }
}

/// The first address of `host`, loopback ones before others.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, BenchError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|error| BenchError::Usage(format!("--url: cannot resolve `{host}`: {error}")))?;
    // `localhost` often gives ::1 first, where not every broker listens.
    found
        .min_by_key(|address| (!address.ip().is_loopback(), address.is_ipv6()))
        .ok_or_else(|| BenchError::Usage(format!("--url: `{host}` has no address")))
}

/// Undoes `%41`; `None` for a bad escape or octets that are not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            octets.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: Option<&str>, protocol: Option<Protocol>) -> TargetArgs {
        TargetArgs {
            url: url.map(ToOwned::to_owned),
            protocol,
            allow_remote: false,
            broker_pid: None,
            json: false,
        }
    }

    fn parsed(url: &str) -> Address {
        Address::of(&target(Some(url), None)).unwrap()
    }

    fn refusal(url: &str) -> String {
        Address::of(&target(Some(url), None)).unwrap_err().to_string()
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let address = parsed("amqp://al%40ice:p%3Aw@127.0.0.1:35672/a%2Fb");
        assert_eq!(address.protocol, Protocol::Amqp);
        assert_eq!(address.socket.to_string(), "127.0.0.1:35672");
        assert_eq!((address.user.as_str(), address.password.as_str()), ("al@ice", "p:w"));
        assert_eq!(address.vhost, "a/b");
    }

    #[test]
    fn what_is_left_out_has_the_usual_value() {
        let address = parsed("stomp://127.0.0.1");
        assert_eq!(address, Address::local(Protocol::Stomp, "127.0.0.1:61613".parse().unwrap()));
        assert_eq!(parsed("amqp://[::1]").socket.to_string(), "[::1]:5672");
        assert_eq!(parsed("amqp://[::1]:7/").vhost, "");
        let without_url = Address::of(&target(None, Some(Protocol::Stomp))).unwrap();
        assert_eq!(without_url.socket.port(), 61613);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_reason() {
        for (url, reason) in [
            ("127.0.0.1:5672", "scheme"),
            ("amqps://127.0.0.1", "TLS"),
            ("http://127.0.0.1", "neither"),
            ("amqp://127.0.0.1:port", "not a port"),
            ("amqp://127.0.0.1/%zz", "hexadecimal"),
            ("amqp://192.0.2.1", "--allow-remote"),
        ] {
            let said = refusal(url);
            assert!(said.contains(reason), "{url}: {said}");
        }
        let both = target(Some("amqp://127.0.0.1"), Some(Protocol::Stomp));
        assert!(Address::of(&both).unwrap_err().to_string().contains("contradicts"));
    }

    #[test]
    fn the_password_is_not_printed() {
        assert!(!format!("{:?}", parsed("amqp://u:secret@127.0.0.1")).contains("secret"));
    }
}
