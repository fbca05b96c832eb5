//! A peer that has logged in: everything that its session owns, and what each frame does with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::VirtualHost;
use broker_core::consumer::ConnectionId;
use broker_core::log::LogPosition;
use broker_core::name::{ExchangeName, QueueName};
use broker_core::queue::{Burial, Effects, Queue};
use hashbrown::{HashMap, HashSet};
use proto_stomp::{Command, Frame, FrameEnd, FrameWriter, Version};
use tokio::time::Instant;

use super::acknowledge::Settling;
use super::deliveries::Deliveries;
use super::error::StompError;
use super::publish::Batch;
use super::receipts::{Of, Receipts};
use super::routes::{Asking, Routes};
use super::session::Shared;
use super::subscribe::Subscribed;
use super::transaction::Transactions;
use crate::counters::{Protocol, ProtocolCounters};
use crate::node::{BLOCKED_ALLOWANCE, Identity, LogWait, Node};
use crate::outbox::Outlet;

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a frame leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    /// It is to be offered again, when the log has come to what it waits for.
    Later,
    /// DISCONNECT.
    Goodbye,
}

/// A SUBSCRIBE whose queue the log has yet to keep, and all later frames for it: its receipt is to come before its first
/// MESSAGE, and not before the queue is kept.
#[derive(Debug)]
pub(super) struct WaitingSubscribe {
    /// Where the log has to come. Receipts that wait before its own have to be given, too.
    pub(super) position: LogPosition,
    /// Its queue; `new` if it was made for it.
    pub(super) queue: Arc<Queue>,
    pub(super) new: bool,
    /// When the wait is over, whatever the disk does.
    pub(super) until: Instant,
    /// It is: the receipt alone waits on.
    pub(super) is_late: bool,
}

pub(super) struct Client {
    pub(super) node: Arc<Node>,
    pub(super) shared: Arc<Shared>,
    pub(super) id: ConnectionId,
    pub(super) identity: Identity,
    pub(super) vhost: Arc<VirtualHost>,
    pub(super) version: Version,
    protocol: Protocol,
    /// The value of the `session` header.
    pub(super) session: String,
    /// What is behind `/topic/…`.
    pub(super) topic_exchange: ExchangeName,
    pub(super) routes: Routes,
    /// Queues that this connection has declared: it does not declare them again.
    pub(super) declared: HashSet<QueueName>,
    /// Queues behind `/temp-queue/…`, by the whole destination.
    pub(super) temp_queues: Map<Box<[u8]>, QueueName>,
    /// By consumer tag.
    pub(super) subscriptions: Map<Box<[u8]>, Subscribed>,
    pub(super) transactions: Transactions,
    pub(super) receipts: Receipts,
    pub(super) subscribe_waiting: Option<WaitingSubscribe>,
    pub(super) settling: Settling,
    pub(super) effects: Effects,
    /// Octets that it has published while publishers are held; `None` when they are not, or it has not.
    pub(super) blocked: Option<usize>,
    log_wait: LogWait,
    /// Where the log has to come for all that was done so far: a receipt speaks of everything before it.
    pub(super) done_at: LogPosition,
    /// It has published to a queue whose consumers do not keep up, or the disk does not.
    pub(super) backlogged: bool,
}

/// What a login has found out.
pub(super) struct Login {
    pub(super) identity: Identity,
    pub(super) vhost: Arc<VirtualHost>,
    pub(super) version: Version,
    pub(super) session: String,
    pub(super) topic_exchange: ExchangeName,
}

/// How a version counts.
pub(super) const fn protocol(version: Version) -> Protocol {
    match version {
        Version::V1_0 => Protocol::Stomp1_0,
        Version::V1_1 => Protocol::Stomp1_1,
        Version::V1_2 => Protocol::Stomp1_2,
    }
}

impl Client {
    pub(super) fn new(node: Arc<Node>, shared: Arc<Shared>, login: Login) -> Self {
        let Login { identity, vhost, version, session, topic_exchange } = login;
        let protocol = protocol(version);
        shared.outlet.lock().deliveries.start(protocol, version, &session);
        Self {
            id: shared.id,
            node,
            shared,
            identity,
            vhost,
            version,
            protocol,
            session,
            topic_exchange,
            routes: Routes::default(),
            declared: HashSet::new(),
            temp_queues: Map::default(),
            subscriptions: Map::default(),
            transactions: Transactions::default(),
            receipts: Receipts::default(),
            subscribe_waiting: None,
            settling: Settling::default(),
            effects: Effects::default(),
            blocked: None,
            log_wait: LogWait::default(),
            done_at: LogPosition::START,
            backlogged: false,
        }
    }

    pub(super) fn outlet(&self) -> &Arc<Outlet<Deliveries>> {
        &self.shared.outlet
    }

