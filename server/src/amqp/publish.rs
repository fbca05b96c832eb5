//! `basic.publish`: from a whole content to the queues, in runs.
//!
//! Contents that arrive in one read and go the same way make a run. The run reaches its queues in one call
//! each, under one hold of the queue's lock, and its messages are still slices of the read buffer then.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::log::LogPosition;
use broker_core::queue::BATCH_MAX;
use broker_core::{Attributes, Message, Publication, Refusal, Spans};
use proto_amqp::properties::{self, Properties};
use proto_amqp::table::{TableReader, Value, write_table};
use proto_amqp::{
    ChannelId, Content, ContentHeader, FrameKind, MethodId, Publish, ReplyCode, basic, frame,
};

use super::confirm::Confirms;
use super::deliveries::write_content;
use super::error::Exception;
use super::routes::{Asking, Route};
use super::session::Session;
use crate::counters::Protocol;
use crate::publishing;
use crate::shares::{Shares, needs_one_step};

const PUBLISH: MethodId = MethodId::BASIC_PUBLISH;

/// The pseudo queue of direct reply-to.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Publishes that go the same way and have not been handed over.
#[derive(Default)]
pub(super) struct Run<'i> {
    channel: u16,
    route: Option<Arc<Route>>,
    publications: Vec<Publication<'i>>,
    /// Their numbers, when the channel confirms.
    numbers: Vec<u64>,
}

impl Run<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }
}

/// A content that lies in the input, or does not.
pub(super) enum Ahead<'i> {
    /// All of it is there, in one body frame at most.
    Whole { properties: &'i [u8], octets: &'i [u8], spans: Spans, wire_len: usize },
    /// It may be, once more has arrived.
    Wait,
    /// It comes in pieces, or something else is in between.
    Split,
}

/// Looks for the content of a publish right behind its method frame, which begins at `at` in `input`.
pub(super) fn content_ahead<'i>(
    input: &'i [u8],
    at: usize,
    method_len: usize,
    channel: ChannelId,
    publish: &Publish<'_>,
    frame_max: u32,
) -> Ahead<'i> {
    /// Frame header, class and method, ticket, length of the exchange's name.
    const EXCHANGE_AT: usize = frame::FRAME_HEADER_LEN + 4 + 2 + 1;
    /// Frame header, class, weight, body size.
    const PROPERTIES_AT: usize = frame::FRAME_HEADER_LEN + 2 + 2 + 8;
    let header_at = at + method_len;
    let rest = input.get(header_at..).unwrap_or_default();
    let header_frame = match frame::parse(rest, frame_max) {
        Ok(Some(frame)) => frame,
        Ok(None) if may_be(rest, FrameKind::Header, channel) => return Ahead::Wait,
        _ => return Ahead::Split,
    };
    if header_frame.kind != FrameKind::Header || header_frame.channel != channel {
        return Ahead::Split;
    }
    let Ok(header) = ContentHeader::parse(header_frame.payload) else { return Ahead::Split };
    let exchange_at = at + EXCHANGE_AT;
    let octets_from = |end: usize| input.get(exchange_at..end).unwrap_or_default();
    let offset = |position: usize| u32::try_from(position - exchange_at).unwrap_or(u32::MAX);
    let exchange_len = publish.exchange.len();
    let mut spans = Spans {
        exchange_len: u8::try_from(exchange_len).unwrap_or(u8::MAX),
        routing_key_len: u8::try_from(publish.routing_key.len()).unwrap_or(u8::MAX),
        routing_key_at: u16::try_from(exchange_len + 1).unwrap_or(u16::MAX),
        properties_at: offset(header_at + PROPERTIES_AT),
        properties_len: u32::try_from(header.properties.len()).unwrap_or(u32::MAX),
        body_at: 0,
    };
    let body_frame_at = header_at + header_frame.wire_len;
    let properties = header.properties;
    if header.body_size == 0 {
        let end = body_frame_at;
        spans.body_at = offset(end);
        let wire_len = end - at;
        return Ahead::Whole { properties, octets: octets_from(end), spans, wire_len };
    }
    if header.body_size > frame::payload_len_max(frame_max).into() {
        return Ahead::Split;
    }
    let rest = input.get(body_frame_at..).unwrap_or_default();
    match frame::parse(rest, frame_max) {
        Ok(Some(body)) if body.kind == FrameKind::Body && body.channel == channel => {
            if body.payload.len() as u64 != header.body_size {
                return Ahead::Split;
            }
            let body_at = body_frame_at + frame::FRAME_HEADER_LEN;
            spans.body_at = offset(body_at);
            let octets = octets_from(body_at + body.payload.len());
            let wire_len = body_frame_at + body.wire_len - at;
            Ahead::Whole { properties, octets, spans, wire_len }
        }
        Ok(None) if may_be(rest, FrameKind::Body, channel) => Ahead::Wait,
        _ => Ahead::Split,
    }
}

