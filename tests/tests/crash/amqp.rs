//! The AMQP clients, on a foreign library.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    ExchangeKind, PublisherConfirm,
};
use rand::RngExt as _;
use tokio::time::{Duration, timeout};
use tokio_stream::StreamExt as _;
use warren_tests::history::{MessageId, TransactionId};

use super::notes::{Failure, Notes};

/// Unconfirmed publishes of a producer.
const WINDOW: usize = 64;

/// Unacked deliveries of a consumer. It never keeps so many, so that more always come.
const PREFETCH: u16 = 50;

/// How long a consumer waits for another delivery before it acks those that it has.
const IDLE: Duration = Duration::from_millis(20);

/// How long what has come with the end of a connection may take to be handed out.
const LEFT_OVER: Duration = Duration::from_millis(200);

/// Acks between two questions to which the broker has to say something.
const ACKS_PER_ANSWER: usize = 60;

/// A connection with a channel.
pub(crate) struct Link {
    _connection: Connection,
    pub(crate) channel: Channel,
}

impl Link {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let uri = format!("amqp://guest:guest@{address}/%2f?heartbeat=0");
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self { _connection: connection, channel })
    }

    /// Declares a durable queue, or finds it; gives how many messages are ready in it.
    pub(crate) async fn queue(&self, name: &str, passive: bool) -> Result<u32, Failure> {
        let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
        let declared = self.channel.queue_declare(name.into(), options, FieldTable::default());
        Ok(declared.await?.message_count())
    }

    /// Declares the exchange `fan` and binds a queue to it.
    pub(crate) async fn fan_out_to(&self, queue: &str) -> Result<(), Failure> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let (kind, nothing) = (ExchangeKind::Fanout, FieldTable::default);
        self.channel.exchange_declare("fan".into(), kind, options, nothing()).await?;
        let options = QueueBindOptions::default();
        let bound =
            self.channel.queue_bind(queue.into(), "fan".into(), "".into(), options, nothing());
        Ok(bound.await?)
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        persistent: bool,
    ) -> Result<PublisherConfirm, Failure> {
        let mode = if persistent { 2 } else { 1 };
        let properties = BasicProperties::default().with_delivery_mode(mode);
        let options = BasicPublishOptions::default();
        let sent =
            self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        Ok(sent.await?)
    }

    async fn consume(&self, queue: &str) -> Result<Consumer, Failure> {
        self.channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let (queue, tag) = (queue.into(), "".into());
        Ok(self.channel.basic_consume(queue, tag, options, FieldTable::default()).await?)
    }

    /// Asks something of no consequence: the answer comes behind all that was sent.
    async fn ask(&self) -> Result<(), Failure> {
        Ok(self.channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?)
    }

    async fn ack(&self, tag: u64, multiple: bool) -> Result<(), Failure> {
        Ok(self.channel.basic_ack(tag, BasicAckOptions { multiple }).await?)
    }

    async fn requeue(&self, tag: u64) -> Result<(), Failure> {
        let options = BasicNackOptions { requeue: true, multiple: false };
        Ok(self.channel.basic_nack(tag, options).await?)
    }
}

/// Publishes with confirms.
pub(crate) async fn produce(
    notes: &mut Notes,
    address: SocketAddr,
    exchange: &str,
    key: &str,
    queues: &[&str],
) -> Result<Infallible, Failure> {
    let link = Link::open(address).await?;
    link.channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut waiting = VecDeque::new();
    let failure = loop {
        notes.pause().await;
        let persistent = !notes.chance(10);
        let (id, body) = notes.publish(queues, persistent, None);
        match link.publish(exchange, key, &body.octets, persistent).await {
            Ok(confirm) => waiting.push_back((id, confirm)),
            Err(failure) => break failure,
        }
        if waiting.len() >= WINDOW {
            let half = waiting.drain(..WINDOW / 2).collect();
            if let Err(failure) = take_confirms(notes, half).await {
                break failure;
            }
        }
    };
    // Those that came with the last octets count as well.
    timeout(LEFT_OVER, take_confirms(notes, waiting)).await.ok();
    Err(failure)
}

/// Notes all confirms that have come; gives the first failure among them.
async fn take_confirms(
    notes: &mut Notes,
    waiting: VecDeque<(MessageId, PublisherConfirm)>,
) -> Result<(), Failure> {
    let mut result = Ok(());
    for (id, confirm) in waiting {
        match confirm.await {
            Ok(Confirmation::Ack(_)) => notes.confirmed(id),
            Ok(Confirmation::Nack(_)) => notes.refused(id),
            Ok(Confirmation::NotRequested) => panic!("confirms were asked for"),
            Err(error) => result = Err(error.into()),
        }
    }
    result
}

/// Notes a delivery; gives its tag with it.
fn take(notes: &mut Notes, queue: &str, delivery: &Delivery) -> Option<(u64, MessageId)> {
    let id = notes.delivered(queue, &delivery.data, delivery.redelivered)?;
    Some((delivery.delivery_tag, id))
}

