//! Contents on two channels at once, through the writers, the wire and the assembler, against a model.
//!
//! ```text
//!  input   steps: one octet, the kind and the channel | what the step needs
//! ```
//!
//! A step after an error is legal here, unlike on a connection: it shows that an error has left the
//! state as it was.

use bytes::{Bytes, BytesMut};
use proto_amqp::{
    ChannelId, ContentAssembler, ContentError, ContentHeader, FrameCodec, FrameKind, Method,
    OwnedFrame, Version, basic, frame, method,
};
use tokio_util::codec::Encoder;

use crate::script::Script;

/// Bodies that are longer are cut, so that a step costs little.
const FRAME_MAXIMA: [u32; 4] = [0, 9, 16, 4096];

/// What a step makes of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// Nothing yet.
    None,
    Content {
        exchange: Vec<u8>,
        routing_key: Vec<u8>,
        mandatory: bool,
        properties: Vec<u8>,
        body: Vec<u8>,
    },
    Refused(ContentError),
}

/// One frame of a step, as the model sees it.
enum Part<'a> {
    Publish { exchange: &'a [u8], routing_key: &'a [u8], mandatory: bool },
    OtherMethod,
    Header { declared: u64, properties: &'a [u8] },
    Body(&'a [u8]),
}

/// Fuzzes [`ContentAssembler`] and the writers of [`basic`].
///
/// # Panics
/// When one of them breaks its promises.
pub fn run(octets: &[u8]) {
    let mut script = Script::new(octets);
    let mut models: [Model; 2] = Default::default();
    let mut assemblers: [ContentAssembler; 2] = Default::default();
    while !script.is_over() {
        let step = script.octet();
        let side = usize::from(step >> 7);
        let channel = ChannelId(u16::from(step >> 7) + 1);
        let mut wire = Vec::new();
        let parts = write_step(step, channel, &mut script, &mut wire);
        let expected: Vec<Event> = parts.iter().map(|part| models[side].take(part)).collect();
        let seen = read(&wire, channel, &mut assemblers[side]);
        assert_eq!(seen, expected);
        models[side].check(&assemblers[side]);
    }
}

/// Writes what the step says; gives the frames it consists of.
fn write_step<'a>(
    step: u8,
    channel: ChannelId,
    script: &mut Script<'a>,
    wire: &mut Vec<u8>,
) -> Vec<Part<'a>> {
    match step & 7 {
        0 | 1 => {
            let (exchange, routing_key) = (script.short(), script.short());
            let mandatory = step & 1 == 1;
            basic::write_publish(wire, channel, exchange, routing_key, mandatory);
            vec![Part::Publish { exchange, routing_key, mandatory }]
        }
        2 => {
            basic::write_ack(wire, channel, script.number(), step & 8 != 0);
            vec![Part::OtherMethod]
        }
        3 | 4 => {
            let declared = if step & 7 == 3 { u64::from(script.octet()) } else { script.number() };
            let properties = script.short();
            basic::write_content_header(wire, channel, declared, properties);
            vec![Part::Header { declared, properties }]
        }
        5 => {
            // An empty body frame: no writer makes one, peers do.
            let empty = OwnedFrame { kind: FrameKind::Body, channel, payload: Bytes::new() };
            let mut octets = BytesMut::new();
            FrameCodec { frame_max: 0 }.encode(empty, &mut octets).expect("an empty frame fits");
            wire.extend_from_slice(&octets);
            vec![Part::Body(&[])]
        }
        _ => {
            let frame_max = FRAME_MAXIMA[usize::from(step >> 3) % FRAME_MAXIMA.len()];
            let body = script.short();
            basic::write_body(wire, channel, body, frame_max);
            let piece_len =
                usize::try_from(frame::payload_len_max(frame_max)).unwrap_or(usize::MAX);
            body.chunks(piece_len).map(Part::Body).collect()
        }
    }
}

