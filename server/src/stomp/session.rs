//! A STOMP connection from its first octet to its last: frames in, everything written to the outlet.
//!
//! A read is worked through whole. SEND, ACK and NACK gather; anything else, and the end of the read, carries out
//! what has gathered first, so that frames take effect in their order. Before login a peer has one frame
//! that means anything; the password is checked elsewhere, and until that is done nothing more is read.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker_core::access::{LoginError, User};
use broker_core::consumer::ConnectionId;
use parking_lot::Mutex;
use proto_stomp::{
    Command, Decoded, Decoder, Frame, HEART_BEAT, HeaderBlock, Limits, ParsedCommand, Version,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::client::{Client, Next, frame_end, protocol};
use super::deliveries::Deliveries;
use super::error::{StompError, Then};
use super::login::Greeting;
use super::publish::Batch;
use super::receipts::Of;
use crate::auth::Login;
use crate::driver::Want;
use crate::heartbeat::{Agreed, Heartbeats};
use crate::node::{BacklogPause, ChannelRow, Connection, ConnectionRow, Node, PendingLogin};
use crate::outbox::{self, Outlet, Writing};

/// How long a client that sends nothing more waits for its last receipts.
const LAST_RECEIPTS_WITHIN: Duration = Duration::from_secs(10);

/// The one channel that a session is in lists.
const CHANNEL: u16 = 1;

thread_local! {
    /// Lent to the session that is being fed; empty in between.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

#[derive(Default)]
struct Scratch {
    headers: HeaderBlock,
    batch: Batch,
}

/// What others may see of a connection and ask of it.
pub(super) struct Shared {
    pub(super) id: ConnectionId,
    pub(super) outlet: Arc<Outlet<Deliveries>>,
    peer: SocketAddr,
    host: SocketAddr,
    ssl: bool,
    /// Milliseconds since 1970.
    connected_at: u64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Receipts that wait for the log.
    pub(super) unconfirmed: AtomicU64,
    /// It has published.
    pub(super) publisher: AtomicBool,
    /// Messages in transactions.
    pub(super) uncommitted: AtomicU64,
    /// Acknowledgements in transactions.
    pub(super) acks_uncommitted: AtomicU64,
    facts: Mutex<Facts>,
}

/// What login decides.
struct Facts {
    version: Version,
    state: &'static str,
    user: String,
    vhost: String,
    heart_beat_secs: u64,
}

impl Shared {
    /// `peer -> host`, as RabbitMQ names connections.
    pub(super) fn name(&self) -> String {
        format!("{} -> {}", self.peer, self.host)
    }

    pub(super) fn channel_name(&self) -> String {
        format!("{} ({CHANNEL})", self.name())
    }

    pub(super) fn set_state(&self, state: &'static str) {
        self.facts.lock().state = state;
    }

    fn channel(&self) -> ChannelRow {
        let (unacked, consumers) = {
            let state = self.outlet.lock();
            (state.deliveries.unacked(), state.deliveries.active().len())
        };
        // Relaxed: for lists.
        ChannelRow {
            number: CHANNEL,
            publisher: self.publisher.load(Ordering::Relaxed),
            transactional: false,
            confirm: false,
            consumer_count: consumers as u64,
            messages_unacknowledged: unacked as u64,
            messages_unconfirmed: self.unconfirmed.load(Ordering::Relaxed),
            messages_uncommitted: self.uncommitted.load(Ordering::Relaxed),
            acks_uncommitted: self.acks_uncommitted.load(Ordering::Relaxed),
            prefetch_count: 0,
            global_prefetch_count: 0,
        }
    }
}

impl Connection for Shared {
    fn describe(&self) -> ConnectionRow {
        let channel = self.channel();
        let send_pend = self.outlet.lock().out.len() as u64;
        let facts = self.facts.lock();
        // Relaxed: for lists.
        ConnectionRow {
            id: self.id,
            name: self.name(),
            peer: self.peer,
            host: self.host,
            ssl: self.ssl,
            protocol: format!("STOMP {}", facts.version),
            user: facts.user.clone(),
            vhost: facts.vhost.clone(),
            state: facts.state,
            auth_mechanism: "STOMP login",
            timeout_secs: facts.heart_beat_secs,
            frame_max: 0,
            channel_max: CHANNEL,
            client_properties: Vec::new(),
            recv_oct: self.received.load(Ordering::Relaxed),
            send_oct: self.sent.load(Ordering::Relaxed),
            send_pend,
            connected_at: self.connected_at,
            channels: if facts.user.is_empty() { Vec::new() } else { vec![channel] },
        }
    }

    fn close(&self, reason: &str) {
        self.outlet.command(outbox::Command::Close { reason: reason.to_owned() });
    }

    fn wake(&self) {
        self.outlet.wake();
    }
}

/// Where a connection stands.
enum Phase {
    /// CONNECT is due.
    Stranger,
    /// The passcode is being checked.
    LoggingIn(Box<LoggingIn>),
    Open(Box<Client>),
    /// After DISCONNECT, or an ERROR that ends the session: nothing is heard any more, but receipts wait for the log.
    Leaving(Box<Leaving>),
    /// All is said: the socket closes when all is written.
    Finished,
    /// The socket closes at once.
    Aborted,
}

struct Leaving {
    client: Client,
    /// The ERROR frame that comes behind the receipts, if one does.
    last: Vec<u8>,
}

struct LoggingIn {
    greeting: Greeting,
    checked: oneshot::Receiver<Result<Arc<User>, LoginError>>,
}

/// A STOMP connection.
pub(crate) struct Session {
    node: Arc<Node>,
    shared: Arc<Shared>,
    decoder: Decoder,
    phase: Phase,
    /// When a login has to be done.
    login_ends: Option<Instant>,
    /// Until the client has logged in.
    pending_login: Option<PendingLogin>,
    heart_beats: Heartbeats,
    pause: BacklogPause,
    heard_anything: bool,
    /// The peer sends nothing more.
    has_ended: bool,
    /// Until when it gets the receipts that it still waits for.
    leaves_until: Option<Instant>,
}

impl Session {
    /// A connection that has just been accepted.
    pub(crate) fn new(node: Arc<Node>, peer: SocketAddr, host: SocketAddr, ssl: bool) -> Self {
        let id = node.broker.next_connection_id();
        let connected_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let shared = Arc::new(Shared {
            id,
            outlet: Arc::new(Outlet::new(Deliveries::new(Arc::clone(&node)))),
            peer,
            host,
            ssl,
            connected_at,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
            publisher: AtomicBool::new(false),
            uncommitted: AtomicU64::new(0),
            acks_uncommitted: AtomicU64::new(0),
            facts: Mutex::new(Facts {
                version: Version::V1_0,
                state: "starting",
                user: String::new(),
                vhost: String::new(),
                heart_beat_secs: 0,
            }),
        });
        let login_ends = Some(Instant::now() + node.settings.stomp.login_timeout.duration());
        node.connections.insert(id, Arc::clone(&shared) as Arc<_>);
        let stranger = Arc::clone(&shared);
        let pending_login = node.pending_logins.enter(peer, move |reason| stranger.close(reason));
        node.counters.connections_opened.increment(1);
        Self {
            node,
            shared,
            decoder: Decoder::new(Limits::before_login()),
            phase: Phase::Stranger,
            login_ends,
            pending_login: Some(pending_login),
            heart_beats: Heartbeats::default(),
            pause: BacklogPause::default(),
            heard_anything: false,
            has_ended: false,
            leaves_until: None,
        }
    }

    // ---- frames ----

    fn feed_frames(&mut self, input: &[u8], scratch: &mut Scratch) -> usize {
        let Scratch { headers, batch } = scratch;
        let mut taken = 0;
        while self.takes_frames() {
            let rest = input.get(taken..).unwrap_or_default();
            match self.decoder.decode(rest, headers) {
                Ok(Decoded::Incomplete) => break,
                Ok(Decoded::Noise { wire_len }) => taken += wire_len,
                Ok(Decoded::Frame { frame, wire_len }) => {
                    if self.on_frame(&frame, batch) == Taken::Yes {
                        taken += wire_len;
                    }
                }
                Err(error) => self.fail(&StompError::malformed(&error), None, batch),
            }
        }
        self.flush(batch);
        match self.phase {
            Phase::Stranger | Phase::LoggingIn(_) | Phase::Open(_) => taken,
            // Nobody listens any more.
            Phase::Leaving(_) | Phase::Finished | Phase::Aborted => input.len(),
        }
    }

    fn takes_frames(&self) -> bool {
        match &self.phase {
            Phase::Stranger => true,
            Phase::Open(client) => !client.waits(),
            _ => false,
        }
    }

    fn on_frame(&mut self, frame: &Frame<'_>, batch: &mut Batch) -> Taken {
        let receipt = || frame.headers.get("receipt");
        let Phase::Open(client) = &mut self.phase else {
            return self.on_strangers_frame(frame, batch);
        };
        let done = match frame.command {
            ParsedCommand::Known(command) => client.on_frame(command, frame, batch),
            ParsedCommand::Unknown(word) => Err(StompError::unknown_command(word)),
        };
        match done {
            Ok(Next::GoOn) => {}
            Ok(Next::Later) => return Taken::No,
            Ok(Next::Goodbye) => self.say_goodbye(receipt()),
            Err(error) => self.fail(&error, receipt(), batch),
        }
        Taken::Yes
    }

    fn on_strangers_frame(&mut self, frame: &Frame<'_>, batch: &mut Batch) -> Taken {
        let settings = &self.node.settings.stomp;
        let opens =
            matches!(frame.command, ParsedCommand::Known(Command::Connect | Command::Stomp));
        let greeting = if opens {
            Greeting::read(&frame.headers, settings)
        } else if settings.implicit_connect {
            Greeting::implicit(settings)
        } else {
            self.fail(&StompError::not_logged_in(), frame.headers.get("receipt"), batch);
            return Taken::Yes;
        };
        match greeting {
            Ok((greeting, passcode)) => self.start_login(greeting, &passcode, batch),
            Err(error) => self.fail(&error, None, batch),
        }
        // A frame that opens the session in place of a CONNECT is then the first of the session.
        if opens { Taken::Yes } else { Taken::No }
    }

    fn start_login(&mut self, greeting: Greeting, passcode: &[u8], batch: &mut Batch) {
        match greeting.log_in(&self.node, passcode, self.shared.peer.ip()) {
            Login::Now(checked) => self.on_login(&greeting, checked, batch),
            Login::Later(checked) => {
                self.phase = Phase::LoggingIn(Box::new(LoggingIn { greeting, checked }));
            }
        }
    }

    fn on_login(
        &mut self,
        greeting: &Greeting,
        checked: Result<Arc<User>, LoginError>,
        batch: &mut Batch,
    ) {
        let counters = self.node.counters.of(protocol(greeting.version));
        if checked.is_ok() {
            counters.auth_succeeded.increment(1);
        } else {
            counters.auth_failed.increment(1);
        }
        let login = match greeting.admit(&self.node, checked) {
            Ok(login) => login,
            Err(error) => {
                let user = String::from_utf8_lossy(&greeting.user);
                warn!(connection = %self.shared.name(), ?user, "login refused");
                self.fail(&error, None, batch);
                return;
            }
        };
        self.login_ends = None;
        self.pending_login = None;
        self.decoder.set_version(greeting.version);
        let message_len_max = self.node.settings.amqp.max_message_size.as_usize();
        self.decoder.set_limits(Limits::after_login(message_len_max));
        let agreed = greeting.heart_beat;
        let agreed = Agreed { outgoing: agreed.outgoing(), incoming: agreed.incoming() };
        self.heart_beats = Heartbeats::start(HEART_BEAT, agreed, Instant::now());
        {
            let mut facts = self.shared.facts.lock();
            facts.version = greeting.version;
            facts.state = "running";
            facts.user = login.identity.user.to_string();
            facts.vhost = login.identity.vhost.to_string();
            facts.heart_beat_secs = greeting.heart_beat.incoming().map_or(0, |beat| beat.as_secs());
        }
        greeting.welcome(&self.node, &login.session, self.shared.outlet.lock().out.octets());
        debug!(connection = %self.shared.name(), user = %login.identity.user, "logged in");
        self.node.counters.channels_opened.increment(1);
        let client = Client::new(Arc::clone(&self.node), Arc::clone(&self.shared), login);
        self.phase = Phase::Open(Box::new(client));
    }

    /// DISCONNECT: everything is freed, and the receipt says that everything before it is done.
    fn say_goodbye(&mut self, receipt: Option<&[u8]>) {
        let Phase::Open(mut client) = std::mem::replace(&mut self.phase, Phase::Finished) else {
            return;
        };
        self.release(&mut client);
        if let Some(receipt) = receipt {
            // Behind those that wait already, and so not before their messages are durable.
            client.receipt_when_done(receipt, Of::Other);
        }
        self.leave(Leaving { client: *client, last: Vec::new() });
    }

    /// Goes on giving receipts if there are some to be given, and then ends the session.
    fn leave(&mut self, mut leaving: Leaving) {
        leaving.client.release_receipts();
        if leaving.client.receipts.is_empty() {
            self.write(&leaving.last);
            self.phase = Phase::Finished;
        } else if let Some(error) = leaving.client.why_in_vain() {
            self.write(&self.encoded(&error, None));
            self.phase = Phase::Finished;
        } else {
            self.phase = Phase::Leaving(Box::new(leaving));
        }
    }

    fn go_on_leaving(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Leaving(leaving) => self.leave(*leaving),
            other => self.phase = other,
        }
    }

    /// Ends the session when receipts of it wait in vain.
    fn end_if_in_vain(&mut self) {
        if let Phase::Open(client) = &self.phase
            && let Some(error) = client.why_in_vain()
        {
            self.fail(&error, None, &mut Batch::default());
        }
    }

    fn write(&self, octets: &[u8]) {
        self.shared.outlet.lock().out.octets().extend_from_slice(octets);
    }

    fn encoded(&self, error: &StompError, receipt: Option<&[u8]>) -> Vec<u8> {
        let mut frame = Vec::new();
        error.write(receipt, &mut frame, frame_end(&self.node));
        frame
    }

    // ---- what goes wrong ----

    /// Sends an ERROR, after what came before it has been carried out, and closes if it is one of those. A stranger
    /// gets one at most.
    fn fail(&mut self, error: &StompError, receipt: Option<&[u8]>, batch: &mut Batch) {
        self.flush(batch);
        if error.then() == Then::Close || matches!(self.phase, Phase::Stranger) {
            info!(connection = %self.shared.name(), ?error, "closing a STOMP connection");
            self.end_with(error, receipt);
            return;
        }
        self.write(&self.encoded(error, receipt));
    }

    /// Ends the session with an ERROR. Before it stand the receipts of what is done: who hears nothing of a message
    /// sends it again.
    fn end_with(&mut self, error: &StompError, receipt: Option<&[u8]>) {
        let last = self.encoded(error, receipt);
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Open(mut client) => {
                // Before the ERROR, so that no MESSAGE follows it.
                self.release(&mut client);
                self.leave(Leaving { client: *client, last });
            }
            _ => self.write(&last),
        }
    }

    fn flush(&mut self, batch: &mut Batch) {
        if let Phase::Open(client) = &mut self.phase {
            client.flush(batch);
        }
    }

    fn finish(&mut self) {
        if let Phase::Open(mut client) = std::mem::replace(&mut self.phase, Phase::Finished) {
            self.release(&mut client);
        }
    }

    fn release(&self, client: &mut Client) {
        client.release();
        self.shared.set_state("closed");
        self.node.counters.channels_closed.increment(1);
    }

    /// Whether the peer is not read from at present: then its silence is our doing.
    fn is_held(&self) -> bool {
        let by_client = match &self.phase {
            Phase::Open(client) => client.is_held() || client.waits() || client.receipts.is_full(),
            _ => false,
        };
        let high = self.node.settings.limits.outbox_high.as_usize();
        by_client || self.pause.is_on() || self.shared.outlet.lock().out.len() > high
    }

    fn on_commands(&mut self, commands: Vec<outbox::Command>) {
        for outbox::Command::Close { reason } in commands {
            match &self.phase {
                Phase::Open(_) => {
                    info!(connection = %self.shared.name(), reason, "closing a STOMP connection");
                    self.end_with(&StompError::forced(&reason), None);
                }
                Phase::Finished | Phase::Leaving(_) => self.phase = Phase::Finished,
                Phase::Stranger | Phase::LoggingIn(_) | Phase::Aborted => {
                    self.phase = Phase::Aborted;
                }
            }
        }
    }
}

