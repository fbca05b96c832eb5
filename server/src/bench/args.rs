//! The arguments of `warren bench`, and which of them go together.
//!
//! An option that would have no effect in a combination is refused rather than ignored: a figure whose
//! command line says `--prefetch 10` must have been measured with a prefetch of 10.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::error::BenchError;
use super::walk::STAMP_LEN;

/// Deliveries in flight to a consumer that acknowledges, unless `--prefetch` says otherwise.
const PREFETCH_DEFAULT: NonZeroU16 = NonZeroU16::new(1000).unwrap();

/// The largest body that can be asked for, in octets: the ring of encoded messages is kept in memory.
const SIZE_MAX: u64 = 64 * 1024 * 1024;

/// Most queues or bindings of one run; the numbers in their names have a fixed width.
pub(super) const NAMES_MAX: i64 = 9_999;

/// Generate load for an AMQP 0-9-1 or STOMP broker and measure it.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What `warren bench` can measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Publish and consume as fast as possible.
    Throughput(ThroughputArgs),
    /// Publish at a fixed rate and measure the time until delivery.
    Latency(LatencyArgs),
    /// Open many connections and hold them.
    Connections(ConnectionsArgs),
    /// Open and close connections, channels, queues or subscriptions over and over.
    Churn(ChurnArgs),
    /// Fill durable queues with persistent, confirmed messages while nobody consumes, then empty them (AMQP).
    Backlog(BacklogArgs),
    /// Measure the ceiling: the same load against a broker that only parses and forwards. The reported
    /// processor time is of both, which share a process.
    Null(NullArgs),
}

/// A wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// AMQP 0-9-1.
    Amqp,
    /// STOMP 1.2.
    Stomp,
}

impl Protocol {
    /// The name on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Stomp => "stomp",
        }
    }
}

/// Where the broker is and how the result is printed.
#[derive(Clone, Debug, Args)]
pub struct TargetArgs {
    /// Broker: amqp://user:password@host:port/vhost or stomp://user:password@host:port/vhost
    /// [default: guest on 127.0.0.1 and the protocol's port]
    #[arg(long)]
    pub url: Option<String>,
    /// Protocol; without --url it chooses the default address [default: the scheme of --url, or amqp]
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// Allow an address that is not loopback
    #[arg(long)]
    pub allow_remote: bool,
    /// Process of the broker, for its processor time and memory
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<i32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The way of the messages: who publishes, through what, to whom.
#[derive(Clone, Debug, Args, Serialize)]
pub struct PathArgs {
    /// Publishing connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub producers: u32,
    /// Consuming connections; each queue gets at least one while there are any
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub consumers: u32,
    /// Queues; producer n and consumer n use queue n modulo their number
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=NAMES_MAX))]
    pub queues: u32,
    /// Octets in a body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(0..=SIZE_MAX))]
    pub size: u64,
    /// How deliveries are acknowledged
    #[arg(long, value_enum, default_value_t = AckChoice::Auto)]
    pub ack: AckChoice,
    /// Unacknowledged deliveries per consumer [default: 1000 with --ack manual or individual]
    #[arg(long)]
    pub prefetch: Option<NonZeroU16>,
    /// Publish persistent messages (AMQP delivery-mode 2, STOMP `persistent:true`)
    #[arg(long)]
    pub persistent: bool,
    /// Declare durable queues and exchanges
    #[arg(long)]
    pub durable: bool,
    /// Publish through an exchange of this type instead of the default exchange; for STOMP, `fanout` uses
    /// a /topic/ destination
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub exchange_shape: Option<ExchangeShape>,
    /// Bindings of a direct or topic exchange, spread over the queues; each message matches one
    /// [default: one a queue]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=NAMES_MAX))]
    pub bindings: Option<u32>,
    /// Length of the measurement
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Load before the measurement starts
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub warmup: Duration,
    /// Longest wait, after the producers stop, for what is still in the queues
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub drain: Duration,
}

