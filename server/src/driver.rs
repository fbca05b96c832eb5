//! The task of a connection: one future that reads, lets the session work, writes, and waits.
//!
//! Reading borrows a buffer of the worker thread for the moment, so that an idle connection holds none; only an
//! incomplete frame stays behind. Everything that has arrived is handed to the [`Session`] at
//! once, and what it answers is written before more is read. Reading never waits for writing, except where the
//! session says so because the peer does not take its replies. All branches meet in one `poll`: the list of its
//! steps is the list of things that can happen to a connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::outbox::Writing;

/// Octets that one read takes.
const READ_LEN: usize = 128 * 1024;

/// An incomplete frame longer than this is read on in place instead of through the thread's buffer.
const CARRY_LEN_MAX: usize = 16 * 1024;

/// Reads after which a connection lets others go first.
const TURNS_MAX: usize = 16;

/// How long a peer that has been told everything may take to close its half.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a peer to which octets are left may take none of them.
const FAREWELL_PAUSE: Duration = Duration::from_secs(10);

/// How long the last octets may take to leave, whatever the peer takes.
const FAREWELL_MAX: Duration = Duration::from_secs(60);

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; CARRY_LEN_MAX + READ_LEN].into_boxed_slice());
}

/// What a session wants from its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// More octets.
    Read,
    /// No octets for now: until [`Session::look`] or a deadline changes that.
    Pause,
    /// The end, when all is written.
    Finish,
    /// The end, at once.
    Abort,
}

/// A protocol's state machine for one connection. Nothing in it waits.
pub(crate) trait Session {
    /// Takes whole frames from the front of `input` and gives the number of octets that it took.
    fn feed(&mut self, input: &[u8]) -> usize;

    /// Looks at what may have changed elsewhere: commands, credit, room in the outbox, the durable mark.
    fn look(&mut self);

    /// What it wants next.
    fn want(&self) -> Want;

    /// When it wants [`on_deadline`](Self::on_deadline), if ever.
    fn deadline(&self) -> Option<Instant>;

    /// The deadline has passed.
    fn on_deadline(&mut self, now: Instant);

    /// Octets were written to the peer.
    fn on_written(&mut self, count: usize);

    /// The peer sends nothing more; it may still read. Whatever it was promised is written, and then the connection
    /// ends: [`want`](Self::want) asks for nothing but that from now on.
    fn on_end(&mut self);

    /// The peer is gone, or the connection failed. Frees everything.
    fn on_closed(&mut self, error: Option<&std::io::Error>);

    /// Takes over what waits to be written; gives whether there is any.
    fn refill(&mut self, writing: &mut Writing) -> bool;

    /// From now on `waker` is the one that wakes the task.
    fn register(&self, waker: &Waker);

    /// A future that the session waits for in the background (a password check).
    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Runs a session over a stream until either ends.
pub(crate) struct Driver<S: Session, T> {
    session: S,
    stream: T,
    /// Octets that were read and are not yet a whole frame.
    carry: BytesMut,
    writing: Writing,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Only the last octets are still to be written.
    farewell: Option<Farewell>,
    /// The session has been told that it is over.
    closed: bool,
}

/// The end of a connection, while octets are left.
struct Farewell {
    /// The peer has to take some until then …
    pause_ends: Instant,
    /// … and all until then.
    ends: Instant,
}

/// What became of writing.
struct Flushed {
    /// Something was written.
    wrote: bool,
    /// The socket is full.
    blocked: bool,
}

enum Read {
    Some,
    End,
    Wait,
}

impl<S: Session + Unpin, T: AsyncRead + AsyncWrite + Unpin> Driver<S, T> {
    pub(crate) fn new(session: S, stream: T) -> Self {
        let carry = BytesMut::new();
        Self {
            session,
            stream,
            carry,
            writing: Writing::default(),
            sleep: None,
            farewell: None,
            closed: false,
        }
    }

    /// Runs to the end of the connection.
    pub(crate) async fn run(mut self) {
        let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.close(ended.as_ref().err());
        if ended.is_ok() {
            // Best effort: the peer may be gone already.
            tokio::time::timeout(FAREWELL, self.part()).await.ok();
        }
    }

    fn close(&mut self, error: Option<&std::io::Error>) {
        self.closed = true;
        self.session.on_closed(error);
    }