/// Reads frames as a server does.
fn read(wire: &[u8], channel: ChannelId, assembler: &mut ContentAssembler) -> Vec<Event> {
    let mut left = wire;
    let mut events = Vec::new();
    while !left.is_empty() {
        let found = frame::parse(left, 0).expect("written by us").expect("written whole");
        assert_eq!(found.channel, channel);
        left = &left[found.wire_len..];
        let before = assembler.clone();
        let taken = match found.kind {
            FrameKind::Method => match method::decode(found.payload, Version::V0_9_1) {
                Ok(Method::Publish(publish)) => assembler.method(&publish).map(|()| None),
                Ok(_) => assembler.expect_method().map(|()| None),
                Err(error) => panic!("written by us: {error:?}"),
            },
            FrameKind::Header => {
                ContentHeader::parse(found.payload).and_then(|header| assembler.header(&header))
            }
            FrameKind::Body => assembler.body(found.payload),
            FrameKind::Heartbeat => panic!("no step writes a heartbeat"),
        };
        events.push(match taken {
            Ok(None) => Event::None,
            Ok(Some(content)) => {
                assert!(assembler.is_idle());
                let publish = content.method.as_publish();
                Event::Content {
                    exchange: publish.exchange.to_vec(),
                    routing_key: publish.routing_key.to_vec(),
                    mandatory: publish.mandatory,
                    properties: content.properties,
                    body: content.body,
                }
            }
            Err(error) => {
                assert_eq!(*assembler, before, "an error changes nothing");
                Event::Refused(error)
            }
        });
    }
    events
}

/// The content that a channel is in the middle of, kept without a thought for memory.
#[derive(Default)]
struct Model {
    publish: Option<(Vec<u8>, Vec<u8>, bool)>,
    header: Option<(u64, Vec<u8>)>,
    body: Vec<u8>,
}

impl Model {
    fn due(&self) -> ContentError {
        match (&self.publish, &self.header) {
            (None, _) => ContentError::ExpectedMethod,
            (Some(_), None) => ContentError::ExpectedHeader,
            (Some(_), Some(_)) => ContentError::ExpectedBody,
        }
    }

    fn take(&mut self, part: &Part<'_>) -> Event {
        match (part, self.due()) {
            (Part::Publish { exchange, routing_key, mandatory }, ContentError::ExpectedMethod) => {
                self.publish = Some((exchange.to_vec(), routing_key.to_vec(), *mandatory));
                Event::None
            }
            (Part::OtherMethod, ContentError::ExpectedMethod) => Event::None,
            (Part::Header { declared, properties }, ContentError::ExpectedHeader) => {
                self.header = Some((*declared, properties.to_vec()));
                self.whole()
            }
            (Part::Body(piece), ContentError::ExpectedBody) => {
                let declared = self.header.as_ref().map_or(0, |(declared, _)| *declared);
                let received = (self.body.len() + piece.len()) as u64;
                if received > declared {
                    return Event::Refused(ContentError::BodyTooLong { received, declared });
                }
                self.body.extend_from_slice(piece);
                self.whole()
            }
            (_, due) => Event::Refused(due),
        }
    }

    fn whole(&mut self) -> Event {
        let declared = self.header.as_ref().map(|(declared, _)| *declared);
        if declared != Some(self.body.len() as u64) {
            return Event::None;
        }
        match std::mem::take(self) {
            Self {
                publish: Some((exchange, routing_key, mandatory)),
                header: Some((_, properties)),
                body,
            } => Event::Content { exchange, routing_key, mandatory, properties, body },
            _ => Event::None,
        }
    }

    fn check(&self, assembler: &ContentAssembler) {
        assert_eq!(assembler.received_len(), self.body.len());
        let declared = self.header.as_ref().map(|(declared, _)| *declared);
        assert_eq!(assembler.declared_len(), declared);
        if let ContentAssembler::ExpectBody { body, .. } = assembler {
            // A declared size buys no memory; what has arrived buys at most twice itself.
            assert!(body.capacity() <= 2 * self.body.len().max(8), "{}", body.capacity());
        }
    }
}