    pub(super) fn asking(&self) -> Asking<'_> {
        Asking { node: &self.node, vhost: &self.vhost, identity: &self.identity }
    }

    pub(super) fn counters(&self) -> &ProtocolCounters {
        self.node.counters.of(self.protocol)
    }

    pub(super) fn frame_end(&self) -> FrameEnd {
        frame_end(&self.node)
    }

    /// Does what a frame asks for. SEND, ACK and NACK may only gather, until [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`StompError`]: the frame has done nothing.
    pub(super) fn on_frame(
        &mut self,
        command: Command,
        frame: &Frame<'_>,
        batch: &mut Batch,
    ) -> Result<Next, StompError> {
        let done = self.carry_out_frame(command, frame, batch);
        if done.is_err()
            && matches!(command, Command::Send | Command::Ack | Command::Nack)
            && let Some(transaction) = frame.headers.get("transaction")
        {
            // Without this frame it would be another than the client meant.
            self.drop_transaction(transaction);
        }
        done
    }

    fn carry_out_frame(
        &mut self,
        command: Command,
        frame: &Frame<'_>,
        batch: &mut Batch,
    ) -> Result<Next, StompError> {
        match command {
            Command::Send => {
                if self.settling.rejects() && frame.headers.get("receipt").is_some() {
                    // Its receipt speaks of what was rejected before it, and those of earlier messages do not.
                    self.flush(batch);
                }
                self.on_send(frame, batch)?;
                return Ok(Next::GoOn);
            }
            Command::Ack | Command::Nack => {
                self.on_acknowledge(command, frame)?;
                if let Some(receipt) = frame.headers.get("receipt") {
                    self.flush(batch);
                    self.receipt_when_done(receipt, Of::Other);
                }
                return Ok(Next::GoOn);
            }
            _ => self.flush(batch),
        }
        let receipt = frame.headers.get("receipt");
        match command {
            // The receipt comes before the first message, or after the commit: they see to it.
            Command::Subscribe => return self.on_subscribe(frame, receipt),
            Command::Commit => {
                self.on_commit(frame, receipt)?;
                return Ok(Next::GoOn);
            }
            // So does the farewell.
            Command::Disconnect => return Ok(Next::Goodbye),
            Command::Unsubscribe => self.on_unsubscribe(frame)?,
            Command::Begin => self.on_begin(frame)?,
            Command::Abort => self.on_abort(frame)?,
            Command::Connect | Command::Stomp => return Err(StompError::logged_in_already()),
            // A server's frames are no client's.
            Command::Connected | Command::Message | Command::Receipt | Command::Error => {
                return Err(StompError::unknown_command(command.as_str().as_bytes()));
            }
            Command::Send | Command::Ack | Command::Nack => {}
        }
        if let Some(receipt) = receipt {
            // Behind those that wait, and when what came before it is kept.
            self.receipt_when_done(receipt, Of::Other);
        }
        Ok(Next::GoOn)
    }

    /// Carries out what has gathered.
    pub(super) fn flush(&mut self, batch: &mut Batch) {
        self.flush_sends(batch);
        self.flush_settling();
    }

    // ---- receipts ----

    pub(super) fn write_receipt(&self, receipt: &[u8]) {
        let end = self.frame_end();
        write_receipt(self.outlet().lock().out.octets(), receipt, end);
    }

    /// Gives a receipt as soon as all that was done so far is durable.
    pub(super) fn receipt_when_done(&mut self, receipt: &[u8], of: Of) {
        let burial = self.take_burial();
        let is_kept = burial.is_none() && self.done_at <= self.node.broker.log.durable_up_to();
        if is_kept && self.receipts.is_empty() {
            self.write_receipt(receipt);
        } else {
            self.receipts.wait(self.done_at, burial, Some(receipt), of);
            self.release_receipts();
        }
    }

    /// Whether a receipt that was given now would pass others, or what was rejected and is still on its way to its next
    /// queue: the latter waits in the line of receipts from now on.
    pub(super) fn waits_for_receipts(&mut self) -> bool {
        if let Some(burial) = self.take_burial() {
            self.receipts.wait(self.done_at, Some(burial), None, Of::Other);
        }
        self.release_receipts();
        !self.receipts.is_empty()
    }

    /// What was rejected since the last receipt and is still on its way to its next queue; the session is woken when
    /// it has come there.
    pub(super) fn take_burial(&mut self) -> Option<Burial> {
        let burial = self.effects.take_burial(&*self.node.broker.log);
        self.done_at = self.done_at.max(std::mem::take(&mut self.effects.position));
        if let Some(burial) = &burial {
            // What is on its way may take longer than the connection lasts.
            let outlet = Arc::downgrade(self.outlet());
            burial.wake(move || {
                if let Some(outlet) = outlet.upgrade() {
                    outlet.wake();
                }
            });
        }
        burial
    }

    /// Gives the receipts that the log has come to.
    pub(super) fn release_receipts(&mut self) {
        if self.receipts.is_empty() {
            return;
        }
        let durable = self.log_wait.mark(&self.node, &self.shared);
        let end = self.frame_end();
        let mut state = self.shared.outlet.lock();
        let octets = state.out.octets();
        let log = &*self.node.broker.log;
        let write = |receipt: &[u8]| write_receipt(octets, receipt, end);
        let count = self.receipts.release(log, durable, write);
        drop(state);
        self.counters().confirmed.increment(count);
    }

    /// Whether frames wait behind a SUBSCRIBE.
    pub(super) fn waits(&self) -> bool {
        let Some(waiting) = &self.subscribe_waiting else { return false };
        let lags = || waiting.position > self.node.broker.log.durable_up_to();
        !waiting.is_late && (!self.receipts.is_empty() || lags())
    }

    /// Has the session woken when a SUBSCRIBE that waits may go on.
    fn watch_waiting(&mut self) {
        // Receipts before its own have a look at the mark for themselves.
        if let Some(waiting) = &self.subscribe_waiting
            && self.receipts.is_empty()
            && waiting.position <= self.log_wait.mark(&self.node, &self.shared)
        {
            // It has moved between the last look and this one.
            self.outlet().wake();
        }
    }

    /// Why receipts wait in vain, if they do: the log will not have what they speak of, or the disk takes too long.
    pub(super) fn why_in_vain(&self) -> Option<StompError> {
        if (!self.receipts.is_empty() || self.waits()) && self.node.is_log_lost() {
            return Some(StompError::log_lost());
        }
        self.receipts.is_late().then(StompError::buried_too_late)
    }

    // ---- between frames ----

    /// Looks at what has changed elsewhere.
    pub(super) fn look(&mut self) {
        let mut resumable = Vec::new();
        let low = self.node.settings.limits.outbox_low.as_usize();
        let cancelled = {
            let mut state = self.shared.outlet.lock();
            if state.deliveries.has_cramped() && state.out.len() < low {
                state.deliveries.take_cramped(&mut resumable);
            }
            state.deliveries.take_cancelled()
        };
        if !resumable.is_empty() {
            self.resume(resumable);
        }
        for slot in cancelled {
            self.on_cancelled(slot);
        }
        self.release_receipts();
        self.watch_waiting();
        if self.blocked.is_some() && !self.node.alarms.any() {
            self.blocked = None;
            self.shared.set_state("running");
        }
    }

    /// Whether it has published too much while publishers are held.
    pub(super) fn is_held(&self) -> bool {
        self.blocked.is_some_and(|octets| octets > BLOCKED_ALLOWANCE)
    }

    /// What lists show of the session.
    pub(super) fn note_facts(&self) {
        // Relaxed: for lists.
        self.shared.unconfirmed.store(self.receipts.len() as u64, Ordering::Relaxed);
        self.shared.uncommitted.store(self.transactions.sends(), Ordering::Relaxed);
        self.shared.acks_uncommitted.store(self.transactions.settlements(), Ordering::Relaxed);
    }

    /// Does what a call into a queue has left to do.
    pub(super) fn carry_out(&mut self, queue: &Arc<Queue>, now: u64) {
        if !self.effects.is_empty() {
            self.effects.rejected.clear();
            self.vhost.carry_out(queue, &mut self.effects, now);
        }
        self.done_at = self.done_at.max(std::mem::take(&mut self.effects.position));
    }

    /// Frees everything that the session holds in the broker. May be called twice.
    pub(super) fn release(&mut self) {
        let now = self.node.clock.now();
        self.flush_settling();
        // First the consumers, so that nothing is on its way; then what they have not acknowledged.
        let slots = self.outlet().lock().deliveries.active();
        for slot in slots {
            self.cancel(slot, now);
        }
        if let Some(WaitingSubscribe { queue, new: true, .. }) = self.subscribe_waiting.take()
            && queue.spec.auto_delete
        {
            // It would have gone with its consumer, who has not come.
            self.undo_declare(&queue.spec.name);
        }
        self.subscriptions.clear();
        self.temp_queues.clear();
        self.transactions = Transactions::default();
        let unacked = self.outlet().lock().deliveries.take_all();
        for (queue, mut entries) in unacked {
            queue.requeue(&mut entries, now, &mut self.effects);
            self.carry_out(&queue, now);
        }
        self.vhost.connection_closed(self.id);
    }
}

/// Appends a RECEIPT.
pub(super) fn write_receipt(out: &mut Vec<u8>, receipt: &[u8], end: FrameEnd) {
    let mut frame = FrameWriter::begin(out, Command::Receipt);
    frame.header(b"receipt-id", receipt);
    frame.finish(b"", end);
}

pub(super) fn frame_end(node: &Node) -> FrameEnd {
    if node.settings.stomp.trailing_lf { FrameEnd::NulLf } else { FrameEnd::Nul }
}
