//! The STOMP clients.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;

use proto_stomp::{Command, FrameReader, Limits, OwnedFrame, Version};
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use warren_tests::history::{MessageId, TransactionId};

use super::notes::{Failure, Notes};

/// SENDs of a producer without their receipts.
const WINDOW: usize = 48;

/// Deliveries of a consumer without their ACK.
const PREFETCH: &str = "40";

/// How long a consumer waits for another MESSAGE before it acks those that it has.
const IDLE: Duration = Duration::from_millis(20);

/// The largest frame that comes.
const MESSAGE_LEN_MAX: usize = 1024 * 1024;

/// A connection of STOMP 1.2.
struct Link {
    stream: TcpStream,
    reader: FrameReader,
    buffer: Vec<u8>,
}

impl Link {
    async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let reader = FrameReader::new(Limits::from_server(MESSAGE_LEN_MAX));
        let mut link = Self { stream, reader, buffer: vec![0; 16 * 1024] };
        let connect = OwnedFrame::new(Command::Connect)
            .header("accept-version", "1.2")
            .header("host", "/")
            .header("login", "guest")
            .header("passcode", "guest");
        link.send(&connect).await?;
        let connected = link.next().await?;
        if connected.command != Command::Connected {
            return Err(format!("wanted CONNECTED, got {connected:?}").into());
        }
        link.reader.set_version(Version::V1_2);
        Ok(link)
    }

    async fn send(&mut self, frame: &OwnedFrame) -> Result<(), Failure> {
        Ok(self.stream.write_all(&frame.encode()).await?)
    }

    /// The next frame. ERROR and the end of the connection are failures. Nothing is lost when the caller stops waiting.
    async fn next(&mut self) -> Result<OwnedFrame, Failure> {
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                if frame.command == Command::Error {
                    return Err(format!("{frame:?}").into());
                }
                return Ok(frame);
            }
            let count = self.stream.read(&mut self.buffer).await?;
            if count == 0 {
                return Err("the broker has closed the connection".into());
            }
            self.reader.push(self.buffer.get(..count).unwrap_or_default());
        }
    }

    /// The next frame; `None` when none comes for a while.
    async fn next_soon(&mut self) -> Result<Option<OwnedFrame>, Failure> {
        match timeout(IDLE, self.next()).await {
            Ok(frame) => Ok(Some(frame?)),
            Err(_) => Ok(None),
        }
    }

    async fn subscribe(&mut self, queue: &str) -> Result<(), Failure> {
        let subscribe = OwnedFrame::new(Command::Subscribe)
            .header("id", "0")
            .header("destination", format!("/amq/queue/{queue}"))
            .header("ack", "client-individual")
            .header("prefetch-count", PREFETCH);
        self.send(&subscribe).await
    }
}

/// A SEND of a persistent or transient message.
fn send(destination: &str, body: &[u8], persistent: bool) -> OwnedFrame {
    let frame = OwnedFrame::new(Command::Send).header("destination", destination).body(body);
    if persistent { frame.header("persistent", "true") } else { frame }
}

fn text<'f>(frame: &'f OwnedFrame, header: &str) -> Result<&'f str, Failure> {
    let value = frame.get(header).ok_or_else(|| format!("{frame:?} has no {header}"))?;
    Ok(std::str::from_utf8(value)?)
}

/// Sends with receipts.
pub(crate) async fn produce(
    notes: &mut Notes,
    address: SocketAddr,
    destination: &str,
    queues: &[&str],
) -> Result<Infallible, Failure> {
    let mut link = Link::open(address).await?;
    let worked = produce_to(notes, &mut link, destination, queues).await;
    // Receipts that came with the last octets count as well.
    while let Ok(receipt) = link.next().await {
        take_receipt(notes, &receipt)?;
    }
    worked
}

async fn produce_to(
    notes: &mut Notes,
    link: &mut Link,
    destination: &str,
    queues: &[&str],
) -> Result<Infallible, Failure> {
    let mut waiting = 0;
    loop {
        notes.pause().await;
        let persistent = !notes.chance(10);
        let (id, body) = notes.publish(queues, persistent, None);
        let frame = send(destination, &body.octets, persistent).header("receipt", id.to_string());
        link.send(&frame).await?;
        waiting += 1;
        while waiting >= WINDOW {
            take_receipt(notes, &link.next().await?)?;
            waiting -= 1;
        }
    }
}

/// Notes the receipt for a SEND, which bears the name of its message.
fn take_receipt(notes: &mut Notes, receipt: &OwnedFrame) -> Result<(), Failure> {
    notes.confirmed(text(receipt, "receipt-id")?.parse()?);
    Ok(())
}

/// Sends in transactions.
pub(crate) async fn commit(
    notes: &mut Notes,
    address: SocketAddr,
    [one, other]: [(&str, &[&str]); 2],
) -> Result<Infallible, Failure> {
    let mut link = Link::open(address).await?;
    loop {
        notes.pause().await;
        let tx = begin(notes, &mut link).await?;
        for _ in 0..notes.rng.random_range(1..8) {
            let (destination, queues) = if notes.chance(2) { one } else { other };
            let (_, body) = notes.publish(queues, true, Some(tx));
            link.send(&in_transaction(send(destination, &body.octets, true), tx)).await?;
        }
        if end(notes, &mut link, tx).await? {
            let receipt = link.next().await?;
            take_commit(notes, tx, &receipt)?;
        }
    }
}

async fn begin(notes: &mut Notes, link: &mut Link) -> Result<TransactionId, Failure> {
    let tx = notes.began();
    link.send(&in_transaction(OwnedFrame::new(Command::Begin), tx)).await?;
    Ok(tx)
}

fn in_transaction(frame: OwnedFrame, tx: TransactionId) -> OwnedFrame {
    frame.header("transaction", tx.0.to_string())
}

