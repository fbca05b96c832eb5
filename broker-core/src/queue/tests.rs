//! A queue against sinks that write down what they got, and against a model as plain lines.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};

use super::*;
use crate::arguments::Value;
use crate::consumer::{Outstanding, Run, Sink};
use crate::log::MemoryLog;
use crate::message::{Attributes, Message};

/// What a queue without a virtual host leaves to be done: nobody does it.
#[derive(Default)]
struct Undone(Effects);

impl Deref for Undone {
    type Target = Effects;

    fn deref(&self) -> &Effects {
        &self.0
    }
}

impl DerefMut for Undone {
    fn deref_mut(&mut self) -> &mut Effects {
        &mut self.0
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// A consumer that holds at most `room` more deliveries and keeps what it gets.
#[derive(Default)]
struct Hand {
    room: Mutex<usize>,
    got: Mutex<Vec<Outstanding>>,
    cancelled: Mutex<bool>,
}

impl Hand {
    fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self { room: Mutex::new(room), ..Self::default() })
    }

    fn bodies(&self) -> Vec<String> {
        let body = |kept: &Outstanding| body_of(kept.message.as_ref().unwrap());
        self.got.lock().iter().map(body).collect()
    }

    fn take(&self, count: usize) -> Vec<Outstanding> {
        let mut got = self.got.lock();
        let count = count.min(got.len());
        *self.room.lock() += count;
        got.drain(..count).collect()
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
        let reserved = run.is_reserved();
        let mut room = self.room.lock();
        while reserved || *room > 0 {
            let Some(delivery) = run.next() else { break };
            if !reserved {
                *room -= 1;
            }
            self.got.lock().push(delivery.keep());
        }
    }

    fn cancelled(&self, _: u32) {
        *self.cancelled.lock() = true;
    }
}

fn queue_with(arguments: &[(&str, Value)]) -> Arc<Queue> {
    let arguments: Arguments =
        arguments.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
    let spec = QueueSpec {
        name: QueueName::new("q").unwrap(),
        durable: false,
        exclusive_owner: None,
        auto_delete: false,
        settings: QueueArguments::parse(&arguments).unwrap(),
        arguments,
    };
    Queue::new(QueueId(1), spec, Weak::new(), Arc::new(MemoryLog::default()), 0, LogPosition::START)
}

fn subscription(hand: &Arc<Hand>, priority: i64) -> Subscription {
    Subscription {
        sink: Arc::clone(hand) as Arc<_>,
        slot: 0,
        tag: "tag".into(),
        channel: "channel".into(),
        no_ack: false,
        exclusive: false,
        prefetch_count: 0,
        priority,
        arguments: Arguments::new(),
    }
}

fn subscribe(queue: &Queue, hand: &Arc<Hand>, priority: i64) -> ConsumerId {
    let mut effects = Undone::default();
    queue.subscribe(subscription(hand, priority), |_| {}, 0, &mut effects).unwrap()
}

fn message(body: &str, attributes: Attributes) -> Publication<'static> {
    Publication::Owned(Message::new(b"", b"q", &[0, 0], body.as_bytes().to_vec(), attributes))
}

fn publish(queue: &Queue, bodies: &[&str]) -> Undone {
    let mut effects = Undone::default();
    let publications: Vec<_> =
        bodies.iter().map(|body| message(body, Attributes::default())).collect();
    queue.publish(&publications, 0, &mut effects);
    effects
}

fn body_of(message: &Message) -> String {
    String::from_utf8(message.parts().body.to_vec()).unwrap()
}

fn drain(queue: &Queue) -> Vec<String> {
    let mut effects = Undone::default();
    std::iter::from_fn(|| queue.get(true, 0, &mut effects).unwrap())
        .map(|got| body_of(&got.message))
        .collect()
}

#[test]
fn a_batch_goes_straight_to_a_consumer_with_room_and_the_rest_waits() {
    let (queue, hand) = (queue_with(&[]), Hand::with_room(2));
    subscribe(&queue, &hand, 0);
    publish(&queue, &["1", "2", "3"]);
    assert_eq!(hand.bodies(), ["1", "2"]);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (1, 2));
}

