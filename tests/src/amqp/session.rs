//! What every client does: log in, open channels, declare, consume, get, acknowledge.

use proto_amqp::Version;
use proto_amqp::control::protocol::{basic, channel, connection, exchange, queue};
use proto_amqp::control::types::{AMQPValue, FieldTable};

use super::tables::table;
use super::{Incoming, Message, Method as _, Peer};
use proto_amqp::control::protocol::AMQPClass;

/// How a client logs in.
#[derive(Debug, Clone)]
pub struct Options {
    /// The version in the protocol header.
    pub version: Version,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// The virtual host.
    pub vhost: String,
    /// Capabilities that the client announces.
    pub capabilities: Vec<&'static str>,
    /// `tune-ok`: the heartbeat interval in seconds, 0 for none.
    pub heartbeat: u16,
    /// `tune-ok`: the largest frame, in octets; `None` takes what is offered.
    pub frame_max: Option<u32>,
    /// `tune-ok`: the number of channels; `None` takes what is offered.
    pub channel_max: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: Version::V0_9_1,
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: "/".to_owned(),
            capabilities: vec![
                "authentication_failure_close",
                "basic.nack",
                "connection.blocked",
                "consumer_cancel_notify",
                "publisher_confirms",
            ],
            heartbeat: 0,
            frame_max: None,
            channel_max: None,
        }
    }
}

impl Options {
    /// Another user, with the password that [`user`](Self::user) has as name too.
    #[must_use]
    pub fn user(name: &str) -> Self {
        Self { user: name.to_owned(), password: name.to_owned(), ..Self::default() }
    }

    /// The client properties of `start-ok`.
    #[must_use]
    pub fn client_properties(&self) -> FieldTable {
        let mut capabilities = FieldTable::default();
        for name in &self.capabilities {
            capabilities.insert((*name).into(), AMQPValue::Boolean(true));
        }
        table([("capabilities", AMQPValue::FieldTable(capabilities))])
    }

    /// `start-ok` with the mechanism PLAIN.
    #[must_use]
    pub fn start_ok(&self) -> connection::StartOk {
        connection::StartOk {
            client_properties: self.client_properties(),
            mechanism: "PLAIN".into(),
            response: format!("\0{}\0{}", self.user, self.password).as_str().into(),
            locale: "en_US".into(),
        }
    }

    /// `connection.open`.
    #[must_use]
    pub fn open(&self) -> connection::Open {
        connection::Open { virtual_host: self.vhost.as_str().into() }
    }
}

impl Peer {
    /// Sends the protocol header of the peer's version and gives `connection.start`.
    pub async fn start(&mut self) -> connection::Start {
        let header = match self.version {
            Version::V0_9_1 => b"AMQP\x00\x00\x09\x01",
            Version::V0_9 => b"AMQP\x01\x01\x00\x09",
            Version::V0_8 => b"AMQP\x01\x01\x09\x01",
        };
        self.send_octets(header).await;
        self.expect(0).await
    }

    /// From the protocol header to `open-ok`.
    pub async fn log_in(&mut self, options: &Options) {
        self.start().await;
        self.send(0, options.start_ok()).await;
        self.tune(options).await;
        self.call(0, options.open()).await;
    }

    /// Answers `tune`.
    pub async fn tune(&mut self, options: &Options) -> connection::Tune {
        let tune: connection::Tune = self.expect(0).await;
        let tune_ok = connection::TuneOk {
            channel_max: options.channel_max.unwrap_or(tune.channel_max),
            frame_max: options.frame_max.unwrap_or(tune.frame_max),
            heartbeat: options.heartbeat,
        };
        self.frame_max = tune_ok.frame_max;
        self.send(0, tune_ok).await;
        tune
    }

    /// Opens a channel.
    pub async fn open_channel(&mut self, channel: u16) {
        self.call(channel, channel::Open {}).await;
    }

    /// Closes a channel in order.
    pub async fn close_channel(&mut self, channel: u16) {
        let close = channel::Close { reply_code: 200, ..channel::Close::default() };
        self.call(channel, close).await;
    }

