//! What a client does for a living, and how it lives through the ends of its brokers.

use tokio::sync::watch::Receiver;
use tokio::time::{Duration, sleep};

use super::notes::{Failure, Life, Notes};
use super::{amqp, stomp};

/// How long a client may take to notice that its broker is gone, counted from when the next one is there.
const NOTICE_MAX: Duration = Duration::from_secs(10);

/// What a client does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    /// Publishes with confirms, many at a time; one in ten is transient.
    AmqpProducer { exchange: &'static str, key: &'static str, queues: &'static [&'static str] },
    /// Acks by hand, one by one or several at once, and gives some back.
    AmqpConsumer { queue: &'static str },
    /// Takes some and publishes others, in one transaction each time; gives some transactions up.
    AmqpMover { from: &'static str, to: [&'static str; 2] },
    /// Sends with receipts, many at a time.
    StompProducer { destination: &'static str, queues: &'static [&'static str] },
    /// Sends to two destinations in transactions, and aborts some.
    StompCommitter { destinations: [(&'static str, &'static [&'static str]); 2] },
    /// Acks each by itself, some with receipts, and gives some back.
    StompConsumer { queue: &'static str },
    /// As [`AmqpMover`](Self::AmqpMover), with BEGIN and COMMIT.
    StompMover { from: &'static str, to: [&'static str; 2] },
}

impl Role {
    /// A name for the journal.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::AmqpProducer { key: "", exchange: to, .. }
            | Self::AmqpProducer { key: to, .. } => format!("amqp-producer-{to}"),
            Self::AmqpConsumer { queue } => format!("amqp-consumer-{queue}"),
            Self::AmqpMover { from, .. } => format!("amqp-mover-{from}"),
            Self::StompProducer { queues: [to, ..], .. } => format!("stomp-producer-{to}"),
            Self::StompProducer { .. } => "stomp-producer".to_owned(),
            Self::StompCommitter { .. } => "stomp-committer".to_owned(),
            Self::StompConsumer { queue } => format!("stomp-consumer-{queue}"),
            Self::StompMover { from, .. } => format!("stomp-mover-{from}"),
        }
    }

    /// Works until the connection fails.
    async fn work(&self, notes: &mut Notes, life: Life) -> Failure {
        let worked = match *self {
            Self::AmqpProducer { exchange, key, queues } => {
                amqp::produce(notes, life.at.amqp, exchange, key, queues).await
            }
            Self::AmqpConsumer { queue } => amqp::consume(notes, life.at.amqp, queue).await,
            Self::AmqpMover { from, to } => amqp::move_on(notes, life.at.amqp, from, to).await,
            Self::StompProducer { destination, queues } => {
                stomp::produce(notes, life.at.stomp, destination, queues).await
            }
            Self::StompCommitter { destinations } => {
                stomp::commit(notes, life.at.stomp, destinations).await
            }
            Self::StompConsumer { queue } => stomp::consume(notes, life.at.stomp, queue).await,
            Self::StompMover { from, to } => stomp::move_on(notes, life.at.stomp, from, to).await,
        };
        match worked {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    /// Works in one life after the other, until there is none to come.
    ///
    /// # Panics
    /// When the connection fails though the broker lives, or does not though the broker is dead.
    pub(crate) async fn live(self, mut notes: Notes, mut stage: Receiver<Stage>) {
        let mut last = 0;
        loop {
            let next = stage.wait_for(|stage| stage.is_behind(last)).await;
            let life = match *next.expect("the supervisor says when all is over") {
                Stage::Running(life) => life,
                Stage::Waiting | Stage::Over => return,
            };
            last = life.number;
            notes.begin(life.number);
            let overdue = async {
                // Fails only when the supervisor has gone, and that is late enough too.
                stage.wait_for(|stage| stage.is_behind(last)).await.ok();
                sleep(NOTICE_MAX).await;
            };
            let failure = tokio::select! {
                failure = self.work(&mut notes, life) => failure,
                () = overdue => panic!("{} does not notice that life {last} is over", notes.name),
            };
            assert!(
                notes.shared.is_doomed(last),
                "{} in life {last}, which goes on: {failure}",
                notes.name
            );
        }
    }
}

/// How far the supervisor has come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// There is no broker yet.
    Waiting,
    /// A broker is ready.
    Running(Life),
    /// There will be no other broker.
    Over,
}

impl Stage {
    /// Whether there is something to do, or to leave, for who was there in life `last`.
    const fn is_behind(&self, last: u32) -> bool {
        match self {
            Self::Waiting => false,
            Self::Running(life) => life.number > last,
            Self::Over => true,
        }
    }
}