#[test]
fn a_consumer_is_left_alone_until_it_resumes() {
    let (queue, hand) = (queue_with(&[]), Hand::with_room(1));
    let id = subscribe(&queue, &hand, 0);
    publish(&queue, &["1", "2"]);
    let mut settled = hand.take(1);
    queue.ack(&mut settled);
    publish(&queue, &["3"]);
    assert!(hand.bodies().is_empty(), "it has room, but nobody said so");
    queue.resume(&[id], 0, &mut Undone::default());
    assert_eq!(hand.bodies(), ["2"]);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (1, 1));
}

#[test]
fn messages_go_round_one_by_one_however_they_are_cut_into_batches() {
    for batches in [vec![6], vec![1; 6], vec![3, 3], vec![1, 4, 1]] {
        let queue = queue_with(&[]);
        let hands = [Hand::with_room(9), Hand::with_room(9)];
        for hand in &hands {
            subscribe(&queue, hand, 0);
        }
        let mut next = 0;
        for size in &batches {
            let bodies: Vec<String> = (next..next + size).map(|n| n.to_string()).collect();
            publish(&queue, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
            next += size;
        }
        assert_eq!(hands[0].bodies(), ["0", "2", "4"], "{batches:?}");
        assert_eq!(hands[1].bodies(), ["1", "3", "5"], "{batches:?}");
    }
}

#[test]
fn the_round_passes_over_a_consumer_without_room() {
    let queue = queue_with(&[]);
    let hands = [Hand::with_room(1), Hand::with_room(9)];
    for hand in &hands {
        subscribe(&queue, hand, 0);
    }
    publish(&queue, &["1", "2", "3", "4"]);
    assert_eq!(hands[0].bodies(), ["1"]);
    assert_eq!(hands[1].bodies(), ["2", "3", "4"]);
}

#[test]
fn a_higher_priority_is_served_as_long_as_it_has_room() {
    let queue = queue_with(&[]);
    let hands = [Hand::with_room(9), Hand::with_room(2)];
    subscribe(&queue, &hands[0], 0);
    subscribe(&queue, &hands[1], 5);
    publish(&queue, &["1", "2", "3"]);
    assert_eq!(hands[1].bodies(), ["1", "2"]);
    assert_eq!(hands[0].bodies(), ["3"]);
}

#[test]
fn with_a_single_active_consumer_the_next_takes_over_when_it_goes() {
    let queue = queue_with(&[("x-single-active-consumer", Value::Bool(true))]);
    let hands = [Hand::with_room(9), Hand::with_room(9)];
    let first = subscribe(&queue, &hands[0], 0);
    subscribe(&queue, &hands[1], 9);
    publish(&queue, &["1"]);
    queue.cancel(first, 0, &mut Undone::default());
    publish(&queue, &["2"]);
    assert_eq!((hands[0].bodies(), hands[1].bodies()), (vec!["1".into()], vec!["2".into()]));
    let listed: Vec<bool> = queue.consumers().iter().map(|consumer| consumer.active).collect();
    assert_eq!(listed, [true]);
}

#[test]
fn what_comes_back_stands_in_its_old_place_and_is_flagged() {
    let (queue, hand) = (queue_with(&[]), Hand::with_room(3));
    let id = subscribe(&queue, &hand, 0);
    publish(&queue, &["1", "2", "3", "4"]);
    let mut entries = hand.take(3);
    entries.swap(0, 2);
    let mut effects = Undone::default();
    queue.cancel(id, 0, &mut effects);
    queue.requeue(&mut entries, 0, &mut effects);
    let first = queue.get(false, 0, &mut effects).unwrap().unwrap();
    assert_eq!((body_of(&first.message).as_str(), first.left), ("1", 3));
    assert!(first.outstanding.redelivered);
    assert_eq!(drain(&queue), ["2", "3", "4"]);
}

/// Promises to take what it is offered, and is gone when it comes to that.
struct Gone;

impl Sink for Gone {
    fn reserve(&self, _: u32, wanted: usize) -> usize {
        wanted
    }

    fn deliver(&self, _: u32, _: &mut Run<'_>) {}

    fn cancelled(&self, _: u32) {}
}

#[test]
fn what_a_vanished_consumer_had_promised_to_take_is_kept_in_order() {
    // A socket that ended between the promise and the delivery took confirmed messages with it.
    let (queue, hand) = (queue_with(&[]), Hand::with_room(9));
    let gone = Subscription { sink: Arc::new(Gone), ..subscription(&hand, 0) };
    let mut effects = Undone::default();
    let id = queue.subscribe(gone, |_| {}, 0, &mut effects).unwrap();
    subscribe(&queue, &hand, 0);
    publish_in_two_steps(&queue, id);
    assert_eq!(hand.bodies(), ["2", "4", "1", "3"]);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (0, 4));
}

/// Publishes; then the first consumer is taken out, as its connection does.
fn publish_in_two_steps(queue: &Queue, gone: ConsumerId) {
    let mut effects = Undone::default();
    let publications: Vec<_> =
        ["1", "2", "3", "4"].iter().map(|body| message(body, Attributes::default())).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| queue.publish(&publications, 0, &mut effects));
    });
    queue.cancel(gone, 0, &mut Undone::default());
}

