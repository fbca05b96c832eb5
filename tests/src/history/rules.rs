//! The rules, one function each; what they say is at the head of [the module](super).

use std::collections::HashMap;

use super::facts::{Copy, CopyId, Facts, Index, Message, Transaction};
use super::{
    ACK_DELAY, ACK_MARGIN, Event, Finding, History, MessageId, Report, Statistics, TransactionId,
    Verdict,
};

/// Holds a history against the rules.
///
/// # Panics
/// When an id is published twice: then it is the history that is wrong.
#[must_use]
pub fn check(history: &History) -> Report {
    let facts = Facts::new(history);
    let mut findings = Vec::new();
    for (id, message) in &facts.messages {
        confirm_honesty(&facts, *id, message, &mut findings);
        lost(&facts, *id, message, &mut findings);
    }
    let mut unnoted_repeats = 0;
    for (id, copy) in &facts.copies {
        phantom(&facts, *id, copy, &mut findings);
        corrupt(&facts, *id, copy, &mut findings);
        unnoted_repeats += silent_duplicate(&facts, *id, copy, &mut findings);
        resurrected(&facts, *id, copy, &mut findings);
    }
    garbled(&facts, &mut findings);
    order(&facts, &mut findings);
    for (tx, transaction) in &facts.transactions {
        commit_honesty(&facts, *tx, transaction, &mut findings);
        split_transaction(&facts, *tx, transaction, &mut findings);
    }
    undrained(&facts, &mut findings);
    Report { statistics: Statistics { unnoted_repeats, ..statistics(&facts) }, findings }
}

fn confirm_honesty(
    facts: &Facts<'_>,
    id: MessageId,
    message: &Message<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(first) = message.answers.first() else { return };
    let why = match message.published {
        None => "it was answered for and never published",
        Some(published) if *first < published => "it was answered for before it was published",
        Some(_) if message.tx.is_some() => "it was answered for by itself inside of a transaction",
        Some(_) if message.answers.len() > 1 => "it was answered for more than once",
        Some(_) => return,
    };
    let events = message.published.iter().chain(&message.answers).copied();
    findings.push(Finding {
        verdict: Verdict::ConfirmHonesty,
        id: Some(id),
        queue: None,
        tx: message.tx,
        why: why.to_owned(),
        events: facts.lines(events),
    });
}

fn lost(facts: &Facts<'_>, id: MessageId, message: &Message<'_>, findings: &mut Vec<Finding>) {
    if !message.persistent {
        return;
    }
    let Some(confirmed) = facts.confirmed_by(message) else { return };
    for queue in message.queues {
        let copy = facts.copies.get(&(id, queue.as_str()));
        let acked = copy.is_some_and(|copy| copy.acks.iter().any(|ack| facts.counts(ack)));
        // Without a drain there is nothing that it would have had to be in.
        if acked || !facts.drained.contains_key(queue.as_str()) {
            continue;
        }
        let seen = copy.into_iter().flat_map(|copy| copy.deliveries.iter().chain(&copy.requeues));
        let events = message.published.into_iter().chain([confirmed]).chain(seen.copied());
        let why = "it was confirmed, nobody has acked it, and it is not there".to_owned();
        findings.push(facts.about_copy(Verdict::Lost, (id, queue), why, events));
    }
}

fn phantom(facts: &Facts<'_>, id: CopyId<'_>, copy: &Copy, findings: &mut Vec<Finding>) {
    if copy.deliveries.is_empty() {
        return;
    }
    let message = facts.messages.get(&id.0).filter(|message| message.published.is_some());
    let never_asked = |tx| facts.transactions.get(&tx).is_none_or(|tx| tx.commits.is_empty());
    let why = match message {
        None => "nobody has published it",
        Some(message) if !message.queues.iter().any(|queue| queue == id.1) => {
            "it was not published to this queue"
        }
        Some(message) if message.tx.is_some_and(never_asked) => {
            "its transaction was never asked to commit"
        }
        Some(_) => return,
    };
    let published = message.and_then(|message| message.published);
    let events = published.into_iter().chain(copy.deliveries.iter().copied());
    findings.push(facts.about_copy(Verdict::Phantom, id, why.to_owned(), events));
}

fn corrupt(facts: &Facts<'_>, id: CopyId<'_>, copy: &Copy, findings: &mut Vec<Finding>) {
    let Some(message) = facts.messages.get(&id.0) else { return };
    let Some(published) = message.published else { return };
    for delivery in &copy.deliveries {
        let Some(Event::Delivered { crc, .. }) = facts.entry(*delivery).map(|entry| &entry.event)
        else {
            continue;
        };
        if *crc != message.crc {
            let why = format!("its body has the checksum {crc}, published was {}", message.crc);
            findings.push(facts.about_copy(Verdict::Corrupt, id, why, [published, *delivery]));
        }
    }
}

