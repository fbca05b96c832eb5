//! What a broker is excused for, and where the excuse ends: histories by hand.

use warren_tests::history::{
    Entry, Event, History, MessageId, Report, TransactionId, Verdict, check,
};

const QUEUE: &str = "q";

/// A history of one client, or of several, told one event after the other.
#[derive(Default)]
struct Story {
    entries: Vec<Entry>,
    life: u32,
    client: usize,
    now_us: u64,
}

impl Story {
    /// Begins with a broker that has just been started.
    fn new() -> Self {
        Self { life: 1, ..Self::default() }.then(Event::Started)
    }

    fn then(mut self, event: Event) -> Self {
        self.now_us += 10;
        let order = self.entries.len() as u64;
        let (at_us, life, client) = (self.now_us, self.life, self.client);
        self.entries.push(Entry { order, at_us, life, client, event });
        self
    }

    /// Another client goes on.
    fn client(self, client: usize) -> Self {
        Self { client, ..self }
    }

    fn after_ms(self, ms: u64) -> Self {
        Self { now_us: self.now_us + ms * 1000, ..self }
    }

    fn published(self, seq: u64) -> Self {
        self.published_in(seq, None)
    }

    fn published_in(self, seq: u64, tx: Option<TransactionId>) -> Self {
        let queues = vec![QUEUE.to_owned()];
        self.then(Event::Published { id: id(seq), queues, persistent: true, crc: 0, tx })
    }

    fn confirmed(self, seq: u64) -> Self {
        self.then(Event::Confirmed { id: id(seq) })
    }

    /// A publish of a message that matters to nobody is confirmed.
    fn kept(self, seq: u64) -> Self {
        let id = MessageId { producer: 9, seq };
        let queues = Vec::new();
        self.then(Event::Published { id, queues, persistent: true, crc: 0, tx: None })
            .then(Event::Confirmed { id })
    }

    fn delivered(self, seq: u64, redelivered: bool) -> Self {
        let queue = QUEUE.to_owned();
        self.then(Event::Delivered { id: id(seq), queue, redelivered, crc: 0 })
    }

    fn ack_sent(self, seq: u64) -> Self {
        self.ack_sent_in(seq, None)
    }

    fn ack_sent_in(self, seq: u64, tx: Option<TransactionId>) -> Self {
        self.then(Event::AckSent { id: id(seq), queue: QUEUE.to_owned(), tx })
    }

    fn crash(mut self) -> Self {
        self = self.then(Event::Killed);
        self.life += 1;
        self.then(Event::Started)
    }

    fn stop(mut self) -> Self {
        self = self.then(Event::Stopped);
        self.life += 1;
        self.then(Event::Started)
    }

    /// The queue is empty now.
    fn report(self) -> Report {
        let story = self.then(Event::Drained { queue: QUEUE.to_owned() });
        let clients = (0..3).map(|client| format!("client-{client}")).collect();
        check(&History::new(clients, story.entries))
    }

    #[track_caller]
    fn clean(self) -> Report {
        let report = self.report();
        assert!(report.is_clean(), "{report}");
        report
    }

    #[track_caller]
    fn accused_of(self, verdict: Verdict) {
        let report = self.report();
        let counts: Vec<_> = report.counts().into_iter().collect();
        assert_eq!(counts, [(verdict, 1)], "{report}");
    }
}

const fn id(seq: u64) -> MessageId {
    MessageId { producer: 1, seq }
}

const TX: Option<TransactionId> = Some(TransactionId(1));

fn begun(story: Story) -> Story {
    story.then(Event::Begun { tx: TransactionId(1) })
}

fn commit_sent(story: Story) -> Story {
    story.then(Event::CommitSent { tx: TransactionId(1) })
}

fn committed(story: Story) -> Story {
    story.then(Event::Committed { tx: TransactionId(1) })
}

#[test]
fn what_was_not_confirmed_may_be_gone_or_there() {
    Story::new().published(1).crash().clean();
    Story::new().published(1).crash().delivered(1, false).ack_sent(1).clean();
    Story::new().published(1).then(Event::Refused { id: id(1) }).clean();
    Story::new().published(1).confirmed(1).crash().accused_of(Verdict::Lost);
}

#[test]
fn having_been_delivered_is_not_enough() {
    let seen = || Story::new().published(1).confirmed(1).delivered(1, false);
    seen().crash().accused_of(Verdict::Lost);
    seen().ack_sent(1).crash().clean();
    seen().ack_sent_in(1, TX).crash().accused_of(Verdict::Lost);
    seen().then(Event::Requeued { id: id(1), queue: QUEUE.to_owned() }).accused_of(Verdict::Lost);
}

#[test]
fn an_ack_may_be_undone_until_it_is_known_to_be_kept() {
    let acked = || Story::new().kept(0).published(1).confirmed(1).delivered(1, false).ack_sent(1);
    let again = |story: Story| story.crash().delivered(1, true).ack_sent(1);
    // Nobody knows whether the broker has read it.
    again(acked().after_ms(1000).kept(1)).clean();
    // It has, and may not have written it yet.
    again(acked().then(Event::Answered).kept(1).after_ms(1000)).clean();
    again(acked().then(Event::Answered).after_ms(99).kept(1)).clean();
    // The disk may have stood still ever since.
    again(acked().then(Event::Answered).after_ms(1000)).clean();
    again(acked().then(Event::Answered).after_ms(1000).published(2)).clean();
    again(acked().then(Event::Answered).after_ms(101).kept(1)).accused_of(Verdict::Resurrected);
    // The answer to another client says nothing.
    again(acked().client(1).then(Event::Answered).after_ms(101).kept(1)).clean();
}

