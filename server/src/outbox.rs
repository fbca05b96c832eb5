//! What waits to be written to a peer, and the state that has to change together with it.
//!
//! An [`Outlet`] is the shared half of a connection: queues deliver into it from the tasks of publishers, the
//! connection's own task takes the octets out and writes them. One mutex guards the octets and the
//! protocol's delivery state (tags, credit, what is unacknowledged), because a delivery changes both. It is the last lock in
//! the order: whoever holds it locks nothing else.
//!
//! Octets of small messages are copied into one buffer. A large body is spliced in as a reference to
//! its own allocation and written from there.

use std::cell::RefCell;
use std::io::IoSlice;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWrite;

/// Spare buffers that a worker thread keeps, so that a busy connection need not allocate and an idle one holds none.
const SPARES_MAX: usize = 16;

/// The largest buffer that is kept as a spare.
const SPARE_LEN_MAX: usize = 1024 * 1024;

/// Slices that one vectored write names.
const SLICES_MAX: usize = 32;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_spare() -> Vec<u8> {
    SPARES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn give_spare(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > SPARE_LEN_MAX {
        return;
    }
    buffer.clear();
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < SPARES_MAX {
            spares.push(buffer);
        }
    });
}

/// Octets to be written, in order.
#[derive(Debug, Default)]
pub(crate) struct OutBuffer {
    octets: Vec<u8>,
    splices: Vec<Splice>,
    spliced_len: usize,
}

/// A piece of a large body that stands between the octets.
#[derive(Debug)]
struct Splice {
    /// Before the octet with this index.
    at: usize,
    body: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl OutBuffer {
    /// Octets in all.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.octets.len() + self.spliced_len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to.
    #[inline]
    pub(crate) fn octets(&mut self) -> &mut Vec<u8> {
        if self.octets.capacity() == 0 {
            self.octets = take_spare();
        }
        &mut self.octets
    }

    /// Appends a piece of a body without copying it.
    pub(crate) fn splice(&mut self, body: &Arc<Vec<u8>>, range: Range<usize>) {
        self.spliced_len += range.len();
        self.splices.push(Splice { at: self.octets.len(), body: Arc::clone(body), range });
    }
}

/// Octets on their way into the socket.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    buffer: OutBuffer,
    /// Octets of the buffer that are written.
    octets_done: usize,
    /// Splices that are written, and octets of the next one.
    splices_done: usize,
    splice_done: usize,
}

impl Writing {
    pub(crate) const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes over what waits, if nothing is on its way; gives whether there is something to write.
    pub(crate) fn refill(&mut self, waiting: &mut OutBuffer) -> bool {
        if self.is_empty() && !waiting.is_empty() {
            self.buffer = std::mem::take(waiting);
        }
        !self.is_empty()
    }

    /// Writes until all is written or the socket is full. Gives the number of octets written.
    pub(crate) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        let mut total = 0;
        while !self.is_finished() {
            let polled = if self.buffer.splices.is_empty() {
                let rest = self.buffer.octets.get(self.octets_done..).unwrap_or_default();
                Pin::new(&mut *socket).poll_write(cx, rest)
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = self.slices(&mut slices);
                let slices = slices.get(..count).unwrap_or_default();
                Pin::new(&mut *socket).poll_write_vectored(cx, slices)
            };
            match polled {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(written)) => {
                    total += written;
                    self.advance(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                Poll::Pending => return Poll::Pending,
            }
        }
        give_spare(std::mem::take(&mut self.buffer.octets));
        *self = Self::default();
        Poll::Ready(Ok(total))
    }

    const fn is_finished(&self) -> bool {
        self.octets_done == self.buffer.octets.len()
            && self.splices_done == self.buffer.splices.len()
    }