/// How a consumer acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AckChoice {
    /// Not at all: the broker counts a delivery as acknowledged once it is sent (AMQP no-ack).
    Auto,
    /// Cumulatively, at half the prefetch.
    Manual,
    /// Each delivery by itself, written together per read.
    Individual,
    /// Never, although the broker waits for it: deliveries pile up as unacknowledged, without a prefetch
    /// unless one is given.
    None,
}

/// The type of the exchange between producers and queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeShape {
    /// One binding key per binding, matched literally.
    Direct,
    /// Every queue gets every message.
    Fanout,
    /// Patterns with `*` and `#`, of which each message matches one.
    Topic,
}

impl ExchangeShape {
    /// The exchange type's name in both protocols.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
        }
    }
}

/// Arguments of `warren bench throughput`.
#[derive(Debug, Args)]
pub struct ThroughputArgs {
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The way of the messages.
    #[command(flatten)]
    pub path: PathArgs,
    /// Limits and confirms.
    #[command(flatten)]
    pub pace: PaceArgs,
}

/// How producers are held back.
#[derive(Clone, Debug, Args, Serialize)]
pub struct PaceArgs {
    /// Messages in all; measures from the first publish to the last delivery, without a warm-up, and
    /// --duration becomes the limit
    #[arg(long, conflicts_with = "warmup")]
    pub messages: Option<NonZeroU64>,
    /// Ask for publisher confirms (STOMP: receipts) and keep at most so many publishes unconfirmed per
    /// producer [default: no confirms]
    #[arg(long, value_name = "WINDOW", value_parser = confirm_window)]
    pub confirm_window: Option<NonZeroU32>,
}

/// Largest confirm window; bounds the memory that tracks it.
const CONFIRM_WINDOW_MAX: u32 = 1_000_000;

fn confirm_window(text: &str) -> Result<NonZeroU32, String> {
    let window: NonZeroU32 = text.parse().map_err(|error| format!("{error}"))?;
    if window.get() > CONFIRM_WINDOW_MAX {
        return Err(format!("at most {CONFIRM_WINDOW_MAX}"));
    }
    Ok(window)
}

/// Arguments of `warren bench latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The way of the messages.
    #[command(flatten)]
    pub path: PathArgs,
    /// Messages a second, of all producers together
    #[arg(long, default_value = "2000")]
    pub rate: NonZeroU64,
}

/// Arguments of `warren bench connections`.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Connections to open and hold
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub count: u32,
    /// Connections opened per second [default: as many as the broker takes]
    #[arg(long, value_name = "RATE")]
    pub open_rate: Option<NonZeroU64>,
    /// Channels opened on each connection (AMQP)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=2047))]
    pub channels: u16,
    /// Logins under way at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: u32,
    /// How long all of them are held before the memory is read
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// Longest time for opening them
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}

/// Arguments of `warren bench churn`.
#[derive(Debug, Args)]
pub struct ChurnArgs {
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What is opened and closed
    #[arg(value_enum, default_value_t = ChurnSubject::Connections)]
    pub subject: ChurnSubject,
    /// How many do it at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: u32,
    /// How long
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}

/// What `warren bench churn` opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChurnSubject {
    /// Login and logout.
    Connections,
    /// channel.open and channel.close on one connection (AMQP).
    Channels,
    /// queue.declare and queue.delete of a transient queue (AMQP).
    Queues,
    /// basic.consume and basic.cancel, or SUBSCRIBE and UNSUBSCRIBE.
    Subscriptions,
}