/// Whether the beginning of a frame may be that of this kind on this channel.
fn may_be(start: &[u8], kind: FrameKind, channel: ChannelId) -> bool {
    let [high, low] = channel.0.to_be_bytes();
    start.iter().zip([kind.octet(), high, low]).all(|(there, wanted)| *there == wanted)
}

/// A message whose form was checked, on its way to an exchange.
struct Checked<'i, 'p> {
    publication: Publication<'i>,
    properties: Properties<'p>,
    /// What is wrong with the values of its properties: told only when nothing is wrong with the exchange.
    fault: Option<Exception>,
}

impl Session {
    /// A content that lies in the input whole.
    pub(super) fn on_whole_content<'i>(
        &mut self,
        channel: ChannelId,
        publish: &Publish<'i>,
        properties: &'i [u8],
        (octets, spans): (&'i [u8], Spans),
        run: &mut Run<'i>,
    ) -> Result<(), Exception> {
        let body_len = octets.len() - spans.body_at as usize;
        let summary = self.check_content(publish, properties, body_len as u64)?;
        let (attributes, fault) = attributes_of(&summary);
        let publication = Publication::Borrowed { octets, spans, attributes };
        let checked = Checked { publication, properties: summary, fault };
        self.on_checked(channel, publish, checked, run)
    }

    /// A content that came in pieces.
    pub(super) fn on_content(
        &mut self,
        channel: ChannelId,
        content: Content,
        run: &mut Run<'_>,
    ) -> Result<(), Exception> {
        let publish = content.method.as_publish();
        let summary =
            self.check_content(&publish, &content.properties, content.body.len() as u64)?;
        let (attributes, fault) = attributes_of(&summary);
        let (exchange, key) = (publish.exchange, publish.routing_key);
        let message = Message::new(exchange, key, &content.properties, content.body, attributes);
        let publication = Publication::Owned(message);
        let checked = Checked { publication, properties: summary, fault };
        self.on_checked(channel, &publish, checked, run)
    }

    /// The largest body, checked as soon as its size is known and before anything of it is kept.
    pub(super) fn check_size(&self, body_len: u64) -> Result<(), Exception> {
        let max = self.node.settings.amqp.max_message_size.as_usize() as u64;
        if body_len <= max {
            return Ok(());
        }
        let text = format!("message size {body_len} is larger than configured max size {max}");
        Err(Exception::precondition(text, PUBLISH))
    }

