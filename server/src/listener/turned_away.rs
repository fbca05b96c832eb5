//! A connection more than there may be: it is told why, in its protocol, and closed.
//!
//! It becomes no session: it costs a socket for a second at most, and there are few of them at a time (see
//! [`OpenFiles`](crate::settings::OpenFiles)); whoever comes on top of those is told as far as that takes no time
//! ([`tell_at_once`]). Who wants TLS is closed without a word: words would need a handshake.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use proto_amqp::control::protocol::{AMQPClass, connection};
use proto_amqp::handshake::{Header, PROTOCOL_HEADER_0_9_1, parse_protocol_header};
use proto_amqp::{ChannelId, ReplyCode, Version, control, reply_text};
use proto_stomp::{Command, FrameEnd, FrameWriter};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Service;

/// How long telling may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Tells the peer that there are `most` connections already, and closes.
pub(super) async fn tell(service: Service, mut stream: TcpStream, most: usize) {
    let why = reason(most);
    let told = async {
        let words = match service {
            Service::Amqp => version(&mut stream).await?.map(|version| close(version, &why)),
            Service::Stomp => Some(error(&why)),
        };
        stream.write_all(&words.unwrap_or_default()).await?;
        stream.shutdown().await?;
        // A socket that is closed with unread octets takes the words back.
        let mut unread = [0; 512];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Best effort: nobody has to listen.
    drop(timeout(FAREWELL, told).await);
}

/// Tells the peer what can be told without waiting; dropping the stream closes it. A client of AMQP whose protocol
/// header is still under way is told nothing.
pub(super) fn tell_at_once(service: Service, stream: &TcpStream, most: usize) {
    let socket = SockRef::from(stream);
    // What has come is read: a socket that is closed with unread octets takes the words back.
    let mut sent = [0; 4096];
    let count = (&*socket).read(&mut sent).unwrap_or_default();
    let why = reason(most);
    let words = match service {
        Service::Amqp => {
            let header = sent.get(..count).and_then(|sent| sent.first_chunk());
            header.and_then(spoken).map(|version| close(version, &why)).unwrap_or_default()
        }
        Service::Stomp => error(&why),
    };
    // Best effort. A new socket has room for so little.
    (&*socket).write_all(&words).ok();
}

/// RabbitMQ's words.
fn reason(most: usize) -> String {
    format!("connection refused: node connection limit ({most}) is reached")
}

/// The version of AMQP in the protocol header; `None` if there is none that we speak.
async fn version(stream: &mut TcpStream) -> io::Result<Option<Version>> {
    let mut header = [0; PROTOCOL_HEADER_0_9_1.len()];
    stream.read_exact(&mut header).await?;
    Ok(spoken(&header))
}

fn spoken(header: &[u8; PROTOCOL_HEADER_0_9_1.len()]) -> Option<Version> {
    match parse_protocol_header(header) {
        Header::Accepted(version) => Some(version),
        _ => None,
    }
}

fn close(version: Version, why: &str) -> Vec<u8> {
    let close = connection::Close {
        reply_code: ReplyCode::NOT_ALLOWED.0,
        reply_text: reply_text(ReplyCode::NOT_ALLOWED, why).as_str().into(),
        class_id: 0,
        method_id: 0,
    };
    let class = AMQPClass::Connection(connection::AMQPMethod::Close(close));
    let mut octets = Vec::new();
    let encoded = control::encode(ChannelId::CONNECTION, &class, version, &mut octets);
    debug_assert!(encoded.is_ok(), "every version has connection.close: {encoded:?}");
    octets
}

fn error(why: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut frame = FrameWriter::begin(&mut octets, Command::Error);
    frame.header_raw(b"message", b"not_allowed");
    frame.header_raw(b"content-type", b"text/plain");
    frame.finish(format!("NOT_ALLOWED - {why}").as_bytes(), FrameEnd::NulLf);
    octets
}
