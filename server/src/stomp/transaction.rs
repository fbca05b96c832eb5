//! BEGIN, COMMIT, ABORT: what a transaction holds until it is carried out.
//!
//! A SEND in a transaction is checked when it arrives, its destination included, and an ACK as far as its syntax
//! goes. COMMIT first makes sure that all of it can be done (routes, permissions, deliveries that are still
//! outstanding) and then does it: either nothing happens, or everything does. Its receipt waits until all of it
//! is durable.
// RabbitMQ: carries the frames out one by one and stops at the first that fails.

use broker_core::consumer::Fate;
use broker_core::name::ExchangeName;
use broker_core::{Message, Publication};
use proto_amqp::properties;
use proto_stomp::{Command, Frame};

use super::acknowledge::Settlement;
use super::client::{Client, Map};
use super::deliveries::{NotOutstanding, Settled};
use super::error::StompError;
use super::receipts::Of;
use super::routes::Route;
use crate::settings::TxReceipt;
use crate::shares::Shares;

/// A transaction that is open.
#[derive(Debug, Default)]
struct Transaction {
    sends: Vec<Send>,
    settlements: Vec<Settlement>,
    /// Receipts that its SENDs asked for and that were not given yet.
    receipts: Vec<Box<[u8]>>,
    /// Octets of its messages.
    octets: usize,
}

/// A message that waits for COMMIT.
#[derive(Debug)]
struct Send {
    exchange: ExchangeName,
    message: Message,
}

/// The open transactions of a session, by name.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Map<Box<[u8]>, Transaction>,
    octets: usize,
}

impl Transactions {
    pub(super) fn is_open(&self, name: &[u8]) -> bool {
        self.open.contains_key(name)
    }

    /// Messages that wait in all of them.
    pub(super) fn sends(&self) -> u64 {
        self.open.values().map(|transaction| transaction.sends.len() as u64).sum()
    }

    /// Acknowledgements that wait in all of them.
    pub(super) fn settlements(&self) -> u64 {
        self.open.values().map(|transaction| transaction.settlements.len() as u64).sum()
    }

    fn take(&mut self, name: &[u8]) -> Result<Transaction, StompError> {
        let transaction = self.open.remove(name);
        let transaction = transaction.ok_or_else(|| StompError::unknown_transaction(name))?;
        self.octets -= transaction.octets;
        Ok(transaction)
    }

    /// The transaction of that name, with room for one more action.
    ///
    /// One that has grown too large is dropped: committed without the frame that did not fit, it would be
    /// another than the client meant.
    fn with_room(&mut self, name: &[u8], actions_max: u32) -> Result<&mut Transaction, StompError> {
        let open = self.open.get(name).ok_or_else(|| StompError::unknown_transaction(name))?;
        if open.sends.len() + open.settlements.len() >= actions_max as usize {
            self.take(name)?;
            return Err(StompError::too_many_actions(actions_max));
        }
        self.open.get_mut(name).ok_or_else(|| StompError::unknown_transaction(name))
    }
}

fn name_of<'f>(command: Command, frame: &Frame<'f>) -> Result<&'f [u8], StompError> {
    let name = frame.headers.get("transaction");
    name.ok_or_else(|| StompError::missing_transaction(command))
}

