//! What the checker says.

use std::collections::BTreeMap;
use std::fmt;

use super::{MessageId, TransactionId};

/// What no correct broker does; the rules are at the head of [the module](super).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// A confirmed persistent message is gone.
    Lost,
    /// A message came from nowhere.
    Phantom,
    /// A body is not the one that was published.
    Corrupt,
    /// A message came again as if it were the first time.
    SilentDuplicate,
    /// A message came again whose ack was known to be kept.
    Resurrected,
    /// Messages of one producer came in another order.
    Order,
    /// An answer to what was not asked, or a second one.
    ConfirmHonesty,
    /// A part of a transaction happened and another did not.
    SplitTransaction,
    /// A queue was not emptied at the end.
    Undrained,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Phantom,
        Self::Corrupt,
        Self::SilentDuplicate,
        Self::Resurrected,
        Self::Order,
        Self::ConfirmHonesty,
        Self::SplitTransaction,
        Self::Undrained,
    ];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::Corrupt => "corrupt",
            Self::SilentDuplicate => "silent duplicate",
            Self::Resurrected => "resurrected",
            Self::Order => "order",
            Self::ConfirmHonesty => "confirm honesty",
            Self::SplitTransaction => "split transaction",
            Self::Undrained => "undrained",
        })
    }
}

/// One thing that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of what kind.
    pub verdict: Verdict,
    /// The message, if it is about one.
    pub id: Option<MessageId>,
    /// The queue, if it is about one.
    pub queue: Option<String>,
    /// The transaction, if it is about one.
    pub tx: Option<TransactionId>,
    /// What is wrong, in a sentence.
    pub why: String,
    /// The events that show it, as lines of the journals behind their clients' names.
    pub events: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.verdict)?;
        if let Some(id) = self.id {
            write!(f, " message {id}")?;
        }
        if let Some(queue) = &self.queue {
            write!(f, " queue {queue}")?;
        }
        if let Some(TransactionId(tx)) = self.tx {
            write!(f, " transaction {tx}")?;
        }
        writeln!(f, ": {}", self.why)?;
        self.events.iter().try_for_each(|event| writeln!(f, "    {event}"))
    }
}

/// How much a history holds, so that a reader sees what its silence is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Lives of the broker.
    pub lives: usize,
    /// Lives that ended with a kill.
    pub kills: usize,
    /// Publishes.
    pub published: usize,
    /// Publishes that were confirmed one by one.
    pub confirmed: usize,
    /// Publishes that were refused.
    pub refused: usize,
    /// Deliveries.
    pub delivered: usize,
    /// Deliveries that were flagged.
    pub redelivered: usize,
    /// Deliveries without a flag that would be silent duplicates if their first ones had been noted.
    pub unnoted_repeats: usize,
    /// Acks.
    pub acks: usize,
    /// Acks that were known to be kept for ever.
    pub acks_kept: usize,
    /// Transactions whose commit was answered.
    pub committed: usize,
    /// Transactions whose commit was not answered.
    pub in_doubt: usize,
    /// Transactions that were given up.
    pub rolled_back: usize,
}

/// The checker's findings, and what it looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How much there was to look at.
    pub statistics: Statistics,
    /// What cannot be.
    pub findings: Vec<Finding>,
}

/// Findings of each verdict that are written out.
const SHOWN_MAX: usize = 5;

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// How often each verdict was found that was found at all.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding.verdict).or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.statistics;
        writeln!(f, "lives             {:>9} of which {} were killed", all.lives, all.kills)?;
        let (published, refused) = (all.published, all.refused);
        writeln!(
            f,
            "published         {published:>9} confirmed {} refused {refused}",
            all.confirmed
        )?;
        writeln!(
            f,
            "delivered         {:>9} flagged {} unnoted repeats {}",
            all.delivered, all.redelivered, all.unnoted_repeats
        )?;
        writeln!(f, "acks              {:>9} known to be kept {}", all.acks, all.acks_kept)?;
        writeln!(
            f,
            "committed         {:>9} in doubt {} rolled back {}",
            all.committed, all.in_doubt, all.rolled_back
        )?;
        let counts = self.counts();
        for verdict in Verdict::ALL {
            let count = counts.get(&verdict).copied().unwrap_or_default();
            writeln!(f, "{verdict:<17} {count:>9}")?;
        }
        for verdict in Verdict::ALL {
            let mut found = self.findings.iter().filter(|finding| finding.verdict == verdict);
            for finding in found.by_ref().take(SHOWN_MAX) {
                write!(f, "\n{finding}")?;
            }
            let left = found.count();
            if left > 0 {
                writeln!(f, "\n{verdict}: {left} more")?;
            }
        }
        Ok(())
    }
}
