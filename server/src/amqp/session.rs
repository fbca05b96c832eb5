//! The state of an AMQP connection, and what its task asks of it.
//!
//! A read is worked through whole. Publishes that go the same way gather in a run and settlements beside them;
//! anything else flushes both first, so that a channel's methods take effect in their order. What a method does
//! wrong closes its channel or the connection, and everything else goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker_core::VirtualHost;
use broker_core::access::{LoginError, User};
use broker_core::consumer::ConnectionId;
use broker_core::log::LogPosition;
use broker_core::queue::Effects;
use hashbrown::HashMap;
use parking_lot::Mutex;
use proto_amqp::control::protocol::AMQPClass;
use proto_amqp::frame::HEARTBEAT_FRAME;
use proto_amqp::handshake::Capabilities;
use proto_amqp::{ChannelId, MethodId, ReplyCode, Version, control};
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::batch::{Batch, Scratch};
use super::channel::Channel;
use super::deliveries::Deliveries;
use super::error::Exception;
use super::listing::{Shared, SharedFacts, connection_name};
use super::replies::WaitingReply;
use crate::driver::Want;
use crate::heartbeat::{Agreed, Heartbeats};
use crate::node::{BacklogPause, Connection as _, Identity, LogWait, Node, PendingLogin};
use crate::outbox::{Command, Outlet, Writing};

/// Largest frame before `connection.open-ok`.
const HANDSHAKE_FRAME_MAX: u32 = 8192;

/// How long a peer that broke the handshake is kept waiting, so that guessing is slow.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Where a connection stands (AMQP 0-9-1 §2.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The protocol header is due.
    Header,
    /// `start-ok` is due.
    Starting,
    /// The password is being checked.
    Authenticating,
    /// `tune-ok` is due.
    Tuning,
    /// `open` is due.
    Opening,
    Running,
    /// We sent `close` and wait for `close-ok`.
    Closing,
    /// The peer broke the handshake or the framing: nothing is said or heard until the deadline.
    Silent,
    /// All is said: the socket closes when all is written.
    Finished,
    /// The socket closes at once.
    Aborted,
}

impl Phase {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Header | Self::Starting => "starting",
            Self::Authenticating => "securing",
            Self::Tuning => "tuning",
            Self::Opening => "opening",
            Self::Running => "running",
            Self::Closing => "closing",
            Self::Silent | Self::Finished | Self::Aborted => "closed",
        }
    }
}

/// An AMQP connection.
pub(crate) struct Session {
    pub(super) node: Arc<Node>,
    pub(super) id: ConnectionId,
    pub(super) name: String,
    pub(super) outlet: Arc<Outlet<Deliveries>>,
    pub(super) shared: Arc<Shared>,
    pub(super) phase: Phase,
    pub(super) version: Version,
    /// Largest frame that the peer may send now.
    pub(super) frame_max: u32,
    /// Channels that may be open; 0 is no limit.
    pub(super) channel_max: u16,
    pub(super) capabilities: Capabilities,
    pub(super) login: Option<oneshot::Receiver<Result<Arc<User>, LoginError>>>,
    /// Until the client has logged in.
    pending_login: Option<PendingLogin>,
    pub(super) identity: Option<Identity>,
    pub(super) vhost: Option<Arc<VirtualHost>>,
    pub(super) channels: HashMap<u16, Channel, foldhash::fast::RandomState>,
    /// When the present phase ends by itself.
    pub(super) phase_ends: Option<Instant>,
    pub(super) heartbeats: Heartbeats,
    /// Publishers are held and this one was told; octets that it published since.
    pub(super) blocked: Option<usize>,
    pub(super) pause: BacklogPause,
    /// Channels with publishes that wait for the log.
    pub(super) confirms_waiting: SmallVec<[u16; 4]>,
    pub(super) log_wait: LogWait,
    /// Something was answered since the read began.
    pub(super) answered: bool,
    /// Input was left: there was no room for its answers, or it waits behind a reply.
    pub(super) stalled: bool,
    /// A reply that waits for the log, and all later frames for it.
    pub(super) reply_waiting: Option<WaitingReply>,
    /// Commits that wait for the log.
    pub(super) commits_waiting: Vec<(LogPosition, ChannelId)>,
    pub(super) batch: Batch,
    pub(super) effects: Effects,
    pub(super) scratch: Scratch,
    pub(super) heard_anything: bool,
}

/// Appends a method frame. What we send is made of checked parts, so that it can always be encoded.
pub(super) fn encode(id: ChannelId, class: &AMQPClass, version: Version, out: &mut Vec<u8>) {
    if let Err(error) = control::encode(id, class, version, out) {
        warn!(%error, "a method of ours could not be encoded");
    }
}