/// Sends COMMIT, for which a receipt will come, or ABORT now and then; gives which.
async fn end(notes: &mut Notes, link: &mut Link, tx: TransactionId) -> Result<bool, Failure> {
    if notes.chance(6) {
        notes.roll_back(tx);
        link.send(&in_transaction(OwnedFrame::new(Command::Abort), tx)).await?;
        return Ok(false);
    }
    notes.commit(tx);
    let commit = in_transaction(OwnedFrame::new(Command::Commit), tx);
    link.send(&commit.header("receipt", tx.0.to_string())).await?;
    Ok(true)
}

fn take_commit(notes: &mut Notes, tx: TransactionId, receipt: &OwnedFrame) -> Result<(), Failure> {
    if text(receipt, "receipt-id")? != tx.0.to_string() {
        return Err(format!("wanted the receipt of transaction {}, got {receipt:?}", tx.0).into());
    }
    notes.committed(tx);
    Ok(())
}

/// A MESSAGE that waits for its ACK.
struct Held {
    id: MessageId,
    ack: String,
}

/// Notes a MESSAGE.
fn take(notes: &mut Notes, queue: &str, message: &OwnedFrame) -> Result<Held, Failure> {
    let redelivered = match text(message, "redelivered")? {
        "true" => true,
        "false" => false,
        other => return Err(format!("redelivered:{other}").into()),
    };
    let id = notes.delivered(queue, &message.body, redelivered);
    let id = id.ok_or("a body is not whole")?;
    Ok(Held { id, ack: text(message, "ack")?.to_owned() })
}

/// Waits for a receipt and notes each MESSAGE that comes before it.
async fn receipt(
    notes: &mut Notes,
    link: &mut Link,
    queue: &str,
    held: &mut VecDeque<Held>,
) -> Result<OwnedFrame, Failure> {
    loop {
        let frame = link.next().await?;
        if frame.command == Command::Receipt {
            return Ok(frame);
        }
        held.push_back(take(notes, queue, &frame)?);
    }
}

/// Notes what came with the last octets of a connection.
async fn take_left_over(notes: &mut Notes, queue: &str, mut link: Link) {
    while let Ok(frame) = link.next().await {
        if frame.command == Command::Message {
            // Noted whatever it is; there is nobody any more to complain to.
            take(notes, queue, &frame).ok();
        }
    }
}

/// Consumes and acks.
pub(crate) async fn consume(
    notes: &mut Notes,
    address: SocketAddr,
    queue: &str,
) -> Result<Infallible, Failure> {
    let mut link = Link::open(address).await?;
    let worked = consume_from(notes, &mut link, queue).await;
    take_left_over(notes, queue, link).await;
    worked
}

async fn consume_from(
    notes: &mut Notes,
    link: &mut Link,
    queue: &str,
) -> Result<Infallible, Failure> {
    link.subscribe(queue).await?;
    let (mut held, mut wanted) = (VecDeque::new(), 1);
    loop {
        let message = link.next_soon().await?;
        let idle = message.is_none();
        if let Some(message) = message {
            held.push_back(take(notes, queue, &message)?);
        }
        if held.len() < wanted && !idle {
            continue;
        }
        wanted = notes.rng.random_range(1..16);
        let batch = std::mem::take(&mut held);
        let last = batch.len();
        for (index, Held { id, ack }) in (1..).zip(batch) {
            if notes.chance(25) {
                notes.requeue(queue, id);
                let nack = OwnedFrame::new(Command::Nack).header("id", ack);
                link.send(&nack.header("requeue", "true")).await?;
                continue;
            }
            notes.ack(queue, id, None);
            let frame = OwnedFrame::new(Command::Ack).header("id", ack);
            if index == last && notes.chance(2) {
                link.send(&frame.header("receipt", "acked")).await?;
                receipt(notes, link, queue, &mut held).await?;
                notes.acked(queue, id);
                // Nothing was sent since.
                notes.answered();
            } else {
                link.send(&frame).await?;
            }
        }
    }
}

/// Takes messages from one queue and sends others to two, in transactions.
pub(crate) async fn move_on(
    notes: &mut Notes,
    address: SocketAddr,
    from: &str,
    to: [&str; 2],
) -> Result<Infallible, Failure> {
    let mut link = Link::open(address).await?;
    let worked = move_from(notes, &mut link, from, to).await;
    take_left_over(notes, from, link).await;
    worked
}

async fn move_from(
    notes: &mut Notes,
    link: &mut Link,
    from: &str,
    to: [&str; 2],
) -> Result<Infallible, Failure> {
    link.subscribe(from).await?;
    let mut held = VecDeque::new();
    loop {
        let wanted = notes.rng.random_range(1..5);
        while held.len() < wanted {
            match link.next_soon().await? {
                Some(message) => held.push_back(take(notes, from, &message)?),
                None if held.is_empty() => {}
                None => break,
            }
        }
        let tx = begin(notes, link).await?;
        let moved = held.len().min(wanted);
        for Held { id, ack } in held.iter().take(moved) {
            notes.ack(from, *id, Some(tx));
            let ack = OwnedFrame::new(Command::Ack).header("id", ack);
            link.send(&in_transaction(ack, tx)).await?;
        }
        for to in to.into_iter().cycle().take(notes.rng.random_range(1..4)) {
            let (_, body) = notes.publish(&[to], true, Some(tx));
            let frame = send(&format!("/amq/queue/{to}"), &body.octets, true);
            link.send(&in_transaction(frame, tx)).await?;
        }
        if end(notes, link, tx).await? {
            let receipt = receipt(notes, link, from, &mut held).await?;
            take_commit(notes, tx, &receipt)?;
            held.drain(..moved);
        }
    }
}
