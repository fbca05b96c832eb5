//! Telling systemd how the service is doing (`Type=notify`, sd_notify(3)).
//!
//! One datagram of `NAME=value` lines to the socket named by `NOTIFY_SOCKET`; nothing happens when
//! the variable is not set. No watchdog: a hung disk is for an operator to see, not for a restart.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// Recovered and listening; the text is shown by `systemctl status`.
    Ready(&'a str),
    /// Still starting, for example replaying a log: wait this much longer from now.
    Starting(&'a str, Duration),
    /// Reading the settings again; [`State::Ready`] follows.
    Reloading,
    /// Stopping on request; the text is shown by `systemctl status`.
    Stopping(&'a str),
}

impl State<'_> {
    fn message(self) -> String {
        match self {
            Self::Ready(status) => format!("READY=1\nSTATUS={}", one_line(status)),
            Self::Starting(status, more) => {
                format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={}", more.as_micros(), one_line(status))
            }
            Self::Reloading => "RELOADING=1".into(),
            Self::Stopping(status) => format!("STOPPING=1\nSTATUS={}", one_line(status)),
        }
    }
}

/// A line feed would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// Tells systemd, if it is listening; whether it was told.
///
/// # Errors
/// The socket is named but cannot be written to: worth a warning, never a reason to stop.
pub fn notify(state: State<'_>) -> io::Result<bool> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(false);
    };
    send(&socket, state)?;
    Ok(true)
}

fn send(socket: &OsStr, state: State<'_>) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.message().as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_as_one_datagram() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).expect("a socket");
        send(path.as_os_str(), State::Ready("accepting\nconnections")).expect("sent");
        let mut received = [0; 256];
        let len = systemd.recv(&mut received).expect("received");
        assert_eq!(&received[..len], b"READY=1\nSTATUS=accepting connections");
    }

    #[test]
    fn abstract_sockets_work_and_missing_ones_are_an_error() {
        let name = format!("warren-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let systemd = UnixDatagram::bind_addr(&address).expect("a socket");
        let socket = format!("@{name}");
        let state = State::Starting("replaying", Duration::from_secs(30));
        send(OsStr::new(&socket), state).expect("sent");
        let mut received = [0; 256];
        let len = systemd.recv(&mut received).expect("received");
        assert_eq!(&received[..len], b"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=replaying");
        drop(systemd);
        assert!(send(OsStr::new(&socket), State::Reloading).is_err());
    }
}
