//! When and how a consumer acknowledges.
//!
//! Acknowledgements are collected while a read is walked and written once behind it, so that they cost one
//! system call a read, whatever the mode.

use std::num::NonZeroU16;

use proto_amqp::{ChannelId, basic};
use proto_stomp::{Command, FrameEnd, FrameWriter};

use super::args::AckChoice;
use super::walk::{Handle, Handles};

/// The channel that every AMQP connection of the generator works on.
pub(super) const CHANNEL: ChannelId = ChannelId(1);

/// The acknowledgements of one consumer.
#[derive(Debug)]
pub(super) struct Acks {
    choice: AckChoice,
    /// Deliveries behind which a cumulative acknowledgement goes out.
    every: u64,
    /// Deliveries since the last one.
    waiting: u64,
    /// The last delivery.
    tag: u64,
    id: Vec<u8>,
    out: Vec<u8>,
}

impl Acks {
    /// None yet, in the mode `choice`; cumulative ones go out at half of `prefetch`.
    pub(super) fn new(choice: AckChoice, prefetch: Option<NonZeroU16>) -> Self {
        let prefetch = prefetch.map_or(1, |prefetch| u64::from(prefetch.get()));
        Self {
            choice,
            every: (prefetch / 2).max(1),
            waiting: 0,
            tag: 0,
            id: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Whether deliveries have to be told apart.
    pub(super) const fn handles(choice: AckChoice) -> Handles {
        match choice {
            AckChoice::Manual | AckChoice::Individual => Handles::Read,
            AckChoice::Auto | AckChoice::None => Handles::Skip,
        }
    }

    /// Notes a delivery.
    pub(super) fn delivered(&mut self, handle: Handle<'_>) {
        match self.choice {
            AckChoice::Auto | AckChoice::None => {}
            AckChoice::Individual => ack(&mut self.out, handle, false),
            AckChoice::Manual => {
                self.waiting += 1;
                match handle {
                    Handle::Tag(tag) => self.tag = tag,
                    Handle::Id(id) => {
                        self.id.clear();
                        self.id.extend_from_slice(id);
                    }
                    Handle::Unneeded => {}
                }
                if self.waiting >= self.every {
                    self.settle();
                }
            }
        }
    }

    /// Acknowledges what has been delivered since the last acknowledgement; for when nothing more comes.
    pub(super) fn settle(&mut self) {
        if self.waiting > 0 {
            self.waiting = 0;
            let last =
                if self.id.is_empty() { Handle::Tag(self.tag) } else { Handle::Id(&self.id) };
            ack(&mut self.out, last, true);
        }
    }

    /// The octets to be sent; the caller clears them.
    pub(super) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

/// Appends one acknowledgement. STOMP has no `multiple`: the subscription's mode decides.
fn ack(out: &mut Vec<u8>, handle: Handle<'_>, multiple: bool) {
    match handle {
        Handle::Unneeded => {}
        Handle::Tag(tag) => basic::write_ack(out, CHANNEL, tag, multiple),
        Handle::Id(id) => {
            let mut frame = FrameWriter::begin(out, Command::Ack);
            frame.header(b"id", id);
            frame.finish(b"", FrameEnd::NulLf);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto_amqp::basic::Hot;
    use proto_amqp::frame;

    use super::*;

    fn acks(ack: AckChoice, prefetch: Option<u16>) -> Acks {
        Acks::new(ack, prefetch.and_then(NonZeroU16::new))
    }

    /// Tag and `multiple` of every acknowledgement.
    fn written(acks: &mut Acks) -> Vec<(u64, bool)> {
        let (mut found, mut rest) = (Vec::new(), &acks.out()[..]);
        while let Some(frame) = frame::parse(rest, 4096).unwrap() {
            match basic::decode_hot(frame.payload).unwrap() {
                Some(Hot::Ack(ack)) => found.push((ack.delivery_tag, ack.multiple)),
                other => panic!("{other:?}"),
            }
            rest = &rest[frame.wire_len..];
        }
        acks.out().clear();
        found
    }

    #[test]
    fn manual_acknowledges_cumulatively_at_half_the_prefetch_and_the_rest_at_the_end() {
        let mut acks = acks(AckChoice::Manual, Some(10));
        (1..=12).for_each(|tag| acks.delivered(Handle::Tag(tag)));
        assert_eq!(written(&mut acks), [(5, true), (10, true)]);
        acks.settle();
        assert_eq!(written(&mut acks), [(12, true)]);
        acks.settle();
        assert_eq!(written(&mut acks), []);
    }

    #[test]
    fn a_prefetch_of_one_is_acknowledged_at_once() {
        let mut acks = acks(AckChoice::Manual, Some(1));
        acks.delivered(Handle::Tag(1));
        assert_eq!(written(&mut acks), [(1, true)]);
    }

    #[test]
    fn individual_acknowledges_each_and_the_others_none() {
        for (choice, expected) in [
            (AckChoice::Individual, &[(1, false), (2, false)][..]),
            (AckChoice::Auto, &[]),
            (AckChoice::None, &[]),
        ] {
            let mut acks = acks(choice, None);
            (1..=2).for_each(|tag| acks.delivered(Handle::Tag(tag)));
            acks.settle();
            assert_eq!(written(&mut acks), expected, "{choice:?}");
        }
    }

    #[test]
    fn stomp_names_the_last_message() {
        let mut acks = acks(AckChoice::Manual, Some(4));
        acks.delivered(Handle::Id(b"a:1"));
        acks.delivered(Handle::Id(b"a:2"));
        assert_eq!(acks.out(), b"ACK\nid:a\\c2\n\n\0\n");
    }
}
