//! Feeding a decoder as a server does: a buffer whose front is the incomplete frame.

use proto_stomp::{Decoded, Decoder, FrameError, HeaderBlock, Limits, ParsedCommand, Version};

/// The octets of one frame, taken out of the decoder's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) command: Vec<u8>,
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// What came out of a stream of octets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) frames: Vec<Seen>,
    /// Octets between frames, however many pieces they came in.
    pub(crate) noise_len: usize,
    /// Octets that were left when the stream ended; of no meaning after an error.
    pub(crate) left_len: usize,
    pub(crate) error: Option<FrameError>,
}

/// Gives `chunks` to a decoder one after the other and collects what it makes of them.
pub(crate) fn feed<'a>(
    limits: Limits,
    version: Version,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut decoder = Decoder::new(limits);
    decoder.set_version(version);
    let mut scratch = HeaderBlock::new();
    let mut buffer = Vec::new();
    let mut outcome = Outcome::default();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            let done = match decoder.decode(&buffer, &mut scratch) {
                Ok(Decoded::Incomplete) => break,
                Ok(Decoded::Noise { wire_len }) => {
                    outcome.noise_len += wire_len;
                    wire_len
                }
                Ok(Decoded::Frame { frame, wire_len }) => {
                    let command = match frame.command {
                        ParsedCommand::Known(command) => command.as_str().as_bytes(),
                        ParsedCommand::Unknown(word) => word,
                    };
                    outcome.frames.push(Seen {
                        command: command.to_vec(),
                        headers: frame
                            .headers
                            .iter()
                            .map(|(name, value)| (name.to_vec(), value.to_vec()))
                            .collect(),
                        body: frame.body.to_vec(),
                    });
                    wire_len
                }
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            };
            assert!(done > 0, "the decoder must get on");
            buffer.drain(..done);
        }
    }
    outcome.left_len = buffer.len();
    outcome
}