/// Whether `value` is an identifier as Net::Stomp makes them: the session, a hyphen, a number.
fn counts_in(session: &str, value: &[u8]) -> bool {
    let number = value.strip_prefix(session.as_bytes()).and_then(|rest| rest.strip_prefix(b"-"));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

impl Client {
    pub(super) fn on_begin(&mut self, frame: &Frame<'_>) -> Result<(), StompError> {
        let name = name_of(Command::Begin, frame)?;
        if self.transactions.is_open(name) {
            return Err(StompError::transaction_exists(name));
        }
        let max = self.node.settings.stomp.max_transactions;
        if self.transactions.open.len() >= max as usize {
            return Err(StompError::too_many_transactions(max));
        }
        self.transactions.open.insert(name.into(), Transaction::default());
        Ok(())
    }

    pub(super) fn on_abort(&mut self, frame: &Frame<'_>) -> Result<(), StompError> {
        self.transactions.take(name_of(Command::Abort, frame)?).map(|_| ())
    }

    /// Drops a transaction, if it is open: its COMMIT will be refused.
    pub(super) fn drop_transaction(&mut self, name: &[u8]) {
        self.transactions.take(name).ok();
    }

    /// Keeps a message until COMMIT.
    pub(super) fn send_in_transaction(
        &mut self,
        name: &[u8],
        exchange: &ExchangeName,
        message: Message,
        receipt: Option<&[u8]>,
    ) -> Result<(), StompError> {
        let settings = &self.node.settings.stomp;
        let octets = message.memory_len();
        if self.transactions.octets + octets > settings.max_transaction_size.as_usize() {
            self.transactions.take(name)?;
            return Err(StompError::transactions_too_large(settings.max_transaction_size));
        }
        let transaction = self.transactions.with_room(name, settings.max_transaction_actions)?;
        transaction.sends.push(Send { exchange: exchange.clone(), message });
        transaction.octets += octets;
        let at_once = receipt.filter(|receipt| match settings.tx_receipt {
            TxReceipt::Commit => false,
            TxReceipt::Immediate => true,
            // Net::Stomp's `send_transactional` waits for the receipt before it commits.
            TxReceipt::Auto => counts_in(&self.session, name) && counts_in(&self.session, receipt),
        });
        let waiting = receipt.filter(|_| at_once.is_none());
        transaction.receipts.extend(waiting.map(Into::into));
        self.transactions.octets += octets;
        if let Some(receipt) = at_once {
            self.write_receipt(receipt);
        }
        Ok(())
    }

    /// Keeps an acknowledgement until COMMIT. Its own receipt, unlike that of a SEND, does not wait for it: it says that
    /// the transaction has it, and clients ask for it before they commit.
    pub(super) fn settle_in_transaction(
        &mut self,
        name: &[u8],
        settlement: Settlement,
    ) -> Result<(), StompError> {
        let max = self.node.settings.stomp.max_transaction_actions;
        self.transactions.with_room(name, max)?.settlements.push(settlement);
        Ok(())
    }

    /// All of it in one step: messages first, then acknowledgements.
    pub(super) fn on_commit(
        &mut self,
        frame: &Frame<'_>,
        receipt: Option<&[u8]>,
    ) -> Result<(), StompError> {
        let transaction = self.transactions.take(name_of(Command::Commit, frame)?)?;
        let Transaction { sends, settlements, receipts, .. } = transaction;
        let routes = self.routes_of(&sends)?;
        let settled = self.take_settled(&settlements)?;
        self.flush_settling();
        let mut shares = Shares::default();
        let mut publications = Vec::with_capacity(sends.len());
        for (Send { message, .. }, route) in sends.into_iter().zip(&routes) {
            self.count_one(message.body_len(), !route.queues.is_empty());
            shares.add(&route.queues, publications.len());
            publications.push(Publication::Owned(message));
        }
        let (settles, slots) = self.settles_of(settled);
        let now = self.node.clock.now();
        let (list, effects) = (&mut shares.list, &mut self.effects);
        let done = self.vhost.commit(&publications, list, settles, effects, now);
        self.done_settling(slots);
        let outcome = done.map_err(|error| StompError::not_committed(error.for_peers()))?;
        self.done_at = self.done_at.max(outcome.position);
        self.backlogged |= outcome.backlogged;
        if !outcome.rejected.is_empty() {
            return Err(StompError::partial_commit());
        }
        // The receipt of COMMIT comes before those of the frames that it carries out.
        if let Some(receipt) = receipt {
            self.receipt_when_done(receipt, Of::Other);
        }
        self.counters().received_confirm.increment(receipts.len() as u64);
        for receipt in receipts {
            self.receipt_when_done(&receipt, Of::Send);
        }
        Ok(())
    }

    /// Looks all routes up again: much may have changed since the SENDs.
    fn routes_of(&self, sends: &[Send]) -> Result<Vec<Route>, StompError> {
        let route_of = |send: &Send| {
            let parts = send.message.parts();
            // They were encoded by us.
            let headers = properties::summarise(parts.properties).unwrap_or_default().headers;
            let (route, _) = self.asking().route(&send.exchange, parts.routing_key, headers)?;
            Ok(route)
        };
        sends.iter().map(route_of).collect()
    }

    /// Takes all deliveries that a transaction settles, or none.
    fn take_settled(
        &self,
        settlements: &[Settlement],
    ) -> Result<Vec<(Fate, Vec<Settled>)>, StompError> {
        let mut state = self.outlet().lock();
        let mut taken = Vec::with_capacity(settlements.len());
        for Settlement { consumer_tag, delivery_tag, fate } in settlements {
            let mut settled = Vec::new();
            match state.deliveries.take(consumer_tag, *delivery_tag, &mut settled) {
                Ok(()) => taken.push((*fate, settled)),
                Err(NotOutstanding::Subscription | NotOutstanding::Delivery) => {
                    let all = taken.into_iter().flat_map(|(_, settled)| settled);
                    state.deliveries.restore(all);
                    return Err(StompError::unknown_delivery_tag(*delivery_tag));
                }
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_net_stomp_counts_within_the_session() {
        let session = "session-x_y";
        assert!(counts_in(session, b"session-x_y-1"));
        assert!(counts_in(session, b"session-x_y-1234"));
        for other in ["", "1", "session-x_y", "session-x_y-", "session-x_y-1a", "session-z-1"] {
            assert!(!counts_in(session, other.as_bytes()), "{other:?}");
        }
    }
}