#[test]
fn the_sweep_finds_what_came_to_the_head_by_a_get() {
    let queue = queue_with(&[]);
    let mut effects = Undone::default();
    let soon = Attributes { expiration: Some(10), ..Attributes::default() };
    queue.publish(&[message("1", Attributes::default()), message("2", soon)], 0, &mut effects);
    assert!(queue.get(true, 0, &mut effects).unwrap().is_some());
    queue.sweep(10, &mut effects);
    assert_eq!(queue.depth().ready, 0);
}

#[test]
fn exclusive_use_keeps_everybody_else_out() {
    let queue = queue_with(&[]);
    let mut effects = Undone::default();
    let (hand, mut exclusive) = (Hand::with_room(1), subscription(&Hand::with_room(1), 0));
    exclusive.exclusive = true;
    let id = queue.subscribe(exclusive.clone(), |_| {}, 0, &mut effects).unwrap();
    let other = queue.subscribe(subscription(&hand, 0), |_| {}, 0, &mut effects);
    assert_eq!(other, Err(SubscribeError::ExclusiveUse));
    queue.cancel(id, 0, &mut effects);
    subscribe(&queue, &hand, 0);
    let again = queue.subscribe(exclusive, |_| {}, 0, &mut effects);
    assert_eq!(again, Err(SubscribeError::ExclusiveUse));
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let mut spec = queue_with(&[]).spec.clone();
    spec.auto_delete = true;
    let queue = Queue::new(
        QueueId(1),
        spec,
        Weak::new(),
        Arc::new(MemoryLog::default()),
        0,
        LogPosition::START,
    );
    let ids = [(), ()].map(|()| subscribe(&queue, &Hand::with_room(1), 0));
    let mut effects = Undone::default();
    queue.cancel(ids[0], 0, &mut effects);
    assert!(!effects.delete_queue);
    queue.cancel(ids[1], 0, &mut effects);
    assert!(effects.delete_queue);
}

#[test]
fn a_deleted_queue_tells_its_consumers_and_takes_nothing_more() {
    let (queue, hand) = (queue_with(&[]), Hand::with_room(0));
    subscribe(&queue, &hand, 0);
    publish(&queue, &["1"]);
    assert_eq!(queue.delete(true, false).err(), Some(KeepReason::InUse));
    assert_eq!(queue.delete(false, true).err(), Some(KeepReason::NotEmpty));
    assert_eq!(queue.delete(false, false).map(|(count, _)| count), Ok(1));
    assert!(*hand.cancelled.lock());
    publish(&queue, &["2"]);
    assert_eq!(queue.depth(), Depth::default());
}

#[test]
fn the_head_makes_room_in_a_full_queue() {
    let dlx = [("x-max-length", Value::Long(2)), ("x-dead-letter-exchange", Value::text("dlx"))];
    let queue = queue_with(&dlx);
    let effects = publish(&queue, &["1", "2", "3"]);
    assert_eq!(effects.dead.len(), 1);
    assert_eq!(effects.dead[0].reason, DeathReason::MaxLength);
    assert_eq!(drain(&queue), ["2", "3"]);
    let bytes = queue_with(&[("x-max-length-bytes", Value::Long(4))]);
    publish(&bytes, &["aa", "bb", "cc"]);
    assert_eq!(drain(&bytes), ["bb", "cc"]);
}

