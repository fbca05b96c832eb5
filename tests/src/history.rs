//! Histories: what clients of a broker did and saw through all its crashes, and whether that can be.
//!
//! The one idea: clients write down what they send *before* they send it and what they receive *after* they
//! have received it, each in a file of its own ([`Journals`]); when everything is over [`check`] reads all files
//! together ([`History`]) and names whatever no correct broker can have done, with the events that show it. The
//! checker sees only what clients see, so that it holds for any broker. It does not know when an event happened
//! inside of the broker, and where that matters it judges for the broker.
//!
//! # Words
//!
//! A *life* is a run of the broker's process; lives are counted from 1. An event belongs to the life that its
//! client was connected to, and events are put in order by (life, order of writing down), because a client may
//! read the last octets of a dead broker when others talk to the next one already. A *copy* is a message in one
//! of the queues that it was published to: a message through a fan-out exchange to three queues has three. An ack
//! or a publish inside of a transaction counts once its commit was sent. A message is *confirmed* by an AMQP
//! confirm, a STOMP receipt for its SEND, or the answer to the commit of its transaction.
//!
//! # Rules
//!
//! | verdict | what must not be |
//! |---|---|
//! | [lost](Verdict::Lost) | a copy of a confirmed persistent message for which nobody ever sent an ack, the final drain included. Having been delivered is not enough: without an ack it must come again. |
//! | [phantom](Verdict::Phantom) | a delivery of a message that nobody published, that was not published to this queue, or whose transaction was never asked to commit |
//! | [corrupt](Verdict::Corrupt) | a delivered body that is not the octets that were published |
//! | [silent duplicate](Verdict::SilentDuplicate) | a second delivery of a copy, to whomever, without the redelivered flag. The flag on a first delivery is allowed: a broker cannot always know. |
//! | [resurrected](Verdict::Resurrected) | a delivery of a copy whose ack was known to be kept (see below) |
//! | [order](Verdict::Order) | for one producer in one queue: deliveries without the flag that do not ascend for a consumer within a life, or that fall behind what a former life had delivered |
//! | [confirm honesty](Verdict::ConfirmHonesty) | a confirm for what was not published, a second answer to the same publish, an answer to a commit that nobody sent |
//! | [split transaction](Verdict::SplitTransaction) | a transaction of which some parts certainly happened and others certainly did not: publishes that are there and publishes that are gone, or acks that were undone beside publishes that are there, and the other way round |
//! | [undrained](Verdict::Undrained) | a queue that was published to and that no drain has found empty at the end: the history cannot show that nothing is lost |
//!
//! **When an ack is known to be kept.** (1) At once and for ever: a STOMP receipt for the ACK, or the answer to the
//! commit of its transaction. (2) For the rest of the life: the broker has [answered](Event::Answered)
//! something that the client sent after the ack, so that it has taken the ack from the socket. (3) For ever: (2), and the
//! life ended in order; or (2), and later than [`ACK_DELAY`] plus [`ACK_MARGIN`] after that answer somebody
//! sent a persistent publish or a commit that was confirmed in the same life. The broker promises to write acks
//! within that delay; the confirm shows that its disk did not stand still meanwhile. Nothing else is held against the
//! broker: an ack that a crash overtakes may be undone.
//!
//! **When a flag may be missing.** The broker notes in its log how far it has delivered a queue, ahead of the
//! deliveries, not each of them. What a life has delivered of a queue is *noted* when a persistent publish or commit that was
//! sent after the first of those deliveries was confirmed in that life (the note was in the log before it), or when the life
//! ended in order. What a life has delivered that ended too soon for that, a moment after its first delivery, may
//! come again in a later life without the flag; it is counted as an *unnoted repeat* in the statistics. Within a life there is
//! no such excuse.
//!
//! **When a part of a transaction certainly happened.** A publish: the copy was delivered in a later life than that of
//! the commit. It certainly did not happen when the copy was neither delivered in a later life nor acked by anybody. (In
//! the life of the commit itself a copy may be delivered before it is on disk, and go down with the broker.)
//! An ack certainly happened when it is the only one for a confirmed persistent copy that was not delivered in a later life;
//! it certainly did not when the copy was delivered in a later life. Everything between proves nothing.
//!
//! Not judged: what becomes of transient messages when a life ends, of messages that were never confirmed, and of
//! refused ones (one of several queues may have taken them).
//!
//! All rules are scans of the events and look-ups in tables after one sort: O(n log n).

mod body;
mod event;
mod facts;
mod journal;
mod report;
mod rules;

pub use body::{Body, read_body};
pub use event::{Entry, Event, History, MessageId, TransactionId};
pub use journal::{Journal, Journals, Unreadable};
pub use report::{Finding, Report, Statistics, Verdict};
pub use rules::check;

use std::time::Duration;

/// How long the broker may keep an ack to itself before it writes it down.
pub const ACK_DELAY: Duration = Duration::from_millis(20);

/// What is added to [`ACK_DELAY`] for the thread that waits that long on a busy machine.
pub const ACK_MARGIN: Duration = Duration::from_millis(80);