    fn slices<'s>(&'s self, out: &mut [IoSlice<'s>; SLICES_MAX]) -> usize {
        let mut count = 0;
        let mut at = self.octets_done;
        let mut skip = self.splice_done;
        let octets = |range: Range<usize>| self.buffer.octets.get(range).unwrap_or_default();
        let splices = self.buffer.splices.get(self.splices_done..).unwrap_or_default();
        let pieces = splices.iter().flat_map(|splice| {
            let before = octets(at..splice.at);
            at = splice.at;
            let body = splice.body.get(splice.range.clone()).unwrap_or_default();
            let body = body.get(std::mem::take(&mut skip)..).unwrap_or_default();
            [before, body]
        });
        // The octets after the last splice are named in a later call, when the splices are through.
        let tail_at = splices.last().map_or(self.octets_done, |splice| splice.at);
        let tail = std::iter::once(octets(tail_at..self.buffer.octets.len()));
        for (slot, piece) in
            out.iter_mut().zip(pieces.chain(tail).filter(|piece| !piece.is_empty()))
        {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(splice) = self.buffer.splices.get(self.splices_done) {
            let before = (splice.at - self.octets_done).min(written);
            self.octets_done += before;
            written -= before;
            if self.octets_done < splice.at {
                return;
            }
            let piece = (splice.range.len() - self.splice_done).min(written);
            self.splice_done += piece;
            written -= piece;
            if self.splice_done < splice.range.len() {
                return;
            }
            self.splices_done += 1;
            self.splice_done = 0;
        }
        self.octets_done += written;
    }
}

/// A request from outside the connection's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Say goodbye and close (AMQP 320).
    Close {
        /// For the peer, without the code's name.
        reason: String,
    },
}

/// What the mutex of an [`Outlet`] guards.
#[derive(Debug)]
pub(crate) struct OutletState<D> {
    /// Octets that wait to be written.
    pub(crate) out: OutBuffer,
    /// The protocol's delivery state.
    pub(crate) deliveries: D,
    /// The connection's task is gone: nothing more is taken.
    pub(crate) closed: bool,
    /// Requests that the connection's task has not seen yet.
    pub(crate) commands: Vec<Command>,
}

/// The shared half of a connection.
#[derive(Debug)]
pub(crate) struct Outlet<D> {
    state: Mutex<OutletState<D>>,
    waker: AtomicWaker,
}

impl<D> Outlet<D> {
    pub(crate) const fn new(deliveries: D) -> Self {
        let out = OutBuffer { octets: Vec::new(), splices: Vec::new(), spliced_len: 0 };
        let state = OutletState { out, deliveries, closed: false, commands: Vec::new() };
        Self { state: Mutex::new(state), waker: AtomicWaker::new() }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, OutletState<D>> {
        self.state.lock()
    }

    /// Lets the connection's task look again.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// The task that [`wake`](Self::wake) wakes from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn command(&self, command: Command) {
        self.lock().commands.push(command);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes at most `step` octets at a time.
    struct Narrow {
        taken: Vec<u8>,
        step: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            let count = octets.len().min(self.step);
            self.taken.extend_from_slice(&octets[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<std::io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = all.len().min(self.step);
            self.taken.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn splices_stand_where_they_were_put_however_the_socket_cuts() {
        for step in 1..40 {
            let body: Arc<Vec<u8>> = Arc::new((b'a'..=b'z').collect());
            let mut out = OutBuffer::default();
            out.splice(&body, 0..3);
            out.octets().extend_from_slice(b"12");
            out.splice(&body, 3..6);
            out.splice(&body, 6..9);
            out.octets().extend_from_slice(b"345");
            assert_eq!(out.len(), 14);
            let mut writing = Writing::default();
            assert!(writing.refill(&mut out));
            let mut socket = Narrow { taken: Vec::new(), step };
            let mut cx = Context::from_waker(Waker::noop());
            while !writing.is_empty() {
                assert!(writing.poll_write(&mut socket, &mut cx).is_ready());
            }
            assert_eq!(String::from_utf8_lossy(&socket.taken), "abc12defghi345", "step {step}");
        }
    }
}
