//! STOMP 1.0, 1.1 and 1.2 on one connection.
//!
//! [`session`] takes frames apart and leads from CONNECT ([`login`]) to the farewell; [`client`] is what a peer that
//! has logged in owns, with one module for each thing it can ask for: [`publish`] (SEND), [`subscribe`] (SUBSCRIBE,
//! UNSUBSCRIBE), [`acknowledge`] (ACK, NACK), [`transaction`] (BEGIN, COMMIT, ABORT). [`deliveries`] is the half that queues
//! deliver into.
//!
//! STOMP knows destinations and headers, the core exchanges, queues and an encoded property list. What stands between
//! them is pure and in three places: [`destination`] and [`properties`] translate, [`subscription`] reads what a queue is
//! declared with. Where the texts of STOMP say nothing, or RabbitMQ does something else, we do what RabbitMQ does: its
//! clients are there.

mod acknowledge;
mod client;
mod deliveries;
mod destination;
mod error;
mod identifier;
mod login;
mod properties;
mod publish;
mod receipts;
mod routes;
mod session;
mod subscribe;
mod subscription;
mod transaction;
mod unacked;

pub(crate) use session::Session;
