//! Publisher confirms: sequence numbers against the log's durable mark.
//!
//! A channel that confirms numbers its publishes from 1. Those of a batch are confirmable when the log has
//! passed the batch's position, and everything that is confirmable goes out in one cumulative ack.

use std::collections::VecDeque;

use broker_core::log::LogPosition;
use proto_amqp::{ChannelId, basic};

/// The confirm state of a channel.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// The number of the last publish.
    last: u64,
    /// Up to here everything was confirmed or refused.
    answered: u64,
    /// Numbers that become confirmable together, in order: when the log has passed the position, all up to
    /// the number are.
    waiting: VecDeque<(LogPosition, u64)>,
    /// Numbers that a queue refused, sorted.
    refused: Vec<u64>,
}

impl Confirms {
    /// Numbers a publish.
    pub(super) const fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Publishes that are not answered.
    pub(super) const fn unconfirmed(&self) -> u64 {
        self.last - self.answered
    }

    /// Everything up to `number` is durable when the log has passed `position`.
    pub(super) fn published(&mut self, number: u64, position: LogPosition) {
        match self.waiting.back_mut() {
            // A later message cannot be confirmed before an earlier one: numbers are answered in order.
            Some(back) if back.0 >= position => back.1 = number,
            _ => self.waiting.push_back((position, number)),
        }
    }

    /// The log will never come to what waits for it: all of that is refused.
    pub(super) fn give_up(&mut self) {
        if let Some(&(_, last)) = self.waiting.back() {
            self.refused = (self.answered + 1..=last).collect();
            self.waiting.clear();
            self.waiting.push_back((LogPosition::START, last));
        }
    }

    /// A queue refused the publish with this number.
    pub(super) fn refuse(&mut self, number: u64) {
        if let Err(index) = self.refused.binary_search(&number) {
            self.refused.insert(index, number);
        }
    }

    /// Writes the answers that are due when the log has come to `durable`; gives how many publishes they confirm.
    pub(super) fn answer(
        &mut self,
        durable: LogPosition,
        channel: ChannelId,
        out: impl FnOnce(&mut dyn FnMut(&mut Vec<u8>)),
    ) -> u64 {
        let mut up_to = self.answered;
        while let Some(&(position, number)) = self.waiting.front() {
            if position > durable {
                break;
            }
            up_to = number;
            self.waiting.pop_front();
        }
        if up_to == self.answered {
            return 0;
        }
        let due = self.refused.partition_point(|number| *number <= up_to);
        let refused: Vec<u64> = self.refused.drain(..due).collect();
        let from = self.answered;
        self.answered = up_to;
        out(&mut |octets| {
            let mut answered = from;
            for &number in &refused {
                ack_up_to(octets, channel, answered, number - 1);
                basic::write_nack(octets, channel, number, false);
                answered = number;
            }
            ack_up_to(octets, channel, answered, up_to);
        });
        up_to - from - refused.len() as u64
    }
}

fn ack_up_to(out: &mut Vec<u8>, channel: ChannelId, answered: u64, up_to: u64) {
    match up_to.saturating_sub(answered) {
        0 => {}
        1 => basic::write_ack(out, channel, up_to, false),
        _ => basic::write_ack(out, channel, up_to, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(confirms: &mut Confirms, durable: u64) -> (u64, Vec<u8>) {
        let mut octets = Vec::new();
        let count = confirms.answer(LogPosition(durable), ChannelId(1), |write| write(&mut octets));
        (count, octets)
    }

    fn acks(list: &[(u64, bool, bool)]) -> Vec<u8> {
        let mut octets = Vec::new();
        for &(number, multiple, ack) in list {
            if ack {
                basic::write_ack(&mut octets, ChannelId(1), number, multiple);
            } else {
                basic::write_nack(&mut octets, ChannelId(1), number, multiple);
            }
        }
        octets
    }

    #[test]
    fn nothing_is_confirmed_before_the_mark_has_passed_it() {
        let mut confirms = Confirms::default();
        confirms.number();
        confirms.published(1, LogPosition(10));
        confirms.number();
        confirms.number();
        confirms.published(3, LogPosition(20));
        assert_eq!(answers(&mut confirms, 9), (0, vec![]));
        assert_eq!(answers(&mut confirms, 10), (1, acks(&[(1, false, true)])));
        assert_eq!(answers(&mut confirms, 30), (2, acks(&[(3, true, true)])));
        assert_eq!(confirms.unconfirmed(), 0);
    }

    #[test]
    fn a_transient_publish_waits_for_the_persistent_one_before_it() {
        let mut confirms = Confirms::default();
        confirms.number();
        confirms.published(1, LogPosition(10));
        confirms.number();
        confirms.published(2, LogPosition(0));
        assert_eq!(answers(&mut confirms, 9), (0, vec![]));
        assert_eq!(answers(&mut confirms, 10), (2, acks(&[(2, true, true)])));
    }

    #[test]
    fn what_the_log_will_never_have_is_refused() {
        let mut confirms = Confirms::default();
        for position in [10, 20] {
            let number = confirms.number();
            confirms.published(number, LogPosition(position));
        }
        assert_eq!(answers(&mut confirms, 10).0, 1);
        confirms.give_up();
        assert_eq!(answers(&mut confirms, 10), (0, acks(&[(2, false, false)])));
        assert_eq!(confirms.unconfirmed(), 0);
        confirms.give_up();
        assert_eq!(answers(&mut confirms, 10), (0, vec![]));
    }

    #[test]
    fn refused_publishes_are_left_out_of_cumulative_acks() {
        let mut confirms = Confirms::default();
        for _ in 0..6 {
            confirms.number();
        }
        confirms.refuse(3);
        confirms.refuse(4);
        confirms.published(6, LogPosition(0));
        let expected = [(2, true, true), (3, false, false), (4, false, false), (6, true, true)];
        assert_eq!(answers(&mut confirms, 0), (4, acks(&expected)));
    }
}
