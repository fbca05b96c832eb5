//! A consumer that takes as many deliveries as it has room for, and keeps them until somebody looks.

use std::sync::Arc;

use broker_core::arguments::Arguments;
use broker_core::consumer::{Run, Sink, Subscription};
use broker_core::queue::Got;
use broker_core::{Attributes, Message};
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Hand {
    room: Mutex<usize>,
    got: Mutex<Vec<Got>>,
}

impl Hand {
    pub(crate) fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self { room: Mutex::new(room), got: Mutex::default() })
    }

    pub(crate) fn add_room(&self, more: usize) {
        *self.room.lock() += more;
    }

    /// What has come since the last look.
    pub(crate) fn take(&self) -> Vec<Got> {
        std::mem::take(&mut *self.got.lock())
    }

    pub(crate) fn subscription(self: &Arc<Self>, no_ack: bool) -> Subscription {
        Subscription {
            sink: Arc::clone(self) as Arc<_>,
            slot: 0,
            tag: "hand".into(),
            channel: "channel".into(),
            no_ack,
            exclusive: false,
            prefetch_count: 0,
            priority: 0,
            arguments: Arguments::new(),
        }
    }
}

impl Sink for Hand {
    fn reserve(&self, _: u32, wanted: usize) -> usize {
        let mut room = self.room.lock();
        let granted = wanted.min(*room);
        *room -= granted;
        granted
    }

    fn deliver(&self, _: u32, run: &mut Run<'_>) {
        let is_reserved = run.is_reserved();
        let mut room = self.room.lock();
        while is_reserved || *room > 0 {
            let Some(delivery) = run.next() else { break };
            if !is_reserved {
                *room -= 1;
            }
            // From what is sent: of what is kept only the log may have the message.
            let parts = delivery.parts();
            let body = parts.body.to_vec();
            let attributes = Attributes::default();
            let message =
                Message::new(parts.exchange, parts.routing_key, parts.properties, body, attributes);
            self.got.lock().push(Got { message, outstanding: delivery.keep(), left: 0 });
        }
    }

    fn cancelled(&self, _: u32) {}
}