/// Whether a frame is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    /// It is to be offered again.
    No,
}

impl crate::driver::Session for Session {
    fn feed(&mut self, input: &[u8]) -> usize {
        self.heard_anything = true;
        self.heart_beats.received();
        let taken = SCRATCH.with_borrow_mut(|scratch| {
            // A session that panicked may have left something: it is nobody's, least of all ours.
            scratch.batch.abandon();
            self.feed_frames(input, scratch)
        });
        // Relaxed: for lists.
        self.shared.received.fetch_add(taken as u64, Ordering::Relaxed);
        if let Phase::Open(client) = &mut self.phase {
            client.note_facts();
            if std::mem::take(&mut client.backlogged) {
                self.pause.begin();
            }
        }
        taken
    }

    fn look(&mut self) {
        let commands = std::mem::take(&mut self.shared.outlet.lock().commands);
        match &mut self.phase {
            Phase::Open(client) => {
                client.look();
                client.note_facts();
                self.end_if_in_vain();
            }
            Phase::Leaving(_) => self.go_on_leaving(),
            _ => {}
        }
        self.on_commands(commands);
        self.pause.look(&*self.node.broker.log);
    }

    fn want(&self) -> Want {
        match self.phase {
            Phase::Finished => Want::Finish,
            Phase::Aborted => Want::Abort,
            Phase::LoggingIn(_) => Want::Pause,
            _ if self.has_ended || self.is_held() => Want::Pause,
            _ => Want::Read,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let (subscribe_until, receipts_until) = match &self.phase {
            Phase::Open(client) => (
                client.subscribe_waiting.as_ref().map(|waiting| waiting.until),
                client.receipts.waits_until(),
            ),
            Phase::Leaving(leaving) => (None, leaving.client.receipts.waits_until()),
            _ => (None, None),
        };
        let candidates = [
            self.login_ends,
            self.leaves_until,
            self.heart_beats.deadline(),
            self.pause.until(),
            subscribe_until,
            receipts_until,
        ];
        candidates.into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Instant) {
        if self.leaves_until.is_some_and(|at| at <= now) {
            self.leaves_until = None;
            self.finish();
            self.phase = Phase::Finished;
            return;
        }
        if self.login_ends.is_some_and(|at| at <= now) {
            warn!(connection = %self.shared.name(), "nobody has logged in in time");
            self.login_ends = None;
            self.phase = Phase::Aborted;
            return;
        }
        if self.is_held() || self.has_ended {
            // It is not read from: its silence means nothing.
            self.heart_beats.received();
        }
        match &mut self.phase {
            Phase::Open(client) => {
                if let Some(waiting) =
                    client.subscribe_waiting.as_mut().filter(|waiting| waiting.until <= now)
                {
                    waiting.is_late = true;
                }
                client.receipts.on_deadline(now, self.node.broker.log.health());
                self.end_if_in_vain();
            }
            Phase::Leaving(leaving) => {
                let health = self.node.broker.log.health();
                leaving.client.receipts.on_deadline(now, health);
                self.go_on_leaving();
            }
            _ => {}
        }
        let due = self.heart_beats.look(now);
        if due.send {
            self.heart_beats.send(&mut self.shared.outlet.lock().out);
        }
        if let Some(silent) = due.lost {
            let connection = self.shared.name();
            warn!(connection, ?silent, "missed heart-beats from the client, closing");
            self.finish();
            self.phase = Phase::Aborted;
        }
    }

    fn on_written(&mut self, count: usize) {
        self.heart_beats.written(count);
        // Relaxed: for lists.
        self.shared.sent.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn on_end(&mut self) {
        self.has_ended = true;
        self.leaves_until = Some(Instant::now() + LAST_RECEIPTS_WITHIN);
        match self.phase {
            Phase::Open(_) => {
                info!(connection = %self.shared.name(), "the client closed the socket without a word");
                self.say_goodbye(None);
            }
            Phase::Leaving(_) => {}
            _ => self.phase = Phase::Finished,
        }
    }

    fn on_closed(&mut self, error: Option<&std::io::Error>) {
        // First the consumers are cancelled; only then is nothing taken any more.
        self.finish();
        self.shared.outlet.lock().closed = true;
        self.pending_login = None;
        self.node.connections.remove(self.shared.id);
        self.node.counters.connections_closed.increment(1);
        let connection = self.shared.name();
        if !self.heard_anything {
            self.node.counters.probes.increment(1);
            debug!(connection, "a connection without a single octet");
        } else if let Some(error) = error {
            info!(connection, %error, "connection lost");
        }
    }

    fn refill(&mut self, writing: &mut Writing) -> bool {
        if !writing.is_empty() {
            return true;
        }
        writing.refill(&mut self.shared.outlet.lock().out)
    }

    fn register(&self, waker: &Waker) {
        self.shared.outlet.register(waker);
    }

    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Phase::Open(client) = &self.phase {
            let goes_on = client.subscribe_waiting.is_some() && !client.waits();
            return if goes_on { Poll::Ready(()) } else { Poll::Pending };
        }
        let Phase::LoggingIn(waiting) = &mut self.phase else { return Poll::Pending };
        let Poll::Ready(checked) = Pin::new(&mut waiting.checked).poll(cx) else {
            return Poll::Pending;
        };
        let Phase::LoggingIn(waiting) = std::mem::replace(&mut self.phase, Phase::Stranger) else {
            return Poll::Pending;
        };
        let checked = checked.unwrap_or(Err(LoginError::Credentials));
        // Nothing has gathered before login.
        self.on_login(&waiting.greeting, checked, &mut Batch::default());
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