fn garbled(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (index, entry) in facts.history.entries().iter().enumerate() {
        if let Event::Garbled { queue, .. } = &entry.event {
            findings.push(Finding {
                verdict: Verdict::Corrupt,
                id: None,
                queue: Some(queue.clone()),
                tx: None,
                why: "a body is not whole".to_owned(),
                events: facts.lines([index]),
            });
        }
    }
}

/// Gives how many deliveries are excused because the ones before them may not have been noted.
fn silent_duplicate(
    facts: &Facts<'_>,
    id: CopyId<'_>,
    copy: &Copy,
    findings: &mut Vec<Finding>,
) -> usize {
    let (mut repeats, mut certain, mut before) = (0, Vec::new(), Vec::<Index>::new());
    for delivery in &copy.deliveries {
        if !is_flagged(facts, *delivery) && !before.is_empty() {
            let life = facts.life_of(*delivery);
            let noted = |earlier: &Index| {
                let its = facts.life_of(*earlier);
                its == life || facts.is_noted(its, id.1)
            };
            if before.iter().any(noted) {
                certain.push(*delivery);
            } else {
                repeats += 1;
            }
        }
        before.push(*delivery);
    }
    if let Some(second) = certain.first() {
        let first = before.iter().copied().take_while(|index| index < second);
        let events = first.chain(certain.iter().copied()).chain(copy.requeues.iter().copied());
        let why = "it came again without the redelivered flag".to_owned();
        findings.push(facts.about_copy(Verdict::SilentDuplicate, id, why, events));
    }
    repeats
}

fn resurrected(facts: &Facts<'_>, id: CopyId<'_>, copy: &Copy, findings: &mut Vec<Finding>) {
    for ack in copy.acks.iter().filter(|ack| facts.counts(ack)) {
        let life = facts.life_of(ack.sent);
        let kept = facts.kept_from(ack);
        let answered = ack.answered.filter(|_| ack.tx.is_none());
        let again = copy.deliveries.iter().find(|delivery| {
            let same_life = facts.life_of(**delivery) == life;
            let known = if same_life { answered.into_iter().chain(kept).min() } else { kept };
            known.is_some_and(|known| **delivery > known)
        });
        let Some(again) = again else { continue };
        let committed = ack.tx.and_then(|tx| facts.transactions.get(&tx)?.commits.first().copied());
        let why = match (ack.tx, ack.acked, facts.life_of(*again) == life) {
            (Some(TransactionId(tx)), ..) => {
                format!("it came again after it was acked in transaction {tx}, which was committed")
            }
            (None, Some(_), _) => "it came again after the receipt for its ack".to_owned(),
            (None, None, true) => "it came again after its ack had been taken".to_owned(),
            (None, None, false) => format!(
                "it came again although its ack was taken more than {} ms before the life ended",
                (ACK_DELAY + ACK_MARGIN).as_millis()
            ),
        };
        let events = [Some(ack.sent), committed, ack.acked, answered, kept, Some(*again)];
        let events = events.into_iter().flatten().chain(copy.deliveries.iter().copied());
        findings.push(facts.about_copy(Verdict::Resurrected, id, why, events));
        return;
    }
}

/// How far a queue has come with a producer's messages.
#[derive(Debug, Default)]
struct Progress {
    life: u32,
    /// The highest that lives before this one have certainly delivered, and the event.
    before: Option<(u64, Index)>,
    /// The highest of this life.
    now: Option<(u64, Index)>,
}

fn order(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let mut by_consumer: HashMap<(&str, u32, usize, u32), (u64, Index)> = HashMap::new();
    let mut by_queue: HashMap<(&str, u32), Progress> = HashMap::new();
    for (index, entry) in facts.history.entries().iter().enumerate() {
        let Event::Delivered { id, queue, redelivered: false, .. } = &entry.event else { continue };
        let (queue, producer, life) = (queue.as_str(), id.producer, entry.life);
        let here = (id.seq, index);
        let mut found = |earlier: (u64, Index), why: String| {
            let copy = (*id, queue);
            findings.push(facts.about_copy(Verdict::Order, copy, why, [earlier.1, index]));
        };
        let last = by_consumer.insert((queue, producer, entry.client, life), here);
        // The same one twice is a duplicate, and reported as that.
        if let Some(last) = last.filter(|last| last.0 > id.seq) {
            found(last, format!("it came behind {producer}:{}, which is younger", last.0));
        }
        let progress = by_queue.entry((queue, producer)).or_default();
        if progress.life < life {
            if facts.is_noted(progress.life, queue) {
                progress.before = progress.before.max(progress.now);
            }
            (progress.life, progress.now) = (life, None);
        }
        if let Some(before) = progress.before.filter(|before| before.0 > id.seq) {
            found(before, format!("a life before had come to {producer}:{} already", before.0));
        }
        progress.now = progress.now.max(Some(here));
    }
}