#[test]
fn a_full_queue_refuses_what_is_new_when_told_so() {
    let full = [("x-max-length", Value::Long(1)), ("x-overflow", Value::text("reject-publish"))];
    let queue = queue_with(&full);
    let effects = publish(&queue, &["1", "2", "3"]);
    assert_eq!(effects.rejected, [1, 2]);
    assert!(effects.dead.is_empty());
    assert_eq!(drain(&queue), ["1"]);
}

#[test]
fn higher_levels_go_first_and_too_high_a_priority_is_the_highest() {
    let queue = queue_with(&[("x-max-priority", Value::Long(5))]);
    let mut effects = Undone::default();
    for (body, priority) in [("0", 0), ("9", 9), ("3", 3), ("5", 5), ("1", 1), ("none", 0)] {
        let attributes = Attributes { priority, ..Attributes::default() };
        queue.publish(&[message(body, attributes)], 0, &mut effects);
    }
    assert_eq!(drain(&queue), ["9", "5", "3", "1", "0", "none"]);
}

#[test]
fn an_expired_message_is_never_delivered_once_it_is_at_the_head() {
    let dlx = [("x-message-ttl", Value::Long(100)), ("x-dead-letter-exchange", Value::text("d"))];
    let queue = queue_with(&dlx);
    let mut effects = Undone::default();
    let soon = Attributes { expiration: Some(10), ..Attributes::default() };
    queue.publish(
        &[message("soon", soon), message("later", Attributes::default())],
        0,
        &mut effects,
    );
    assert!(effects.watch_expiry);
    queue.sweep(9, &mut effects);
    assert_eq!(queue.depth().ready, 2);
    queue.sweep(10, &mut effects);
    assert_eq!(effects.dead.len(), 1);
    assert!(queue.get(true, 100, &mut effects).unwrap().is_none());
    assert_eq!(effects.dead.len(), 2);
    assert!(effects.dead.iter().all(|dead| dead.reason == DeathReason::Expired));
}

#[test]
fn a_time_to_live_of_zero_is_enough_for_a_consumer_that_has_room() {
    let (queue, hand) = (queue_with(&[("x-message-ttl", Value::Long(0))]), Hand::with_room(1));
    subscribe(&queue, &hand, 0);
    publish(&queue, &["1", "2"]);
    assert_eq!(hand.bodies(), ["1"]);
    assert!(drain(&queue).is_empty());
}

#[test]
fn a_message_that_comes_back_too_often_dies() {
    let limited = [("x-queue-type", Value::text("quorum")), ("x-delivery-limit", Value::Long(1))];
    let queue = queue_with(&limited);
    publish(&queue, &["1"]);
    let mut effects = Undone::default();
    for still_there in [true, false] {
        let got = queue.get(false, 0, &mut effects).unwrap().unwrap();
        queue.requeue(&mut vec![got.outstanding], 0, &mut effects);
        assert_eq!(queue.depth().ready == 1, still_there);
    }
}

#[test]
fn a_queue_that_nobody_uses_is_abandoned() {
    let (queue, hand) = (queue_with(&[("x-expires", Value::Long(50))]), Hand::with_room(1));
    assert!(!queue.is_abandoned(49));
    assert!(queue.is_abandoned(50));
    queue.touch(40);
    assert!(!queue.is_abandoned(89));
    subscribe(&queue, &hand, 0);
    assert!(!queue.is_abandoned(1_000));
}

/// The queue as plain lines: what is ready, what each of two consumers holds, how much more it takes.
#[derive(Debug, Default)]
struct Model {
    ready: VecDeque<u64>,
    redelivered: BTreeSet<u64>,
    next: u64,
}