#[test]
fn an_ack_is_kept_at_once_by_its_receipt_and_by_an_end_in_order() {
    let acked = || Story::new().published(1).confirmed(1).delivered(1, false).ack_sent(1);
    let receipt = || acked().then(Event::Acked { id: id(1), queue: QUEUE.to_owned() });
    receipt().crash().delivered(1, true).ack_sent(1).accused_of(Verdict::Resurrected);
    receipt().delivered(1, true).ack_sent(1).accused_of(Verdict::Resurrected);
    let answered = || acked().then(Event::Answered);
    answered().stop().delivered(1, true).ack_sent(1).accused_of(Verdict::Resurrected);
    answered().delivered(1, true).ack_sent(1).accused_of(Verdict::Resurrected);
    acked().delivered(1, true).ack_sent(1).clean();
    acked().stop().delivered(1, true).ack_sent(1).clean();
}

#[test]
fn a_flag_may_be_missing_until_the_first_delivery_is_noted() {
    let seen = || Story::new().published(1).confirmed(1).delivered(1, false);
    let report = seen().crash().delivered(1, false).ack_sent(1).clean();
    assert_eq!(report.statistics.unnoted_repeats, 1);
    seen().kept(1).crash().delivered(1, false).ack_sent(1).accused_of(Verdict::SilentDuplicate);
    seen().stop().delivered(1, false).ack_sent(1).accused_of(Verdict::SilentDuplicate);
    let report = seen().kept(1).crash().delivered(1, true).ack_sent(1).clean();
    assert_eq!((report.statistics.unnoted_repeats, report.statistics.redelivered), (0, 1));
    // Within a life there is no excuse.
    seen().client(1).delivered(1, false).ack_sent(1).accused_of(Verdict::SilentDuplicate);
}

#[test]
fn order_is_that_of_each_consumer_and_of_lives() {
    let two = || Story::new().published(1).confirmed(1).published(2).confirmed(2);
    two()
        .delivered(2, false)
        .ack_sent(2)
        .delivered(1, false)
        .ack_sent(1)
        .accused_of(Verdict::Order);
    // Two consumers write down in any order what they were sent in another.
    let other = two().delivered(2, false).ack_sent(2).client(1);
    other.delivered(1, false).ack_sent(1).clean();
    two().delivered(2, false).ack_sent(2).delivered(1, true).ack_sent(1).clean();
    let other = two().delivered(2, false).ack_sent(2).kept(1).crash().client(1);
    other.delivered(1, false).ack_sent(1).accused_of(Verdict::Order);
    let other = two().delivered(2, false).ack_sent(2).crash().client(1);
    other.delivered(1, false).ack_sent(1).clean();
}

#[test]
fn a_transaction_in_doubt_happened_or_did_not() {
    let two = || commit_sent(begun(Story::new()).published_in(1, TX).published_in(2, TX));
    two().crash().clean();
    let both = two().crash().delivered(1, false).ack_sent(1).delivered(2, false).ack_sent(2);
    both.clean();
    two().crash().delivered(1, false).ack_sent(1).accused_of(Verdict::SplitTransaction);
    // Seen before it was on disk, and gone with all of it.
    two().delivered(1, false).crash().clean();
    // Acked by somebody: whether it was kept until then nobody knows.
    two().delivered(1, false).ack_sent(1).crash().clean();
    begun(Story::new())
        .published_in(1, TX)
        .delivered(1, false)
        .ack_sent(1)
        .accused_of(Verdict::Phantom);
}

#[test]
fn acks_and_publishes_of_a_transaction_go_together() {
    let moved = || {
        let seen = Story::new().published(1).confirmed(1).delivered(1, false);
        commit_sent(begun(seen).ack_sent_in(1, TX).published_in(2, TX))
    };
    moved().crash().delivered(2, false).ack_sent(2).clean();
    moved().crash().delivered(1, true).ack_sent(1).clean();
    let undone = moved().crash().delivered(1, true).ack_sent(1).delivered(2, false).ack_sent(2);
    undone.accused_of(Verdict::SplitTransaction);
    moved().crash().accused_of(Verdict::SplitTransaction);
    let undone = committed(moved()).delivered(2, false).ack_sent(2).crash().delivered(1, true);
    undone.ack_sent(1).accused_of(Verdict::Resurrected);
}

#[test]
fn answers_are_for_what_was_asked() {
    Story::new().confirmed(1).accused_of(Verdict::ConfirmHonesty);
    Story::new()
        .published(1)
        .confirmed(1)
        .confirmed(1)
        .ack_sent(1)
        .accused_of(Verdict::ConfirmHonesty);
    let both = Story::new().published(1).confirmed(1).then(Event::Refused { id: id(1) });
    both.ack_sent(1).accused_of(Verdict::ConfirmHonesty);
    committed(begun(Story::new())).accused_of(Verdict::ConfirmHonesty);
}

#[test]
fn transient_messages_may_go_with_their_life() {
    let queues = vec![QUEUE.to_owned()];
    let event = Event::Published { id: id(1), queues, persistent: false, crc: 0, tx: None };
    Story::new().then(event).confirmed(1).crash().clean();
}

#[test]
fn a_queue_that_nobody_has_emptied_shows_nothing() {
    let story = Story::new().published(1).confirmed(1);
    let report = check(&History::new(vec!["client".to_owned()], story.entries));
    assert_eq!(report.counts().into_iter().collect::<Vec<_>>(), [(Verdict::Undrained, 1)]);
    let late = Story::new().then(Event::Drained { queue: QUEUE.to_owned() }).published(1);
    let report = check(&History::new(vec!["client".to_owned()], late.entries));
    assert_eq!(report.counts().into_iter().collect::<Vec<_>>(), [(Verdict::Undrained, 1)]);
}