/// Arguments of `warren bench backlog`.
#[derive(Debug, Args)]
pub struct BacklogArgs {
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Messages in all
    #[arg(long)]
    pub messages: NonZeroU64,
    /// Octets in a body; the first eight are the message's number in its queue
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(STAMP_LEN as u64..=SIZE_MAX))]
    pub size: u64,
    /// Durable queues, each with a publishing and a consuming connection of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub queues: u32,
    /// Publishes without a confirm per queue [default: 1000]
    #[arg(long, value_name = "WINDOW", value_parser = confirm_window)]
    pub confirm_window: Option<NonZeroU32>,
    /// Unacknowledged deliveries per queue, acknowledged cumulatively at half of it [default: 500]
    #[arg(long)]
    pub prefetch: Option<NonZeroU16>,
    /// What to do: to restart the broker in between, publish in one run and drain in a second one
    #[arg(long, value_enum, default_value_t = BacklogPhase::Both)]
    pub phase: BacklogPhase,
    /// How the names of the queues start; they end in a number [default: a random name]
    #[arg(long, value_name = "NAME")]
    pub queue_prefix: Option<String>,
    /// Wait between the two phases
    #[arg(long, value_parser = humantime::parse_duration)]
    pub pause: Option<Duration>,
    /// Longest time for each phase
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}

/// Which half of a backlog's life a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BacklogPhase {
    /// Declare the queues, publish, and keep them.
    Publish,
    /// Consume what a `publish` run with the same options left, and delete the queues.
    Drain,
    /// One after the other.
    Both,
}

impl BacklogPhase {
    /// Whether messages are published.
    pub(super) const fn publishes(self) -> bool {
        matches!(self, Self::Publish | Self::Both)
    }

    /// Whether messages are consumed.
    pub(super) const fn drains(self) -> bool {
        matches!(self, Self::Drain | Self::Both)
    }
}

/// Publishes without a confirm in a backlog run, unless `--confirm-window` says otherwise.
const BACKLOG_WINDOW_DEFAULT: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Deliveries in flight from each queue of a backlog run, unless `--prefetch` says otherwise.
const BACKLOG_PREFETCH_DEFAULT: NonZeroU16 = NonZeroU16::new(500).unwrap();

impl BacklogArgs {
    /// Refuses combinations in which an option would have no effect or no sense.
    ///
    /// # Errors
    /// [`BenchError::Usage`] naming the option.
    pub(super) fn check(&self, protocol: Protocol) -> Result<(), BenchError> {
        let refuse = |why: &str| Err(BenchError::Usage(why.to_owned()));
        if protocol == Protocol::Stomp {
            return refuse("STOMP cannot declare durable queues: backlog is for AMQP");
        }
        if self.messages.get() < u64::from(self.queues) {
            return refuse("--messages: fewer than --queues would leave a queue without messages");
        }
        if self.duration.is_zero() {
            return refuse("--duration 0s: there would be nothing to measure");
        }
        if !self.phase.publishes() && self.confirm_window.is_some() {
            return refuse("--confirm-window has no effect with --phase drain");
        }
        if !self.phase.drains() && self.prefetch.is_some() {
            return refuse("--prefetch has no effect with --phase publish");
        }
        if self.phase != BacklogPhase::Both && self.pause.is_some() {
            return refuse("--pause is between two phases: it needs --phase both");
        }
        if self.phase != BacklogPhase::Both && self.queue_prefix.is_none() {
            return refuse(
                "--phase publish or drain needs --queue-prefix, to find the queues again",
            );
        }
        Ok(())
    }

    /// Most publishes without a confirm, for each queue.
    pub(super) fn confirm_window(&self) -> NonZeroU32 {
        self.confirm_window.unwrap_or(BACKLOG_WINDOW_DEFAULT)
    }

    /// Most deliveries without an acknowledgement, for each queue.
    pub(super) fn prefetch(&self) -> NonZeroU16 {
        self.prefetch.unwrap_or(BACKLOG_PREFETCH_DEFAULT)
    }
}