#[derive(Debug, Clone)]
enum Action {
    Publish(u8),
    Ack { consumer: usize, count: usize },
    Requeue { consumer: usize, count: usize },
    Reject { consumer: usize, count: usize },
    Purge,
    Get,
}

fn actions() -> impl proptest::strategy::Strategy<Value = Vec<Action>> {
    use proptest::prelude::*;
    let some = || (0..2_usize, 1..4_usize);
    let action = prop_oneof![
        3 => (1..8_u8).prop_map(Action::Publish),
        2 => some().prop_map(|(consumer, count)| Action::Ack { consumer, count }),
        2 => some().prop_map(|(consumer, count)| Action::Requeue { consumer, count }),
        1 => some().prop_map(|(consumer, count)| Action::Reject { consumer, count }),
        1 => Just(Action::Purge),
        1 => Just(Action::Get),
    ];
    proptest::collection::vec(action, 0..60)
}

proptest::proptest! {
    /// Whatever happens: no message is lost or doubled, what is ready is in order, every consumer with room
    /// is served while something is ready, and the counts are right.
    #[test]
    fn the_queue_and_the_model_agree(actions in actions(), room in 1..5_usize) {
        let queue = queue_with(&[]);
        let hands = [Hand::with_room(room), Hand::with_room(room)];
        let ids = [subscribe(&queue, &hands[0], 0), subscribe(&queue, &hands[1], 0)];
        let mut model = Model::default();
        let mut effects = Undone::default();
        let seqs = |hand: &Hand| -> Vec<u64> { hand.got.lock().iter().map(|entry| entry.seq).collect() };
        for action in actions {
            match action {
                Action::Publish(count) => {
                    let bodies: Vec<String> = (0..count).map(|n| n.to_string()).collect();
                    publish(&queue, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
                    model.ready.extend(model.next..model.next + u64::from(count));
                    model.next += u64::from(count);
                }
                Action::Ack { consumer, count } => {
                    queue.ack(&mut hands[consumer].take(count));
                    queue.resume(&[ids[consumer]], 0, &mut effects);
                }
                Action::Requeue { consumer, count } => {
                    let mut entries = hands[consumer].take(count);
                    for entry in &entries {
                        model.redelivered.insert(entry.seq);
                        let at = model.ready.partition_point(|seq| *seq < entry.seq);
                        model.ready.insert(at, entry.seq);
                    }
                    queue.requeue(&mut entries, 0, &mut effects);
                    queue.resume(&[ids[consumer]], 0, &mut effects);
                }
                Action::Reject { consumer, count } => {
                    queue.reject(&mut hands[consumer].take(count), &mut effects);
                    queue.resume(&[ids[consumer]], 0, &mut effects);
                }
                Action::Purge => {
                    proptest::prop_assert_eq!(queue.purge().count, model.ready.len() as u64);
                    model.ready.clear();
                }
                Action::Get => {
                    let got = queue.get(true, 0, &mut effects).unwrap().map(|got| got.outstanding.seq);
                    proptest::prop_assert_eq!(got, model.ready.pop_front());
                }
            }
            // What the consumers got meanwhile was at the front of what was ready.
            let held: BTreeSet<u64> = hands.iter().flat_map(|hand| seqs(hand)).collect();
            let before = model.ready.len();
            let fronts: Vec<u64> = model.ready.iter().copied().filter(|seq| held.contains(seq)).collect();
            model.ready.retain(|seq| !held.contains(seq));
            proptest::prop_assert!(model.ready.front().is_none_or(|front| fronts.iter().all(|seq| seq < front)));
            proptest::prop_assert_eq!(before - fronts.len(), model.ready.len());
            let depth = queue.depth();
            proptest::prop_assert_eq!(depth.ready, model.ready.len() as u64);
            proptest::prop_assert_eq!(depth.unacked, held.len() as u64);
            let rooms: usize = hands.iter().map(|hand| *hand.room.lock()).sum();
            proptest::prop_assert!(rooms == 0 || depth.ready == 0, "messages wait although there is room");
            for hand in &hands {
                for entry in hand.got.lock().iter() {
                    proptest::prop_assert_eq!(entry.redelivered, model.redelivered.contains(&entry.seq));
                }
            }
        }
    }
}
