//! Every metric that can be scraped: name, type, labels, meaning.
//!
//! The names that begin with `rabbitmq_` are RabbitMQ's, so that dashboards and alert rules written for it work;
//! `process_` are those that every Prometheus client library has; `warren_` are ours. `docs/metrics.md` says the same
//! for people, and a test holds the two together.

use std::fmt;

/// A metric.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Labels that it always has.
    pub(super) labels: &'static [&'static str],
    /// Labels that it has in addition where each object is listed by itself.
    pub(super) per_object: &'static [&'static str],
    pub(super) help: &'static str,
}

impl Family {
    /// Whether a series of it may have these labels.
    pub(super) fn takes(&self, labels: &[(&str, &str)]) -> bool {
        let names = || labels.iter().map(|(name, _)| *name);
        let own = self.labels.iter().copied();
        match self.kind {
            Kind::Histogram => names().filter(|name| *name != "le").eq(own),
            _ => names().eq(own) || names().eq(self.per_object.iter().copied()),
        }
    }
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises; written from the broker's state.
    Counter,
    /// Only rises; kept by the recorder.
    Counted,
    /// Rises and falls.
    Gauge,
    /// Always 1: its labels say something.
    Info,
    /// 0 or 1.
    Flag,
    Histogram,
}

impl fmt::Display for Kind {
    /// The word of the text format.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter | Self::Counted => "counter",
            Self::Gauge => "gauge",
            // RabbitMQ: untyped, both.
            Self::Info | Self::Flag => "untyped",
            Self::Histogram => "histogram",
        })
    }
}

macro_rules! families {
    ($($kind:ident $id:ident $name:literal $labels:tt $(per $per:tt)? $help:literal;)*) => {
        $(pub(super) const $id: Family = Family {
            name: $name,
            kind: Kind::$kind,
            labels: &$labels,
            per_object: families!(@per $($per)?),
            help: $help,
        };)*

        /// All of them, in the order of a page.
        pub(super) const ALL: &[&Family] = &[$(&$id),*];
    };
    (@per) => { &[] };
    (@per $per:tt) => { &$per };
}