/// Arguments of `warren bench null`.
#[derive(Debug, Args)]
pub struct NullArgs {
    /// Only be the broker, for another process to load, until --serve-for is over
    #[arg(long, conflicts_with_all = ["LoadArgs", "PathArgs", "PaceArgs"])]
    pub serve: bool,
    /// Loopback address for AMQP clients while serving
    #[arg(long, requires = "serve", default_value = "127.0.0.1:5672")]
    pub listen: SocketAddr,
    /// Loopback address for STOMP clients while serving
    #[arg(long, requires = "serve", default_value = "127.0.0.1:61613")]
    pub stomp_listen: SocketAddr,
    /// How long to serve
    #[arg(long, requires = "serve", default_value = "1h", value_parser = humantime::parse_duration)]
    pub serve_for: Duration,
    /// Load for a null broker inside this process.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// The load of a null broker inside this process.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Protocol
    #[arg(long, value_enum, default_value_t = Protocol::Amqp)]
    pub protocol: Protocol,
    /// The way of the messages.
    #[command(flatten)]
    pub path: PathArgs,
    /// Limits and confirms.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

impl PaceArgs {
    /// Refuses limits for producers when there are none.
    ///
    /// # Errors
    /// [`BenchError::Usage`] naming the option.
    pub(super) fn check(&self, path: &PathArgs) -> Result<(), BenchError> {
        if path.producers == 0 && (self.messages.is_some() || self.confirm_window.is_some()) {
            return Err(BenchError::Usage(
                "--messages and --confirm-window have no effect with --producers 0".to_owned(),
            ));
        }
        Ok(())
    }
}

impl PathArgs {
    /// Refuses combinations in which an option would have no effect or no sense.
    ///
    /// # Errors
    /// [`BenchError::Usage`] naming the option.
    pub(super) fn check(&self, protocol: Protocol) -> Result<(), BenchError> {
        let refuse = |why: &str| Err(BenchError::Usage(why.to_owned()));
        if self.producers == 0 && self.consumers == 0 {
            return refuse("--producers 0 --consumers 0: nobody would do anything");
        }
        if self.duration.is_zero() {
            return refuse("--duration 0s: there would be nothing to measure");
        }
        if self.ack == AckChoice::Auto && self.prefetch.is_some() {
            return refuse("--prefetch has no effect with --ack auto");
        }
        if self.consumers == 0 && self.ack != AckChoice::Auto {
            return refuse("--ack has no effect with --consumers 0");
        }
        match self.exchange_shape {
            None if self.bindings.is_some() => {
                return refuse("--bindings needs --exchange-shape direct or topic");
            }
            Some(ExchangeShape::Fanout) if self.bindings.is_some() => {
                return refuse("--bindings has no effect with --exchange-shape fanout");
            }
            Some(_) | None => {}
        }
        if self.bindings.is_some_and(|bindings| bindings < self.queues) {
            return refuse("--bindings: fewer than --queues would leave a queue without messages");
        }
        if protocol == Protocol::Stomp {
            if matches!(self.exchange_shape, Some(ExchangeShape::Direct | ExchangeShape::Topic)) {
                return refuse(
                    "STOMP has no exchanges: --exchange-shape takes only `fanout` there",
                );
            }
            if self.consumers < self.queues {
                return refuse(
                    "STOMP needs a consumer for each queue: its queues go with their consumers",
                );
            }
            if self.exchange_shape.is_some() && self.queues != self.consumers {
                return refuse(
                    "a STOMP topic has a queue for each consumer: --queues must equal --consumers",
                );
            }
        }
        Ok(())
    }