    /// Closes the connection in order.
    pub async fn close(mut self) {
        let close = connection::Close { reply_code: 200, ..connection::Close::default() };
        self.call(0, close).await;
        self.expect_end().await;
    }

    /// Declares a queue without properties.
    pub async fn declare(&mut self, channel: u16, queue: &str) -> queue::DeclareOk {
        self.declare_with(channel, queue, FieldTable::default()).await
    }

    /// Declares a queue with arguments.
    pub async fn declare_with(
        &mut self,
        channel: u16,
        queue: &str,
        arguments: FieldTable,
    ) -> queue::DeclareOk {
        let queue = queue.into();
        self.call(channel, queue::Declare { queue, arguments, ..queue::Declare::default() }).await
    }

    /// Declares a queue passively: how many messages are ready and how many consumers it has.
    pub async fn counts(&mut self, channel: u16, queue: &str) -> (u32, u32) {
        let (queue, passive) = (queue.into(), true);
        let declare = queue::Declare { queue, passive, ..queue::Declare::default() };
        let ok = self.call(channel, declare).await;
        (ok.message_count, ok.consumer_count)
    }

    /// Declares an exchange without further properties.
    pub async fn declare_exchange(&mut self, channel: u16, exchange: &str, kind: &str) {
        let (exchange, kind) = (exchange.into(), kind.into());
        let declare = exchange::Declare { exchange, kind, ..exchange::Declare::default() };
        self.call(channel, declare).await;
    }

    /// Binds a queue.
    pub async fn bind(&mut self, channel: u16, queue: &str, exchange: &str, routing_key: &str) {
        let (queue, exchange, routing_key) = (queue.into(), exchange.into(), routing_key.into());
        let bind = queue::Bind { queue, exchange, routing_key, ..queue::Bind::default() };
        self.call(channel, bind).await;
    }

    /// Consumes from a queue with this tag, acknowledging.
    pub async fn consume(&mut self, channel: u16, queue: &str, tag: &str) {
        let (queue, consumer_tag) = (queue.into(), tag.into());
        let consume = basic::Consume { queue, consumer_tag, ..basic::Consume::default() };
        self.call(channel, consume).await;
    }

    /// `basic.qos` for consumers to come.
    pub async fn qos(&mut self, channel: u16, prefetch_count: u16) {
        self.call(channel, basic::Qos { prefetch_count, global: false }).await;
    }

    /// Gets a message, if there is one.
    pub async fn get(
        &mut self,
        channel: u16,
        queue: &str,
        no_ack: bool,
    ) -> Option<Message<basic::GetOk>> {
        self.send(channel, basic::Get { queue: queue.into(), no_ack }).await;
        match self.next(channel).await {
            Incoming::Method(AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_))) => None,
            Incoming::Content(Message { method, properties, body }) => {
                match basic::GetOk::from_class(method) {
                    Ok(method) => Some(Message { method, properties, body }),
                    Err(other) => self.fail(&format!("wanted get-ok, got {other:?}")),
                }
            }
            other @ Incoming::Method(_) => self.fail(&format!("wanted get-ok, got {other:?}")),
        }
    }

    /// Gets everything that is ready in a queue, without acknowledgements: the bodies.
    pub async fn drain(&mut self, channel: u16, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(message) = self.get(channel, queue, true).await {
            bodies.push(message.text());
        }
        bodies
    }

    /// Gets messages until there has been one, which must come before the deadline.
    pub async fn get_soon(&mut self, channel: u16, queue: &str) -> Message<basic::GetOk> {
        let mut found = None;
        crate::eventually(&format!("a message in {queue}"), async || {
            found = self.get(channel, queue, true).await;
            found.is_some()
        })
        .await;
        match found {
            Some(message) => message,
            None => self.fail("no message"),
        }
    }

    /// Acknowledges one delivery.
    pub async fn ack(&mut self, channel: u16, delivery_tag: u64) {
        self.send(channel, basic::Ack { delivery_tag, multiple: false }).await;
    }
}