    fn check_content<'p>(
        &self,
        publish: &Publish<'_>,
        properties: &'p [u8],
        body_len: u64,
    ) -> Result<Properties<'p>, Exception> {
        if publish.immediate {
            return Err(Exception::not_implemented("immediate=true", PUBLISH));
        }
        self.check_size(body_len)?;
        let summary = properties::summarise(properties)
            .map_err(|error| Exception::malformed_properties(&error))?;
        Ok(summary)
    }

    fn on_checked<'i>(
        &mut self,
        id: ChannelId,
        publish: &Publish<'_>,
        mut checked: Checked<'i, '_>,
        run: &mut Run<'i>,
    ) -> Result<(), Exception> {
        self.note_publish(publish_len(&checked.publication));
        let (Some(vhost), Some(identity)) = (&self.vhost, &self.identity) else { return Ok(()) };
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        if !std::mem::replace(&mut channel.has_published, true) {
            // Relaxed: for lists.
            channel.facts.publisher.store(true, Ordering::Relaxed);
        }
        let asking = Asking { node: &self.node, vhost, identity };
        let refused = |refusal: Refusal| Exception::refused(&refusal, PUBLISH);
        let (copies, bad_copies) = match CarbonCopies::of(&checked.properties) {
            Ok(copies) => (copies, None),
            Err(exception) => (CarbonCopies::default(), Some(exception)),
        };
        let mut route = None;
        if copies.is_empty() {
            route = channel
                .routes
                .find(asking, publish.exchange, publish.routing_key)
                .map_err(refused)?;
        }
        let route = match route {
            Some(route) => route,
            None => {
                let mut keys = vec![publish.routing_key];
                keys.extend(copies.keys());
                let headers = checked.properties.headers;
                let found = asking.route(publish.exchange, &keys, headers).map_err(refused)?;
                Route::once(found.queues)
            }
        };
        if checked.properties.reply_to == Some(REPLY_TO.as_bytes()) {
            let Some(queue) = &channel.reply_queue else {
                let text = "fast reply consumer does not exist";
                return Err(Exception::precondition(text, PUBLISH));
            };
            let reply_to = Some(queue.as_str().as_bytes());
            let properties = Properties { reply_to, ..checked.properties };
            checked.publication = rewritten(&checked.publication, &properties)?;
        }
        if let Some(user) = checked.properties.user_id {
            publishing::check_user_id(user, identity)
                .map_err(|text| Exception::precondition(text, PUBLISH))?;
        }
        if let Some(fault) = checked.fault.or(bad_copies) {
            return Err(fault);
        }
        if copies.has_blind {
            checked.publication = without_bcc(&checked.publication)?;
        }
        if let Some(transaction) = &mut channel.transaction {
            let message = checked.publication.to_message();
            transaction.publish(message, route, publish.mandatory, &channel.facts);
            return Ok(());
        }
        let same_way = run.channel == id.0
            && run.publications.len() < BATCH_MAX
            && run.route.as_ref().is_some_and(|there| Arc::ptr_eq(there, &route));
        if !same_way {
            self.flush_publishes(run);
            run.channel = id.0;
        }
        // Numbered after the flush: what was flushed answers for the numbers before this one only.
        let confirms = self.channels.get_mut(&id.0).and_then(|channel| channel.confirms.as_mut());
        let number = confirms.map(Confirms::number);
        if number.is_some() {
            self.batch.received_confirm += 1;
            self.batch.confirm(id.0);
        }
        self.batch.received += 1;
        self.batch.sizes.add(checked.publication.body_len() as u64);
        if route.queues.is_empty() {
            self.unroutable(id, publish.mandatory, &checked.publication, number);
            return Ok(());
        }
        run.route = Some(route);
        run.publications.push(checked.publication);
        run.numbers.extend(number);
        Ok(())
    }

    /// Nobody takes the message: it is returned or dropped, and confirmed all the same.
    pub(super) fn unroutable(
        &mut self,
        id: ChannelId,
        mandatory: bool,
        publication: &Publication<'_>,
        number: Option<u64>,
    ) {
        let counters = self.node.counters.of(Protocol::Amqp);
        if mandatory {
            counters.unroutable_returned.increment(1);
            self.basic_return(id, publication);
        } else {
            counters.unroutable_dropped.increment(1);
        }
        if let Some(number) = number
            && let Some(channel) = self.channels.get_mut(&id.0)
            && let Some(confirms) = &mut channel.confirms
        {
            confirms.published(number, LogPosition::START);
        }
    }

    /// Sends a message back that no queue takes. spec: amqp basic.publish.mandatory
    pub(super) fn basic_return(&mut self, id: ChannelId, publication: &Publication<'_>) {
        let mut state = self.outlet.lock();
        let frame_max = state.deliveries.frame_max;
        let parts = publication.parts();
        let (code, text) = (ReplyCode::NO_ROUTE, ReplyCode::NO_ROUTE.name());
        let octets = state.out.octets();
        basic::write_return(octets, id, code, text, parts.exchange, parts.routing_key);
        write_content(&mut state.out, id, &parts, frame_max);
    }

    /// Hands a run to its queues.
    pub(super) fn flush_publishes(&mut self, run: &mut Run<'_>) {
        if run.is_empty() {
            return;
        }
        let Some(route) = run.route.take() else { return };
        let outcome = self.publish_to(&route, &mut run.publications);
        self.batch.routed += run.publications.len() as u64;
        if let Some(channel) = self.channels.get_mut(&run.channel)
            && let Some(confirms) = &mut channel.confirms
        {
            for index in outcome.rejected {
                if let Some(number) = run.numbers.get(index as usize) {
                    confirms.refuse(*number);
                }
            }
            if let Some(last) = run.numbers.last() {
                confirms.published(*last, outcome.position);
            }
        } else if let Some(reason) = outcome.log_refused {
            // Nobody would hear of it otherwise.
            self.batch.unkept = Some((ChannelId(run.channel), reason));
        }
        run.publications.clear();
        run.numbers.clear();
    }

    /// Publishes at most [`BATCH_MAX`] messages to all queues of a route.
    pub(super) fn publish_to(
        &mut self,
        route: &Route,
        publications: &mut [Publication<'_>],
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(vhost) = &self.vhost else { return outcome };
        if route.queues.len() > 1 {
            // They share the body: it is copied out of the read buffer once.
            for publication in publications.iter_mut() {
                *publication = Publication::Owned(publication.to_message());
            }
        }
        let now = self.node.clock.now();
        if needs_one_step(&route.queues, publications) {
            let mut shares = Shares::of_all(&route.queues, publications.len());
            match vhost.publish_together(publications, &mut shares.list, now) {
                Ok(done) => {
                    self.batch.backlogged |= done.backlogged;
                    outcome.position = done.position;
                    outcome.rejected = done.rejected;
                }
                Err(error) => {
                    let count = u32::try_from(publications.len()).unwrap_or(u32::MAX);
                    outcome.rejected = (0..count).collect();
                    outcome.log_refused = Some(error.for_peers().into());
                }
            }
            return outcome;
        }
        let effects = &mut self.effects;
        for queue in &route.queues {
            let accepted = queue.publish(publications, now, effects);
            outcome.position = outcome.position.max(accepted.position);
            self.batch.backlogged |= accepted.backlogged;
            if !effects.is_empty() {
                for &index in &effects.rejected {
                    if !outcome.rejected.contains(&index) {
                        outcome.rejected.push(index);
                    }
                }
                effects.rejected.clear();
                outcome.log_refused = effects.log_refused.take().or(outcome.log_refused);
                vhost.carry_out(queue, effects, now);
            }
        }
        outcome
    }
}