    /// The prefetch asked of the broker; `None` means no bound.
    pub(super) fn prefetch(&self) -> Option<NonZeroU16> {
        match self.ack {
            AckChoice::Auto => None,
            AckChoice::None => self.prefetch,
            AckChoice::Manual | AckChoice::Individual => {
                Some(self.prefetch.unwrap_or(PREFETCH_DEFAULT))
            }
        }
    }
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(super::stats::seconds(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn path(words: &str) -> Result<PathArgs, String> {
        let words = format!("bench throughput {words}");
        let command =
            Command::try_parse_from(words.split_whitespace()).map_err(|e| e.to_string())?;
        let BenchCommand::Throughput(args) = command.bench.command else {
            return Err("not a throughput run".to_owned());
        };
        args.path
            .check(args.target.protocol.unwrap_or(Protocol::Amqp))
            .and_then(|()| args.pace.check(&args.path))
            .map_err(|e| e.to_string())?;
        Ok(args.path)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Command::command().debug_assert();
    }

    #[test]
    fn an_option_without_effect_is_refused_by_name() {
        for (words, named) in [
            ("--prefetch 10", "--prefetch"),
            ("--bindings 5", "--bindings"),
            ("--exchange-shape fanout --bindings 5", "--bindings"),
            ("--exchange-shape topic --bindings 5 --queues 6", "--bindings"),
            ("--producers 0 --consumers 0", "--producers"),
            ("--consumers 0 --ack manual", "--ack"),
            ("--duration 0s", "--duration"),
            ("--messages 10 --warmup 2s", "--warmup"),
            ("--messages 0", "--messages"),
            ("--producers 0 --messages 5", "--messages"),
            ("--producers 0 --confirm-window 5", "--confirm-window"),
            ("--confirm-window 1000001", "--confirm-window"),
            ("--protocol stomp --exchange-shape topic", "--exchange-shape"),
            ("--protocol stomp --queues 2", "consumer for each queue"),
            ("--protocol stomp --exchange-shape fanout --consumers 2", "--queues"),
        ] {
            let said = path(words).unwrap_err();
            assert!(said.contains(named), "{words}: {said}");
        }
    }

    #[test]
    fn only_consumers_that_acknowledge_have_a_prefetch_by_default() {
        assert_eq!(path("").unwrap().prefetch(), None);
        assert_eq!(path("--ack none").unwrap().prefetch(), None);
        assert_eq!(path("--ack manual").unwrap().prefetch(), NonZeroU16::new(1000));
        assert_eq!(path("--ack individual --prefetch 7").unwrap().prefetch(), NonZeroU16::new(7));
    }

    #[test]
    fn the_phases_of_a_backlog_take_only_the_options_that_they_use() {
        let refused = |words: &str| {
            let words = format!("bench backlog --messages 10 {words}");
            let command = Command::try_parse_from(words.split_whitespace())
                .map_err(|error| error.to_string())
                .ok()?;
            let BenchCommand::Backlog(args) = command.bench.command else { return None };
            let protocol = args.target.protocol.unwrap_or(Protocol::Amqp);
            Some(args.check(protocol).err().map(|error| error.to_string()).unwrap_or_default())
        };
        for (words, named) in [
            ("--protocol stomp", "STOMP"),
            ("--queues 11", "--messages"),
            ("--duration 0s", "--duration"),
            ("--phase drain --queue-prefix p --confirm-window 5", "--confirm-window"),
            ("--phase publish --queue-prefix p --prefetch 5", "--prefetch"),
            ("--phase drain --queue-prefix p --pause 1s", "--pause"),
            ("--phase publish", "--queue-prefix"),
        ] {
            let said = refused(words).unwrap();
            assert!(said.contains(named), "{words}: {said}");
        }
        assert_eq!(refused("--pause 1s --prefetch 5 --confirm-window 5").as_deref(), Some(""));
        assert_eq!(refused("--phase drain --queue-prefix p --prefetch 5").as_deref(), Some(""));
        assert_eq!(refused("--size 7"), None, "no room for a number");
    }

    #[test]
    fn serving_and_loading_exclude_each_other() {
        assert!(Command::try_parse_from(["bench", "null", "--serve", "--size", "16"]).is_err());
        assert!(Command::try_parse_from(["bench", "null", "--listen", "127.0.0.1:1"]).is_err());
        assert!(Command::try_parse_from(["bench", "null", "--serve"]).is_ok());
        assert!(Command::try_parse_from(["bench", "null", "--size", "16"]).is_ok());
    }
}
