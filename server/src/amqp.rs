//! AMQP 0-9-1, 0-9 and 0-8 on one connection.
//!
//! [`session`] holds the connection's state; [`frames`] takes what arrives apart; [`handshake`] brings the
//! connection from the protocol header to `connection.open`, [`closing`] to its end. The methods are in the module of
//! their class: [`channel`], [`topology`] (exchange and queue), [`publish`], [`consume`], [`tx`]. [`deliveries`]
//! is the half that queues deliver into, [`replies`] what waits for the log before it is answered, [`listing`] what
//! operators see.

mod batch;
mod channel;
mod closing;
mod confirm;
mod consume;
mod deliveries;
mod error;
mod frames;
mod handshake;
mod listing;
mod publish;
mod replies;
mod routes;
mod session;
mod topology;
mod tx;
mod unacked;
mod upkeep;

pub(crate) use session::Session;
