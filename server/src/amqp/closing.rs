//! The `connection` class once the connection is open, and everything that ends a channel or a connection.

use proto_amqp::control::protocol::{AMQPClass, channel as channel_class, connection};
use proto_amqp::{ChannelId, Frame, MethodId, ReplyCode, control};
use tokio::time::Instant;
use tracing::{debug, info};

use std::time::Duration;

use super::channel::Channel;
use super::error::Exception;
use super::session::{Phase, SILENCE, Session};

/// How long a peer may take to answer `connection.close`, when its heartbeat does not say less.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

impl Session {
    pub(super) fn on_connection_method(&mut self, frame: &Frame<'_>) -> Result<(), Exception> {
        use connection::AMQPMethod as OfConnection;
        if frame.channel != ChannelId::CONNECTION {
            // Channels come after `open` and end with `close`.
            if self.phase != Phase::Closing {
                self.fall_silent("a method on a channel before connection.open");
            }
            return Ok(());
        }
        if self.phase == Phase::Closing {
            match control::decode(frame.payload, self.version) {
                Ok(AMQPClass::Connection(OfConnection::CloseOk(_))) => {
                    self.set_phase(Phase::Finished);
                }
                Ok(AMQPClass::Connection(OfConnection::Close(_))) => self.send_close_ok(),
                _ => {}
            }
            return Ok(());
        }
        let class = control::decode(frame.payload, self.version)
            .map_err(|error| Exception::malformed_method(&error))?;
        let method = MethodId::of_payload(frame.payload).unwrap_or(MethodId::NONE);
        match (self.phase, class) {
            (_, AMQPClass::Connection(OfConnection::Close(close))) => {
                debug!(connection = %self.name, code = close.reply_code, "the client closes");
                // What nothing holds up any more is confirmed before the channels go.
                let channels = std::mem::take(&mut self.batch.confirms);
                self.send_confirms(&channels);
                self.release();
                self.send_close_ok();
                self.set_phase(Phase::Finished);
                Ok(())
            }
            (Phase::Running, AMQPClass::Connection(OfConnection::UpdateSecret(_))) => {
                let update_ok = OfConnection::UpdateSecretOk(connection::UpdateSecretOk {});
                self.send(ChannelId::CONNECTION, AMQPClass::Connection(update_ok));
                Ok(())
            }
            (Phase::Running, _) => {
                let text = "unexpected method in connection state running";
                Err(Exception::new(ReplyCode::CHANNEL_ERROR, text, method))
            }
            (phase, class) => {
                if !self.on_handshake(phase, class, method)? {
                    self.fall_silent("a method that is not due");
                }
                Ok(())
            }
        }
    }

    pub(super) fn send_close_ok(&self) {
        let close_ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
        self.send(ChannelId::CONNECTION, AMQPClass::Connection(close_ok));
    }

    pub(super) fn on_frame_error(&mut self, error: &proto_amqp::FrameError) {
        if self.phase == Phase::Closing {
            self.set_phase(Phase::Aborted);
            return;
        }
        if self.phase != Phase::Running {
            self.fall_silent("a malformed frame");
            return;
        }
        let exception = Exception {
            hard: true,
            ..Exception::new(error.code(), error.detail(), MethodId::NONE)
        };
        self.close_connection(&exception);
        // Where the next frame would begin nobody knows: what comes is not looked at. It is read all the
        // same, because closing a socket with unread octets resets the connection, and the reset can
        // overtake what we have said.
        self.set_phase(Phase::Silent);
        self.phase_ends = Some(Instant::now() + SILENCE);
    }

    pub(super) fn on_exception(&mut self, id: ChannelId, exception: &Exception) {
        if exception.hard || id == ChannelId::CONNECTION || self.phase != Phase::Running {
            if matches!(self.phase, Phase::Starting | Phase::Tuning) {
                self.fall_silent(&exception.text());
                return;
            }
            self.close_connection(exception);
            return;
        }
        let text = exception.text();
        debug!(connection = %self.name, channel = id.0, %text, "channel exception");
        self.release_channel(id);
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        *channel = Channel { closing: true, ..Channel::default() };
        let close = channel_class::Close {
            reply_code: exception.code.0,
            reply_text: text.as_str().into(),
            class_id: exception.method.class,
            method_id: exception.method.method,
        };
        self.send(id, AMQPClass::Channel(channel_class::AMQPMethod::Close(close)));
    }

    /// Sends `connection.close` after everything has been freed.
    pub(super) fn close_connection(&mut self, exception: &Exception) {
        if matches!(self.phase, Phase::Closing | Phase::Finished | Phase::Aborted) {
            return;
        }
        let text = exception.text();
        info!(connection = %self.name, %text, "closing an AMQP connection");
        self.release();
        let close = connection::Close {
            reply_code: exception.code.0,
            reply_text: text.as_str().into(),
            class_id: exception.method.class,
            method_id: exception.method.method,
        };
        let close = connection::AMQPMethod::Close(close);
        self.send(ChannelId::CONNECTION, AMQPClass::Connection(close));
        self.set_phase(Phase::Closing);
        let wait = self.heartbeats.incoming().map_or(CLOSE_TIMEOUT, |beat| beat.min(CLOSE_TIMEOUT));
        self.phase_ends = Some(Instant::now() + wait);
    }

    /// Frees everything that the connection holds in the broker. May be called twice.
    pub(super) fn release(&mut self) {
        let mut open: Vec<u16> = self.channels.keys().copied().collect();
        open.retain(|number| self.channels.get(number).is_some_and(|channel| !channel.closing));
        open.sort_unstable();
        // All consumers first: what one channel gives back must not go to another one of the same connection.
        for &number in &open {
            self.release_consumers(ChannelId(number));
        }
        for &number in &open {
            self.release_deliveries(ChannelId(number));
        }
        self.channels.clear();
        if let Some(vhost) = &self.vhost {
            vhost.connection_closed(self.id);
        }
    }
}