impl Session {
    /// A connection that has just been accepted.
    pub(crate) fn new(node: Arc<Node>, peer: SocketAddr, host: SocketAddr, ssl: bool) -> Self {
        let id = node.broker.next_connection_id();
        let outlet = Arc::new(Outlet::new(Deliveries::new(Arc::clone(&node), HANDSHAKE_FRAME_MAX)));
        let connected_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let shared = Arc::new(Shared {
            id,
            outlet: Arc::clone(&outlet),
            peer,
            host,
            ssl,
            connected_at,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            facts: Mutex::new(SharedFacts {
                version: Version::V0_9_1,
                state: Phase::Header.word(),
                user: String::new(),
                vhost: String::new(),
                mechanism: "",
                heartbeat_secs: 0,
                frame_max: HANDSHAKE_FRAME_MAX,
                channel_max: 0,
                client_properties: Vec::new(),
                channels: HashMap::new(),
            }),
        });
        let phase_ends = Some(Instant::now() + node.settings.amqp.handshake_timeout.duration());
        let name = connection_name(peer, host);
        node.connections.insert(id, Arc::clone(&shared) as Arc<_>);
        let stranger = Arc::clone(&shared);
        let pending_login = node.pending_logins.enter(peer, move |reason| stranger.close(reason));
        node.counters.connections_opened.increment(1);
        Self {
            id,
            name,
            outlet,
            shared,
            phase: Phase::Header,
            version: Version::V0_9_1,
            frame_max: HANDSHAKE_FRAME_MAX,
            channel_max: 0,
            capabilities: Capabilities::default(),
            login: None,
            pending_login: Some(pending_login),
            identity: None,
            vhost: None,
            channels: HashMap::default(),
            phase_ends,
            heartbeats: Heartbeats::default(),
            blocked: None,
            pause: BacklogPause::default(),
            confirms_waiting: SmallVec::new(),
            answered: false,
            stalled: false,
            reply_waiting: None,
            log_wait: LogWait::default(),
            commits_waiting: Vec::new(),
            batch: Batch::default(),
            effects: Effects::default(),
            scratch: Scratch::default(),
            heard_anything: false,
            node,
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        if phase == Phase::Tuning {
            // That comes after the login.
            self.pending_login = None;
        }
        self.phase = phase;
        self.shared.facts.lock().state = phase.word();
    }

    /// What lists show of the connection from now on.
    pub(super) fn note_login(
        &self,
        user: &str,
        mechanism: &'static str,
        client_properties: Vec<(String, String)>,
    ) {
        let mut facts = self.shared.facts.lock();
        user.clone_into(&mut facts.user);
        facts.mechanism = mechanism;
        facts.client_properties = client_properties;
    }

    /// The mechanism that the client logged in with.
    pub(super) fn mechanism(&self) -> &'static str {
        self.shared.facts.lock().mechanism
    }

    pub(super) fn note_vhost(&self, vhost: &str) {
        vhost.clone_into(&mut self.shared.facts.lock().vhost);
    }

    /// The peer has agreed to these limits.
    pub(super) fn tuned(&mut self, channel_max: u16, frame_max: u32, heartbeat_secs: u16) {
        self.channel_max = channel_max;
        self.outlet.lock().deliveries.frame_max = frame_max;
        // The same in both directions; 0 is none.
        let interval = (heartbeat_secs > 0).then(|| Duration::from_secs(heartbeat_secs.into()));
        let agreed = Agreed { outgoing: interval, incoming: interval };
        self.heartbeats = Heartbeats::start(&HEARTBEAT_FRAME, agreed, Instant::now());
        let mut facts = self.shared.facts.lock();
        facts.channel_max = channel_max;
        facts.frame_max = frame_max;
        facts.heartbeat_secs = heartbeat_secs.into();
    }

    /// From `open-ok` on the peer may send what was agreed.
    pub(super) fn opened(&mut self) {
        self.frame_max = self.shared.facts.lock().frame_max;
        self.phase_ends = None;
        self.set_phase(Phase::Running);
    }

    /// Writes a method to the peer.
    pub(super) fn send(&self, id: ChannelId, class: AMQPClass) {
        encode(id, &class, self.version, self.outlet.lock().out.octets());
    }

    /// The peer broke the handshake: it is kept waiting and then dropped, without a word.
    pub(super) fn fall_silent(&mut self, why: &str) {
        warn!(connection = %self.name, why, "closing an AMQP connection during its handshake");
        self.set_phase(Phase::Silent);
        self.phase_ends = Some(Instant::now() + SILENCE);
    }
}