/// The next delivery; `None` when none comes for a while.
async fn next(
    notes: &mut Notes,
    queue: &str,
    consumer: &mut Consumer,
) -> Result<Option<(u64, MessageId)>, Failure> {
    match timeout(IDLE, consumer.next()).await {
        Ok(Some(delivery)) => match take(notes, queue, &delivery?) {
            Some(taken) => Ok(Some(taken)),
            None => Err("a body is not whole".into()),
        },
        Ok(None) => Err("the consumer was cancelled".into()),
        Err(_) => Ok(None),
    }
}

/// Notes what came with the last octets of a connection.
async fn take_left_over(notes: &mut Notes, queue: &str, mut consumer: Consumer) {
    while let Ok(Some(Ok(delivery))) = timeout(LEFT_OVER, consumer.next()).await {
        take(notes, queue, &delivery);
    }
}

/// Consumes and acks.
pub(crate) async fn consume(
    notes: &mut Notes,
    address: SocketAddr,
    queue: &str,
) -> Result<Infallible, Failure> {
    let link = Link::open(address).await?;
    let mut consumer = link.consume(queue).await?;
    let worked = consume_from(notes, &link, queue, &mut consumer).await;
    take_left_over(notes, queue, consumer).await;
    worked
}

async fn consume_from(
    notes: &mut Notes,
    link: &Link,
    queue: &str,
    consumer: &mut Consumer,
) -> Result<Infallible, Failure> {
    let (mut held, mut wanted, mut acks) = (Vec::new(), 1, 0);
    loop {
        let taken = next(notes, queue, consumer).await?;
        let idle = taken.is_none();
        held.extend(taken);
        if held.len() >= wanted || idle {
            acks += held.len();
            settle(notes, link, queue, std::mem::take(&mut held)).await?;
            wanted = notes.rng.random_range(1..20);
        }
        if acks >= ACKS_PER_ANSWER || (idle && acks > 0) {
            link.ask().await?;
            notes.answered();
            acks = 0;
        }
    }
}

/// Acks deliveries in one way or another.
async fn settle(
    notes: &mut Notes,
    link: &Link,
    queue: &str,
    held: Vec<(u64, MessageId)>,
) -> Result<(), Failure> {
    if let Some((last, _)) = held.last()
        && notes.chance(3)
    {
        for (_, id) in &held {
            notes.ack(queue, *id, None);
        }
        return link.ack(*last, true).await;
    }
    for (tag, id) in held {
        if notes.chance(25) {
            notes.requeue(queue, id);
            link.requeue(tag).await?;
        } else {
            notes.ack(queue, id, None);
            link.ack(tag, false).await?;
        }
    }
    Ok(())
}

/// Takes messages from one queue and publishes others to two, in transactions.
pub(crate) async fn move_on(
    notes: &mut Notes,
    address: SocketAddr,
    from: &str,
    to: [&str; 2],
) -> Result<Infallible, Failure> {
    let link = Link::open(address).await?;
    link.channel.tx_select().await?;
    let mut consumer = link.consume(from).await?;
    let worked = move_from(notes, &link, from, to, &mut consumer).await;
    take_left_over(notes, from, consumer).await;
    worked
}

async fn move_from(
    notes: &mut Notes,
    link: &Link,
    from: &str,
    to: [&str; 2],
    consumer: &mut Consumer,
) -> Result<Infallible, Failure> {
    let mut held: Vec<(u64, MessageId)> = Vec::new();
    loop {
        let wanted = notes.rng.random_range(1..5);
        while held.len() < wanted {
            match next(notes, from, consumer).await? {
                Some(taken) => held.push(taken),
                None if held.is_empty() => {}
                None => break,
            }
        }
        let tx = notes.began();
        for (tag, id) in &held {
            notes.ack(from, *id, Some(tx));
            link.ack(*tag, false).await?;
        }
        for to in to.into_iter().cycle().take(notes.rng.random_range(1..4)) {
            let (_, body) = notes.publish(&[to], true, Some(tx));
            link.publish("", to, &body.octets, true).await?;
        }
        if end(notes, link, tx).await? {
            held.clear();
        }
    }
}

/// Commits, or rolls back now and then; gives which.
async fn end(notes: &mut Notes, link: &Link, tx: TransactionId) -> Result<bool, Failure> {
    if notes.chance(6) {
        notes.roll_back(tx);
        link.channel.tx_rollback().await?;
        return Ok(false);
    }
    notes.commit(tx);
    link.channel.tx_commit().await?;
    notes.committed(tx);
    Ok(true)
}

/// Takes everything that is in a queue.
pub(crate) async fn drain(notes: &mut Notes, link: &Link, queue: &str) -> Result<(), Failure> {
    let options = BasicGetOptions::default;
    while let Some(message) = link.channel.basic_get(queue.into(), options()).await? {
        let (tag, id) = take(notes, queue, &message.delivery).ok_or("a body is not whole")?;
        notes.ack(queue, id, None);
        link.ack(tag, false).await?;
    }
    notes.drained(queue);
    link.ask().await?;
    notes.answered();
    Ok(())
}
