//! From octets to methods and contents: the frames of a connection.

use proto_amqp::handshake::{Header, PROTOCOL_HEADER_0_9_1, parse_protocol_header};
use proto_amqp::{
    ChannelId, ContentError, ContentHeader, Frame, FrameKind, Method, Publish, frame, method,
};
use tracing::warn;

use super::consume::{Settle, Settling};
use super::error::Exception;
use super::publish::{Ahead, Run, content_ahead};
use super::session::{Phase, Session};

/// How far a frame brought us.
pub(super) enum Step {
    /// So many octets are done.
    Took(usize),
    /// More has to arrive first.
    Wait,
}

impl Session {
    pub(super) fn feed_header(&mut self, input: &[u8]) -> usize {
        match parse_protocol_header(input) {
            Header::Incomplete => 0,
            Header::Accepted(version) => {
                self.version = version;
                self.shared.facts.lock().version = version;
                self.start();
                PROTOCOL_HEADER_0_9_1.len()
            }
            header => {
                let what = match header {
                    Header::Http => "an HTTP request",
                    Header::Tls => "a TLS handshake (this port speaks AMQP without TLS)",
                    Header::Amqp1_0 { .. } => "AMQP 1.0",
                    _ => "something that is not AMQP",
                };
                warn!(connection = %self.name, "the client sent {what} to an AMQP port");
                self.outlet.lock().out.octets().extend_from_slice(&PROTOCOL_HEADER_0_9_1);
                self.set_phase(Phase::Finished);
                input.len()
            }
        }
    }