families! {
    // About the node.
    Info IDENTITY "rabbitmq_identity_info"
        ["rabbitmq_node", "rabbitmq_cluster", "rabbitmq_cluster_permanent_id", "rabbitmq_endpoint"]
        "Which node this is, and which page";
    Info BUILD "rabbitmq_build_info"
        ["rabbitmq_version", "prometheus_plugin_version", "prometheus_client_version", "erlang_version",
         "product_name", "product_version"]
        "Which version runs";
    Gauge UPTIME "rabbitmq_erlang_uptime_seconds" [] "Seconds since the broker started";
    Info DURABILITY "warren_durability_info" ["durability"]
        "When a message counts as kept: fsync, when the disk has it, or os, when the operating system has it";
    Gauge OPEN_FDS "rabbitmq_process_open_fds" [] "File descriptors in use";
    Gauge MAX_FDS "rabbitmq_process_max_fds" [] "File descriptors that the process may have";
    Gauge RESIDENT_MEMORY "rabbitmq_process_resident_memory_bytes" [] "Resident memory";
    Gauge MEMORY_LIMIT "rabbitmq_resident_memory_limit_bytes" []
        "Resident memory at which publishers are held (limits.memory)";
    Gauge DISK_FREE "rabbitmq_disk_space_available_bytes" [] "Free space where the data are";
    Gauge DISK_LIMIT "rabbitmq_disk_space_available_limit_bytes" []
        "Free space below which publishers are held (limits.disk_free)";
    Flag MEMORY_ALARM "rabbitmq_alarms_memory_used_watermark" [] "1 while the memory alarm holds publishers";
    Flag DISK_ALARM "rabbitmq_alarms_free_disk_space_watermark" [] "1 while the disk alarm holds publishers";
    Flag STORE_ALARM "warren_alarms_store" [] "1 while the store cannot be written: only a restart ends it";
    Counted PUBLISHERS_BLOCKED "warren_publishers_blocked_total" [] "Publishers that were told to wait";

    // The store.
    Gauge STORE_OPEN_PHASE "warren_store_open_phase" ["phase"]
        "1 for what opening the store is busy with (start, scan, replay, segments, restore) and for open, 0 for the others";
    Gauge STORE_OPEN_RATIO "warren_store_open_progress_ratio" []
        "How far that phase is, from 0 to 1; 1 when the store is open";
    Gauge STORE_DAMAGE "warren_store_damage" [] "Damages found in the store since the broker started, opening included";
    Counter STORE_COMMITS "warren_store_commits_total" [] "Group commits: writes of the log that were flushed";
    Counter STORE_APPENDED "warren_store_appended_bytes_total" [] "Octets of records that were appended to the log";
    Counter STORE_WRITTEN "warren_store_log_written_bytes_total" [] "Octets written to the log, padding included";
    Counter STORE_SPILLED "warren_store_spilled_bytes_total" [] "Octets moved from the log to segments";
    Counter STORE_COMPACTED "warren_store_compacted_bytes_total" [] "Octets rewritten to give space back";
    Counter STORE_PREPARED "warren_store_prepared_bytes_total" [] "Octets of zeros written to make files of the log";
    Counter STORE_CHECKPOINTS "warren_store_checkpoints_total" [] "Checkpoints written";
    Counter STORE_SCRUBBED "warren_store_scrubbed_bytes_total" []
        "Octets of segments that were read again in the background (store.scrub_rate)";
    Counter STORE_SCRUBS "warren_store_scrubs_total" [] "Times that all segments have been read so";
    Counter STORE_WRITE_FAILURES "warren_store_write_failures_total" [] "Writes or flushes of the log that failed";
    Gauge STORE_INDEX_MEMORY "warren_store_index_bytes" [] "Memory of the index of stored messages";
    Gauge STORE_CACHE_MEMORY "warren_store_cache_bytes" [] "Memory of blocks that were read (store.read_cache)";
    Gauge STORE_MESSAGE_MEMORY "warren_store_message_memory_bytes" []
        "Memory of persistent messages of durable queues, those that consumers have included (store.message_memory)";

    // Connections and logins.
    Gauge CONNECTIONS "rabbitmq_connections" [] "Connections that are open";
    Counted CONNECTIONS_OPENED "rabbitmq_connections_opened_total" [] "Connections opened";
    Counted CONNECTIONS_CLOSED "rabbitmq_connections_closed_total" [] "Connections closed";
    Counted CONNECTIONS_REFUSED "warren_connections_refused_total" []
        "Connections turned away because there were too many";
    Counted PENDING_LOGINS_CLOSED "warren_pending_logins_closed_total" []
        "Connections closed before login because too many wait for one (limits.pending_logins)";
    Counted LOGINS_DELAYED "warren_logins_delayed_total" []
        "Logins that had to wait because others from their address had failed (auth.login_backoff)";
    Counted TCP_PROBES "warren_tcp_probes_total" [] "Connections closed without a single octet, as by health checks";
    Counted TLS_FAILED "warren_tls_handshakes_failed_total" [] "TLS handshakes that failed";
    Counter AUTH_ATTEMPTS "rabbitmq_auth_attempts_total" ["protocol"] "Logins tried";
    Counted AUTH_SUCCEEDED "rabbitmq_auth_attempts_succeeded_total" ["protocol"] "Logins that succeeded";
    Counted AUTH_FAILED "rabbitmq_auth_attempts_failed_total" ["protocol"] "Logins that failed";
    Gauge CONNECTION_CHANNELS "rabbitmq_connection_channels" [] per ["connection"] "Channels on connections";
    Counter CONNECTION_INCOMING "rabbitmq_connection_incoming_bytes_total" [] per ["connection"]
        "Octets received; only listed by connection, since a sum would fall when one closes";
    Counter CONNECTION_OUTGOING "rabbitmq_connection_outgoing_bytes_total" [] per ["connection"]
        "Octets sent; only listed by connection, since a sum would fall when one closes";

    // Channels.
    Gauge CHANNELS "rabbitmq_channels" [] "Channels that are open; a STOMP connection has one";
    Counted CHANNELS_OPENED "rabbitmq_channels_opened_total" [] "Channels opened";
    Counted CHANNELS_CLOSED "rabbitmq_channels_closed_total" [] "Channels closed";
    Gauge CHANNEL_CONSUMERS "rabbitmq_channel_consumers" [] per ["channel"] "Consumers on channels";
    Gauge CHANNEL_UNACKED "rabbitmq_channel_messages_unacked" [] per ["channel"]
        "Messages delivered and not yet acknowledged";
    Gauge CHANNEL_UNCONFIRMED "rabbitmq_channel_messages_unconfirmed" [] per ["channel"]
        "Messages published and not yet confirmed";
    Gauge CHANNEL_UNCOMMITTED "rabbitmq_channel_messages_uncommitted" [] per ["channel"]
        "Messages published in a transaction that is open";
    Gauge CHANNEL_ACKS_UNCOMMITTED "rabbitmq_channel_acks_uncommitted" [] per ["channel"]
        "Acknowledgements in a transaction that is open";
    Gauge CONSUMER_PREFETCH "rabbitmq_consumer_prefetch" [] per ["channel"]
        "Unacknowledged messages that each new consumer may have";
    Gauge CHANNEL_PREFETCH "rabbitmq_channel_prefetch" [] per ["channel"]
        "Unacknowledged messages that the consumers of a channel may have together";
    Counter CHANNEL_UNROUTABLE_DROPPED "rabbitmq_channel_messages_unroutable_dropped_total" []
        "Messages that went to no queue and were dropped";
    Counter CHANNEL_UNROUTABLE_RETURNED "rabbitmq_channel_messages_unroutable_returned_total" []
        "Messages that went to no queue and were returned";

    // Queues.
    Gauge QUEUES "rabbitmq_queues" [] "Queues";
    Counter QUEUES_DECLARED "rabbitmq_queues_declared_total" []
        "Queues declared; a declaration of one that is there does not count";
    Counter QUEUES_CREATED "rabbitmq_queues_created_total" [] "Queues created";
    Counter QUEUES_DELETED "rabbitmq_queues_deleted_total" [] "Queues deleted";
    Gauge CONSUMERS "rabbitmq_consumers" [] "Consumers";
    Gauge QUEUE_READY "rabbitmq_queue_messages_ready" [] per ["vhost", "queue"] "Messages waiting for a consumer";
    Gauge QUEUE_UNACKED "rabbitmq_queue_messages_unacked" [] per ["vhost", "queue"]
        "Messages delivered and not yet acknowledged";
    Gauge QUEUE_MESSAGES "rabbitmq_queue_messages" [] per ["vhost", "queue"] "Messages ready and unacknowledged";
    Gauge QUEUE_READY_BYTES "rabbitmq_queue_messages_ready_bytes" [] per ["vhost", "queue"]
        "Octets of the bodies of messages that are ready";
    Gauge QUEUE_UNACKED_BYTES "rabbitmq_queue_messages_unacked_bytes" [] per ["vhost", "queue"]
        "Octets of the bodies of messages that are unacknowledged";
    Gauge QUEUE_BYTES "rabbitmq_queue_messages_bytes" [] per ["vhost", "queue"]
        "Octets of the bodies of all messages";
    Gauge QUEUE_CONSUMERS "rabbitmq_queue_consumers" [] per ["vhost", "queue"] "Consumers of queues";

    // Messages, since the start.
    Gauge GLOBAL_CONSUMERS "rabbitmq_global_consumers" ["protocol"] "Consumers";
    Gauge GLOBAL_PUBLISHERS "rabbitmq_global_publishers" ["protocol"] "Channels that have published";
    Counter DEAD_CONFIRMED "rabbitmq_global_messages_dead_lettered_confirmed_total" ["queue_type", "dead_letter_strategy"]
        "Dead letters that their target confirmed; none with this strategy";
    Counter DEAD_DELIVERY_LIMIT "rabbitmq_global_messages_dead_lettered_delivery_limit_total" ["queue_type", "dead_letter_strategy"]
        "Messages dead-lettered because they came back too often";
    Counter DEAD_EXPIRED "rabbitmq_global_messages_dead_lettered_expired_total" ["queue_type", "dead_letter_strategy"]
        "Messages dead-lettered because they expired";
    Counter DEAD_MAXLEN "rabbitmq_global_messages_dead_lettered_maxlen_total" ["queue_type", "dead_letter_strategy"]
        "Messages dead-lettered because their queue was full";
    Counter DEAD_REJECTED "rabbitmq_global_messages_dead_lettered_rejected_total" ["queue_type", "dead_letter_strategy"]
        "Messages dead-lettered because a consumer rejected them";
    Counted RECEIVED "rabbitmq_global_messages_received_total" ["protocol"] "Messages received from publishers";
    Counted RECEIVED_CONFIRM "rabbitmq_global_messages_received_confirm_total" ["protocol"]
        "Messages received that want a confirm or a receipt; those of a STOMP transaction count at its commit";
    Counted CONFIRMED "rabbitmq_global_messages_confirmed_total" ["protocol"] "Messages confirmed to publishers";
    Counted ROUTED "rabbitmq_global_messages_routed_total" ["protocol"] "Messages put into queues, once for each queue";
    Counted UNROUTABLE_DROPPED "rabbitmq_global_messages_unroutable_dropped_total" ["protocol"]
        "Messages that went to no queue and were dropped";
    Counted UNROUTABLE_RETURNED "rabbitmq_global_messages_unroutable_returned_total" ["protocol"]
        "Messages that went to no queue and were returned";
    Counted DELIVERED "rabbitmq_global_messages_delivered_total" ["protocol", "queue_type"] "Messages delivered or fetched";
    Counted DELIVERED_AUTO_ACK "rabbitmq_global_messages_delivered_consume_auto_ack_total" ["protocol", "queue_type"]
        "Messages delivered to consumers that do not acknowledge";
    Counted DELIVERED_MANUAL_ACK "rabbitmq_global_messages_delivered_consume_manual_ack_total"
        ["protocol", "queue_type"] "Messages delivered to consumers that acknowledge";
    Counted GET_AUTO_ACK "rabbitmq_global_messages_delivered_get_auto_ack_total" ["protocol", "queue_type"]
        "Messages fetched by clients that do not acknowledge";
    Counted GET_MANUAL_ACK "rabbitmq_global_messages_delivered_get_manual_ack_total" ["protocol", "queue_type"]
        "Messages fetched by clients that acknowledge";
    Counted GET_EMPTY "rabbitmq_global_messages_get_empty_total" ["protocol", "queue_type"]
        "Times that a client wanted to fetch a message and there was none";
    Counted REDELIVERED "rabbitmq_global_messages_redelivered_total" ["protocol", "queue_type"]
        "Messages delivered or fetched with the flag redelivered, which after a crash says that they may have been";
    Counted ACKNOWLEDGED "rabbitmq_global_messages_acknowledged_total" ["protocol", "queue_type"]
        "Messages acknowledged by consumers";
    Histogram MESSAGE_SIZE "rabbitmq_message_size_bytes" ["protocol"] "Sizes of the bodies of messages received";

    // The process, under the names that every client library has.
    Counter PROCESS_CPU "process_cpu_seconds_total" [] "Processor time used, in seconds";
    Gauge PROCESS_OPEN_FDS "process_open_fds" [] "File descriptors in use";
    Gauge PROCESS_MAX_FDS "process_max_fds" [] "File descriptors that the process may have";
    Gauge PROCESS_RESIDENT_MEMORY "process_resident_memory_bytes" [] "Resident memory";
    Gauge PROCESS_VIRTUAL_MEMORY "process_virtual_memory_bytes" [] "Virtual memory";
    Gauge PROCESS_THREADS "process_threads" [] "Threads";
    Gauge PROCESS_START "process_start_time_seconds" [] "When the process started, in seconds since 1970";

    // The page itself.
    Gauge SERIES_OMITTED "warren_scrape_series_omitted" []
        "Series of single objects left out of this page because it has too many";
}