fn commit_honesty(
    facts: &Facts<'_>,
    tx: TransactionId,
    transaction: &Transaction<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(first) = transaction.committed.first() else { return };
    let why = match transaction.commits.first() {
        Some(commit) if commit > first => "its commit was answered before it was sent",
        Some(_) if transaction.committed.len() > 1 => "its commit was answered more than once",
        None => "its commit was answered and never sent",
        Some(_) => return,
    };
    findings.push(Finding {
        verdict: Verdict::ConfirmHonesty,
        id: None,
        queue: None,
        tx: Some(tx),
        why: why.to_owned(),
        events: facts.lines(transaction.commits.iter().chain(&transaction.committed).copied()),
    });
}

fn split_transaction(
    facts: &Facts<'_>,
    tx: TransactionId,
    transaction: &Transaction<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(&commit) = transaction.commits.first() else { return };
    let (mut happened, mut did_not) = (Vec::new(), Vec::new());
    let later = |copy: Option<&Copy>| {
        let mut deliveries = copy.into_iter().flat_map(|copy| copy.deliveries.iter().copied());
        deliveries.find(|delivery| facts.life_of(*delivery) > facts.life_of(commit))
    };
    let acked = |copy: Option<&Copy>| {
        copy.map_or(0, |copy| copy.acks.iter().filter(|ack| facts.counts(ack)).count())
    };
    for id in &transaction.publishes {
        let Some(message) = facts.messages.get(id).filter(|message| message.persistent) else {
            continue;
        };
        for queue in message.queues.iter().map(String::as_str) {
            let copy = facts.copies.get(&(*id, queue));
            match later(copy) {
                Some(delivery) => happened.push(delivery),
                None if acked(copy) == 0 && facts.drained.contains_key(queue) => {
                    did_not.extend(message.published);
                }
                None => {}
            }
        }
    }
    for (id, queue) in &transaction.acks {
        let Some(message) = facts.messages.get(id) else { continue };
        let copy = facts.copies.get(&(*id, *queue));
        let sent = copy.into_iter().flat_map(|copy| &copy.acks).filter(|ack| ack.tx == Some(tx));
        match later(copy) {
            Some(delivery) => did_not.push(delivery),
            None if message.persistent
                && facts.confirmed_by(message).is_some()
                && acked(copy) == 1
                && facts.drained.contains_key(queue) =>
            {
                happened.extend(sent.map(|ack| ack.sent));
            }
            None => {}
        }
    }
    if !happened.is_empty() && !did_not.is_empty() {
        let why = format!("{} parts of it happened, {} did not", happened.len(), did_not.len());
        let events = happened.into_iter().chain(did_not).chain([commit]);
        let events = events.chain(transaction.committed.iter().copied());
        findings.push(Finding {
            verdict: Verdict::SplitTransaction,
            id: None,
            queue: None,
            tx: Some(tx),
            why,
            events: facts.lines(events),
        });
    }
}

fn undrained(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let mut used: HashMap<&str, Index> = HashMap::new();
    for message in facts.messages.values() {
        for queue in message.queues {
            let last = used.entry(queue).or_default();
            *last = message.published.map_or(*last, |published| published.max(*last));
        }
    }
    let mut undrained: Vec<_> = used
        .into_iter()
        .filter(|(queue, published)| {
            facts.drained.get(queue).is_none_or(|drained| drained < published)
        })
        .collect();
    undrained.sort_unstable();
    findings.extend(undrained.into_iter().map(|(queue, published)| Finding {
        verdict: Verdict::Undrained,
        id: None,
        queue: Some(queue.to_owned()),
        tx: None,
        why: "nobody has emptied it after the last publish".to_owned(),
        events: facts.lines([published]),
    }));
}

fn is_flagged(facts: &Facts<'_>, delivery: Index) -> bool {
    let event = facts.entry(delivery).map(|entry| &entry.event);
    matches!(event, Some(Event::Delivered { redelivered: true, .. }))
}

fn statistics(facts: &Facts<'_>) -> Statistics {
    let mut all = Statistics { lives: facts.lives.len(), ..Statistics::default() };
    all.kills = facts.lives.values().filter(|life| life.killed).count();
    for entry in facts.history.entries() {
        let counter = match &entry.event {
            Event::Published { .. } => &mut all.published,
            Event::Confirmed { .. } => &mut all.confirmed,
            Event::Refused { .. } => &mut all.refused,
            Event::Delivered { redelivered, .. } => {
                all.redelivered += usize::from(*redelivered);
                &mut all.delivered
            }
            Event::AckSent { .. } => &mut all.acks,
            _ => continue,
        };
        *counter += 1;
    }
    let acks = facts.copies.values().flat_map(|copy| &copy.acks);
    all.acks_kept = acks.filter(|ack| facts.kept_from(ack).is_some()).count();
    for transaction in facts.transactions.values() {
        let counter = match (transaction.committed.is_empty(), transaction.commits.is_empty()) {
            (false, _) => &mut all.committed,
            (true, false) => &mut all.in_doubt,
            (true, true) if transaction.rolled_back => &mut all.rolled_back,
            (true, true) => continue,
        };
        *counter += 1;
    }
    all
}