    pub(super) fn feed_frames(&mut self, input: &[u8]) -> usize {
        let mut run = Run::default();
        let mut settling = Settling::default();
        let mut at = 0;
        self.answered = false;
        loop {
            match self.phase {
                Phase::Authenticating | Phase::Header => break,
                Phase::Silent | Phase::Finished | Phase::Aborted => return input.len(),
                _ => {}
            }
            if self.answered && !self.has_room() {
                // Requests that are answered at length (basic.get) must not pile up their answers.
                self.stalled = true;
                break;
            }
            let rest = input.get(at..).unwrap_or_default();
            let frame = match frame::parse(rest, self.frame_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.flush(&mut run, &mut settling);
                    self.end_of_batch();
                    self.on_frame_error(&error);
                    return input.len();
                }
            };
            if self.waits_behind_reply(&frame) {
                self.stalled = true;
                break;
            }
            match self.on_frame(&frame, input, at, &mut run, &mut settling) {
                Ok(Step::Took(count)) => at += count,
                Ok(Step::Wait) => break,
                Err(exception) => {
                    self.flush(&mut run, &mut settling);
                    at += frame.wire_len;
                    self.on_exception(frame.channel, &exception);
                }
            }
        }
        self.flush(&mut run, &mut settling);
        self.end_of_batch();
        at
    }

    pub(super) fn flush(&mut self, run: &mut Run<'_>, settling: &mut Settling) {
        self.flush_publishes(run);
        if !settling.is_empty()
            && let Err((id, exception)) = self.flush_settling(settling)
        {
            self.on_exception(id, &exception);
        }
    }

    pub(super) fn on_frame<'i>(
        &mut self,
        frame: &Frame<'i>,
        input: &'i [u8],
        at: usize,
        run: &mut Run<'i>,
        settling: &mut Settling,
    ) -> Result<Step, Exception> {
        let took = Ok(Step::Took(frame.wire_len));
        match frame.kind {
            FrameKind::Heartbeat => return took,
            FrameKind::Method => {}
            FrameKind::Header | FrameKind::Body => {
                self.flush_settling_first(settling)?;
                self.on_content_frame(frame, run)?;
                return took;
            }
        }
        if frame.channel == ChannelId::CONNECTION || self.phase != Phase::Running {
            self.flush(run, settling);
            self.on_connection_method(frame)?;
            return took;
        }
        let Some(channel) = self.channels.get_mut(&frame.channel.0) else {
            self.flush(run, settling);
            self.on_method_of_closed_channel(frame)?;
            return took;
        };
        if channel.closing {
            self.flush(run, settling);
            self.on_method_of_closing_channel(frame);
            return took;
        }
        if let Err(error) = channel.content.expect_method() {
            return Err(Exception::malformed_content(&error));
        }
        let decoded = method::decode(frame.payload, self.version)
            .map_err(|error| Exception::malformed_method(&error))?;
        match decoded {
            Method::Publish(publish) => {
                if !settling.is_empty() {
                    self.flush_settling_first(settling)?;
                    if self.channels.get(&frame.channel.0).is_none_or(|channel| channel.closing) {
                        // A settlement has just closed the channel: its contents are dropped.
                        return took;
                    }
                }
                self.on_publish(frame, &publish, input, at, run)
            }
            Method::Ack(ack) => self.on_settle(frame, ack.into(), run, settling),
            Method::Nack(nack) => self.on_settle(frame, nack.into(), run, settling),
            Method::Reject(reject) => self.on_settle(frame, reject.into(), run, settling),
            Method::Control(class) => {
                self.flush(run, settling);
                if self.channels.get(&frame.channel.0).is_none_or(|channel| channel.closing) {
                    // A settlement that was flushed just now has closed the channel.
                    return took;
                }
                self.answered = true;
                self.on_channel_method(frame.channel, *class, frame.payload)?;
                took
            }
        }
    }

    pub(super) fn flush_settling_first(
        &mut self,
        settling: &mut Settling,
    ) -> Result<(), Exception> {
        if let Err((id, exception)) = self.flush_settling(settling) {
            self.on_exception(id, &exception);
        }
        Ok(())
    }

    pub(super) fn on_settle(
        &mut self,
        frame: &Frame<'_>,
        settle: Settle,
        run: &mut Run<'_>,
        settling: &mut Settling,
    ) -> Result<Step, Exception> {
        if !run.is_empty() {
            self.flush_publishes(run);
        }
        if !settling.takes(frame.channel.0, &settle) {
            self.flush_settling_first(settling)?;
        }
        settling.push(frame.channel.0, settle);
        Ok(Step::Took(frame.wire_len))
    }

    pub(super) fn on_publish<'i>(
        &mut self,
        frame: &Frame<'i>,
        publish: &Publish<'i>,
        input: &'i [u8],
        at: usize,
        run: &mut Run<'i>,
    ) -> Result<Step, Exception> {
        let id = frame.channel;
        match content_ahead(input, at, frame.wire_len, id, publish, self.frame_max) {
            Ahead::Wait => Ok(Step::Wait),
            Ahead::Whole { properties, octets, spans, wire_len } => {
                match self.on_whole_content(id, publish, properties, (octets, spans), run) {
                    Ok(()) => Ok(Step::Took(wire_len)),
                    // The content goes with its method; only the latter is still to be skipped.
                    Err(exception) => {
                        self.skip_content(id, publish);
                        Err(exception)
                    }
                }
            }
            Ahead::Split => {
                if let Some(channel) = self.channels.get_mut(&id.0) {
                    channel
                        .content
                        .method(publish)
                        .map_err(|error| Exception::malformed_content(&error))?;
                }
                Ok(Step::Took(frame.wire_len))
            }
        }
    }

    /// The header and body frames of a refused publish arrive on a channel that is closing, where they are dropped.
    pub(super) fn skip_content(&mut self, id: ChannelId, publish: &Publish<'_>) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            // Cannot fail: a method was due, or we would not be here.
            channel.content.method(publish).ok();
        }
    }

    pub(super) fn on_content_frame(
        &mut self,
        frame: &Frame<'_>,
        run: &mut Run<'_>,
    ) -> Result<(), Exception> {
        let id = frame.channel;
        if self.phase != Phase::Running {
            return Ok(());
        }
        let malformed = |error| Exception::malformed_content(&error);
        let max = self.node.settings.amqp.max_message_size.as_usize() as u64;
        let Some(channel) = self.channels.get_mut(&id.0) else {
            return Err(malformed(ContentError::ExpectedMethod));
        };
        if channel.closing {
            return Ok(());
        }
        self.note_publish(frame.payload.len());
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        let content = if frame.kind == FrameKind::Header {
            let header = ContentHeader::parse(frame.payload).map_err(malformed)?;
            let content = channel.content.header(&header).map_err(malformed)?;
            if header.body_size > max {
                self.check_size(header.body_size)?;
            }
            content
        } else {
            channel.content.body(frame.payload).map_err(malformed)?
        };
        match content {
            Some(content) => self.on_content(id, content, run),
            None => Ok(()),
        }
    }
}