impl crate::driver::Session for Session {
    fn feed(&mut self, input: &[u8]) -> usize {
        self.heard_anything = true;
        self.heartbeats.received();
        let mut taken = 0;
        if self.phase == Phase::Header {
            taken = self.feed_header(input);
        }
        if self.phase != Phase::Header {
            taken += self.feed_frames(input.get(taken..).unwrap_or_default());
        }
        // Relaxed: for lists.
        self.shared.received.fetch_add(taken as u64, Ordering::Relaxed);
        if self.transactions_full() {
            let text = "the transactions of this connection hold too many octets";
            let exception = Exception::new(ReplyCode::RESOURCE_ERROR, text, MethodId::NONE);
            self.close_connection(&exception);
        }
        taken
    }

    fn look(&mut self) {
        let mut resumable = std::mem::take(&mut self.scratch.resumable);
        let (commands, cancelled) = {
            let mut guard = self.outlet.lock();
            let state = &mut *guard;
            let low = self.node.settings.limits.outbox_low.as_usize();
            if state.deliveries.has_cramped() && state.out.len() < low {
                state.deliveries.take_cramped(&mut resumable);
            }
            (std::mem::take(&mut state.commands), state.deliveries.take_cancelled())
        };
        if !resumable.is_empty() {
            let now = self.node.clock.now();
            self.resume(&mut resumable, now);
        }
        self.scratch.resumable = resumable;
        for Command::Close { reason } in commands {
            if matches!(self.phase, Phase::Running | Phase::Opening | Phase::Tuning) {
                let method = MethodId::NONE;
                let exception = Exception::new(ReplyCode::CONNECTION_FORCED, reason, method);
                self.close_connection(&exception);
            } else if self.phase != Phase::Closing {
                self.set_phase(Phase::Aborted);
            }
        }
        if !cancelled.is_empty() {
            self.notify_cancelled(cancelled);
        }
        // The mark is read first: what came before the reply is answered before it.
        let due = self.is_reply_due();
        self.confirm_what_is_durable();
        self.answer_commits();
        self.answer_waiting(due);
        self.unblock_if_over();
        self.pause.look(&*self.node.broker.log);
    }

    fn want(&self) -> Want {
        match self.phase {
            Phase::Finished => Want::Finish,
            Phase::Aborted => Want::Abort,
            Phase::Authenticating => Want::Pause,
            _ if self.is_held() => Want::Pause,
            _ => Want::Read,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let candidates =
            [self.phase_ends, self.heartbeats.deadline(), self.pause.until(), self.reply_until()];
        candidates.into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Instant) {
        if self.phase_ends.is_some_and(|at| at <= now) {
            self.phase_ends = None;
            if self.phase != Phase::Silent && self.phase != Phase::Closing {
                warn!(connection = %self.name, phase = self.phase.word(), "handshake timeout");
            }
            self.set_phase(Phase::Aborted);
            return;
        }
        self.on_heartbeat_tick(now);
        if self.reply_until().is_some_and(|at| at <= now) {
            self.on_reply_late();
        }
    }

    fn on_written(&mut self, count: usize) {
        self.heartbeats.written(count);
        // Relaxed: for lists.
        self.shared.sent.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn on_end(&mut self) {
        if self.phase == Phase::Running {
            info!(connection = %self.name, "the client closed the socket without a word");
        }
        // Now, and not when the last octets are out: what it has not acknowledged goes to others.
        self.release();
        self.set_phase(Phase::Finished);
    }

    fn on_closed(&mut self, error: Option<&std::io::Error>) {
        // Out of the queues first: as long as they know its consumers, they may deliver.
        self.release();
        self.outlet.lock().closed = true;
        self.pending_login = None;
        self.node.connections.remove(self.id);
        self.node.counters.connections_closed.increment(1);
        if !self.heard_anything {
            self.node.counters.probes.increment(1);
            debug!(connection = %self.name, "a connection without a single octet");
        } else if let Some(error) = error {
            info!(connection = %self.name, %error, "connection lost");
        }
    }

    fn refill(&mut self, writing: &mut Writing) -> bool {
        if !writing.is_empty() {
            return true;
        }
        writing.refill(&mut self.outlet.lock().out)
    }

    fn register(&self, waker: &Waker) {
        self.outlet.register(waker);
    }

    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stalled && self.has_room() && self.reply_waiting.is_none() {
            self.stalled = false;
            return Poll::Ready(());
        }
        let Some(login) = &mut self.login else { return Poll::Pending };
        match std::pin::Pin::new(login).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                self.login = None;
                self.on_login(result.unwrap_or(Err(LoginError::Credentials)));
                Poll::Ready(())
            }
        }
    }
}