/// Octets that a publish brings with it.
fn publish_len(publication: &Publication<'_>) -> usize {
    let parts = publication.parts();
    parts.properties.len() + parts.body.len()
}

/// What became of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Where the log has to come before all of it is durable.
    pub(super) position: LogPosition,
    /// Indices of publications that a queue refused, or the log.
    pub(super) rejected: Vec<u32>,
    /// Why the log took nothing.
    pub(super) log_refused: Option<Arc<str>>,
}

/// What queues need to know of a property list, and what is wrong with its values.
fn attributes_of(properties: &Properties<'_>) -> (Attributes, Option<Exception>) {
    let mut fault = None;
    let expiration = properties.expiration.map(publishing::expiration).transpose();
    let expiration = expiration.unwrap_or_else(|text| {
        fault = Some(Exception::precondition(text, PUBLISH));
        None
    });
    if let Some(mode @ (0 | 3..)) = properties.delivery_mode {
        let text = format!("invalid message: {{delivery_mode_unknown,{mode}}}");
        fault.get_or_insert_with(|| Exception::precondition(text, PUBLISH));
    }
    let attributes = Attributes {
        persistent: properties.is_persistent(),
        priority: properties.priority.unwrap_or(0),
        expiration,
    };
    (attributes, fault)
}

/// The headers `CC` and `BCC`: further routing keys. Of a repeated header the first counts.
#[derive(Default)]
struct CarbonCopies<'p> {
    keys: Vec<&'p [u8]>,
    has_blind: bool,
}

impl<'p> CarbonCopies<'p> {
    fn of(properties: &Properties<'p>) -> Result<Self, Exception> {
        let mut copies = Self::default();
        let Some(headers) = properties.headers else { return Ok(copies) };
        for name in ["CC", "BCC"] {
            let Some(value) = TableReader::new(headers).get(name.as_bytes()) else { continue };
            let Value::Array(keys) = value else {
                let kind = broker_core::arguments::Value::from_wire(value).type_name();
                let text =
                    format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}");
                return Err(Exception::precondition(text, PUBLISH));
            };
            copies.has_blind |= name == "BCC";
            copies.keys.extend(keys.filter_map(|key| key.as_longstr()));
        }
        Ok(copies)
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.has_blind
    }

    fn keys(&self) -> impl Iterator<Item = &'p [u8]> {
        self.keys.iter().copied()
    }
}

/// The same message with other properties.
fn rewritten<'i>(
    publication: &Publication<'i>,
    properties: &Properties<'_>,
) -> Result<Publication<'i>, Exception> {
    let parts = publication.parts();
    let mut encoded = Vec::with_capacity(parts.properties.len() + 64);
    properties::encode(properties, &mut encoded)
        .map_err(|error| Exception::malformed_properties(&error))?;
    let attributes = publication.attributes();
    let message =
        Message::rewritten(&parts, parts.exchange, parts.routing_key, &encoded, attributes);
    Ok(Publication::Owned(message))
}

/// The same message without its `BCC` header, which nobody but the broker may see.
fn without_bcc<'i>(publication: &Publication<'i>) -> Result<Publication<'i>, Exception> {
    let parts = publication.parts();
    let mut properties = properties::summarise(parts.properties)
        .map_err(|error| Exception::malformed_properties(&error))?;
    let mut table = Vec::new();
    write_table(&mut table, |headers| {
        properties
            .headers_reader()
            .filter(|(name, _)| *name != b"BCC")
            .try_for_each(|(name, value)| headers.write(name, value))
    })
    .map_err(|error| Exception::malformed_properties(&error.into()))?;
    properties.headers = table.get(4..);
    rewritten(publication, &properties)
}
