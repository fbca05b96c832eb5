//! Counters of the node and of each protocol, under the names that RabbitMQ's dashboards ask for.
//!
//! They go through `metrics`; the handles are made once and kept, so that counting is an addition. Hot paths add
//! once a batch. A counter belongs to the node and never falls when a connection or a queue ends.

use metrics::{Counter, Recorder, counter, with_local_recorder};
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the classes of message sizes, in octets; one more class has no bound.
pub(crate) const SIZE_CLASSES: [u64; 8] =
    [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];

/// Which protocol a counter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Amqp,
    Stomp1_0,
    Stomp1_1,
    Stomp1_2,
}

impl Protocol {
    pub(crate) const ALL: [Self; 4] = [Self::Amqp, Self::Stomp1_0, Self::Stomp1_1, Self::Stomp1_2];

    /// The value of the label `protocol`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Amqp => "amqp091",
            Self::Stomp1_0 => "STOMP 1.0",
            Self::Stomp1_1 => "STOMP 1.1",
            Self::Stomp1_2 => "STOMP 1.2",
        }
    }
}

/// Sizes of published messages, in classes.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    classes: [AtomicU64; SIZE_CLASSES.len() + 1],
    sum: AtomicU64,
}

impl Sizes {
    /// Counts messages of one size.
    pub(crate) fn record(&self, size: u64, count: u64) {
        let class = SIZE_CLASSES.partition_point(|bound| *bound < size);
        if let Some(class) = self.classes.get(class) {
            // Relaxed: statistics.
            class.fetch_add(count, Ordering::Relaxed);
        }
        self.sum.fetch_add(size.saturating_mul(count), Ordering::Relaxed);
    }

    /// Counts per class, not cumulated, and the sum of all sizes.
    pub(crate) fn read(&self) -> ([u64; SIZE_CLASSES.len() + 1], u64) {
        let classes = std::array::from_fn(|index| {
            self.classes.get(index).map_or(0, |class| class.load(Ordering::Relaxed))
        });
        (classes, self.sum.load(Ordering::Relaxed))
    }
}

/// Counters of one protocol.
pub(crate) struct ProtocolCounters {
    pub(crate) received: Counter,
    pub(crate) received_confirm: Counter,
    pub(crate) confirmed: Counter,
    pub(crate) routed: Counter,
    pub(crate) unroutable_dropped: Counter,
    pub(crate) unroutable_returned: Counter,
    pub(crate) delivered: Counter,
    pub(crate) delivered_auto_ack: Counter,
    pub(crate) delivered_manual_ack: Counter,
    pub(crate) get_auto_ack: Counter,
    pub(crate) get_manual_ack: Counter,
    pub(crate) get_empty: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) auth_succeeded: Counter,
    pub(crate) auth_failed: Counter,
    pub(crate) sizes: Sizes,
}

impl std::fmt::Debug for ProtocolCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProtocolCounters")
    }
}

impl ProtocolCounters {
    fn new(protocol: Protocol) -> Self {
        const CLASSIC: &str = "rabbit_classic_queue";
        let label = protocol.label();
        let by_protocol = |name: &'static str| counter!(name, "protocol" => label);
        let by_queue =
            |name: &'static str| counter!(name, "protocol" => label, "queue_type" => CLASSIC);
        Self {
            received: by_protocol("rabbitmq_global_messages_received_total"),
            received_confirm: by_protocol("rabbitmq_global_messages_received_confirm_total"),
            confirmed: by_protocol("rabbitmq_global_messages_confirmed_total"),
            routed: by_protocol("rabbitmq_global_messages_routed_total"),
            unroutable_dropped: by_protocol("rabbitmq_global_messages_unroutable_dropped_total"),
            unroutable_returned: by_protocol("rabbitmq_global_messages_unroutable_returned_total"),
            delivered: by_queue("rabbitmq_global_messages_delivered_total"),
            delivered_auto_ack: by_queue(
                "rabbitmq_global_messages_delivered_consume_auto_ack_total",
            ),
            delivered_manual_ack: by_queue(
                "rabbitmq_global_messages_delivered_consume_manual_ack_total",
            ),
            get_auto_ack: by_queue("rabbitmq_global_messages_delivered_get_auto_ack_total"),
            get_manual_ack: by_queue("rabbitmq_global_messages_delivered_get_manual_ack_total"),
            get_empty: by_queue("rabbitmq_global_messages_get_empty_total"),
            redelivered: by_queue("rabbitmq_global_messages_redelivered_total"),
            acknowledged: by_queue("rabbitmq_global_messages_acknowledged_total"),
            auth_succeeded: by_protocol("rabbitmq_auth_attempts_succeeded_total"),
            auth_failed: by_protocol("rabbitmq_auth_attempts_failed_total"),
            sizes: Sizes::default(),
        }
    }
}

/// All counters of a node.
pub(crate) struct Counters {
    protocols: [ProtocolCounters; Protocol::ALL.len()],
    pub(crate) connections_opened: Counter,
    pub(crate) connections_closed: Counter,
    pub(crate) channels_opened: Counter,
    pub(crate) channels_closed: Counter,
    /// Connections that were closed again without a single octet: health checks.
    pub(crate) probes: Counter,
    /// Connections turned away because there were too many.
    pub(crate) connections_refused: Counter,
    /// Connections closed before login because too many had not logged in.
    pub(crate) pending_logins_closed: Counter,
    /// Logins that had to wait because others from their address had failed.
    pub(crate) logins_delayed: Counter,
    /// TLS handshakes that failed.
    pub(crate) tls_failed: Counter,
    /// Publishers that were told to wait.
    pub(crate) publishers_blocked: Counter,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl Counters {
    /// Counters whose values `recorder` keeps.
    pub(crate) fn new(recorder: &dyn Recorder) -> Self {
        with_local_recorder(recorder, || Self {
            protocols: Protocol::ALL.map(ProtocolCounters::new),
            connections_opened: counter!("rabbitmq_connections_opened_total"),
            connections_closed: counter!("rabbitmq_connections_closed_total"),
            channels_opened: counter!("rabbitmq_channels_opened_total"),
            channels_closed: counter!("rabbitmq_channels_closed_total"),
            probes: counter!("warren_tcp_probes_total"),
            connections_refused: counter!("warren_connections_refused_total"),
            pending_logins_closed: counter!("warren_pending_logins_closed_total"),
            logins_delayed: counter!("warren_logins_delayed_total"),
            tls_failed: counter!("warren_tls_handshakes_failed_total"),
            publishers_blocked: counter!("warren_publishers_blocked_total"),
        })
    }

    /// The counters of a protocol.
    pub(crate) fn of(&self, protocol: Protocol) -> &ProtocolCounters {
        let [amqp, stomp_1_0, stomp_1_1, stomp_1_2] = &self.protocols;
        match protocol {
            Protocol::Amqp => amqp,
            Protocol::Stomp1_0 => stomp_1_0,
            Protocol::Stomp1_1 => stomp_1_1,
            Protocol::Stomp1_2 => stomp_1_2,
        }
    }
}