    /// Ends our half and drops what still comes: a socket that is closed with unread octets takes the last ones
    /// that were written back.
    async fn part(&mut self) {
        if tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await.is_err() {
            return;
        }
        std::future::poll_fn(|cx| {
            READ_BUFFER.with_borrow_mut(|buffer| {
                for _ in 0..TURNS_MAX {
                    let mut read = ReadBuf::new(buffer);
                    match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                    }
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.session.register(cx.waker());
        for _ in 0..TURNS_MAX {
            if self.session.poll_background(cx).is_ready() && !self.carry.is_empty() {
                self.feed_carry();
            }
            self.session.look();
            let flushed = self.poll_flush(cx)?;
            match self.session.want() {
                Want::Abort => return Poll::Ready(Ok(())),
                // Nothing more is read, but what is written should arrive, to the last octet.
                Want::Finish => {
                    let now = Instant::now();
                    let farewell = self.farewell.get_or_insert(Farewell {
                        pause_ends: now + FAREWELL_PAUSE,
                        ends: now + FAREWELL_MAX,
                    });
                    if flushed.wrote {
                        farewell.pause_ends = now + FAREWELL_PAUSE;
                        continue;
                    }
                    if !flushed.blocked {
                        return Poll::Ready(Ok(()));
                    }
                    let until = farewell.pause_ends.min(farewell.ends);
                    return self.poll_deadline(Some(until), cx).map(|()| Ok(()));
                }
                Want::Pause => {}
                Want::Read => match self.poll_read(cx)? {
                    Read::Some => continue,
                    Read::End => {
                        self.session.on_end();
                        continue;
                    }
                    Read::Wait => {}
                },
            }
            if flushed.wrote {
                // There is room again: somebody may be waiting for it.
                continue;
            }
            let deadline = self.session.deadline();
            if self.poll_deadline(deadline, cx).is_ready() {
                self.session.on_deadline(Instant::now());
                continue;
            }
            return Poll::Pending;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_deadline(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else {
            self.sleep = None;
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }

    /// Writes what there is to write.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> std::io::Result<Flushed> {
        let mut wrote = false;
        // Once a turn, however much comes in the meantime: what the peer has to say has its turn too.
        if self.session.refill(&mut self.writing) {
            match self.writing.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(count)) => {
                    wrote = true;
                    self.session.on_written(count);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Flushed { wrote, blocked: true }),
            }
        }
        // A TLS stream may hold octets back; a plain one has nothing to flush.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => Ok(Flushed { wrote, blocked: false }),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Flushed { wrote, blocked: true }),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> std::io::Result<Read> {
        if self.carry.len() > CARRY_LEN_MAX {
            return self.poll_read_on(cx);
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let carried = self.carry.len();
            let Some((front, room)) = buffer.split_at_mut_checked(carried) else {
                return Ok(Read::Wait);
            };
            let mut read = ReadBuf::new(room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => return Ok(Read::Wait),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) => {}
            }
            let count = read.filled().len();
            if count == 0 {
                return Ok(Read::End);
            }
            front.copy_from_slice(&self.carry);
            let input = buffer.get(..carried + count).unwrap_or_default();
            let taken = self.session.feed(input);
            let rest = input.get(taken..).unwrap_or_default();
            if rest.is_empty() && carried > 0 {
                // An idle connection holds no buffer.
                self.carry = BytesMut::new();
            } else {
                self.carry.clear();
                self.carry.extend_from_slice(rest);
            }
            Ok(Read::Some)
        })
    }

    /// Reads the rest of a long frame in place.
    fn poll_read_on(&mut self, cx: &mut Context<'_>) -> std::io::Result<Read> {
        self.carry.reserve(READ_LEN);
        let stream = Pin::new(&mut self.stream);
        match tokio_util::io::poll_read_buf(stream, cx, &mut self.carry) {
            Poll::Pending => Ok(Read::Wait),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(0)) => Ok(Read::End),
            Poll::Ready(Ok(_)) => {
                self.feed_carry();
                Ok(Read::Some)
            }
        }
    }

    fn feed_carry(&mut self) {
        let taken = self.session.feed(&self.carry);
        self.carry.advance(taken);
        if self.carry.is_empty() {
            self.carry = BytesMut::new();
        }
    }
}

/// A session that panicked, or whose task is dropped, must not stay in its queues.
impl<S: Session, T> Drop for Driver<S, T> {
    fn drop(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.session.on_closed(None);
        }
    }
}
