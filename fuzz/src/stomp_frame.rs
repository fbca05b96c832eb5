//! STOMP frames: the same however the octets are cut, within every limit, and the same when written
//! and read again.
//!
//! ```text
//!  input   version and limits: one octet | cuts: eight octets | a stream of frames
//! ```

use proto_stomp::{
    Command, Decoded, Decoder, FrameEnd, FrameError, FrameWriter, HeaderBlock, HeartBeat, Limits,
    ParsedCommand, Version,
};

use crate::script::{Script, cut};

const VERSIONS: [Version; 3] = [Version::V1_0, Version::V1_1, Version::V1_2];

/// Limits that short inputs pass.
const TIGHT: Limits = Limits {
    command_len_max: 12,
    header_count_max: 3,
    header_len_max: 24,
    head_len_max: 48,
    body_len_max: 16,
    frame_len_max: 60,
};

/// The octets of one frame, taken out of the decoder's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    command: Result<Command, Vec<u8>>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
}

/// What came out of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    frames: Vec<Seen>,
    /// Octets between frames, however many pieces they came in.
    noise_len: usize,
    /// Octets left at the end; after an error they mean nothing.
    left_len: usize,
    error: Option<FrameError>,
}

/// Fuzzes [`Decoder`] and [`FrameWriter`].
///
/// # Panics
/// When one of them breaks its promises.
pub fn run(octets: &[u8]) {
    let mut script = Script::new(octets);
    let choice = script.octet();
    let version = VERSIONS[usize::from(choice) % VERSIONS.len()];
    let limits = match choice >> 6 {
        0 => Limits::before_login(),
        1 => Limits::after_login(1000),
        2 => Limits::from_server(1000),
        _ => TIGHT,
    };
    let seed = script.number();
    let stream = script.rest();

    let whole = feed(limits, version, &[stream]);
    assert_eq!(feed(limits, version, &cut(stream, seed)), whole);
    if stream.len() <= 64 {
        let singles: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(feed(limits, version, &singles), whole);
    }
    if let Some(error) = whole.error {
        assert!(error.to_string().len() < 256 && !error.message().is_empty());
    }
    for seen in &whole.frames {
        check_bounds(seen, &limits);
        check_values(seen);
        check_written_again(seen, version);
    }
}

fn feed(limits: Limits, version: Version, pieces: &[&[u8]]) -> Outcome {
    let mut decoder = Decoder::new(limits);
    decoder.set_version(version);
    let mut scratch = HeaderBlock::new();
    let mut buffer = Vec::new();
    let mut outcome = Outcome::default();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut done = 0;
        loop {
            match decoder.decode(&buffer[done..], &mut scratch) {
                Ok(Decoded::Incomplete) => break,
                Ok(Decoded::Noise { wire_len }) => {
                    assert!(wire_len > 0, "the decoder must get on");
                    outcome.noise_len += wire_len;
                    done += wire_len;
                }
                Ok(Decoded::Frame { frame, wire_len }) => {
                    assert!(wire_len <= limits.frame_len_max, "{wire_len} of {limits:?}");
                    let command = match frame.command {
                        ParsedCommand::Known(command) => Ok(command),
                        ParsedCommand::Unknown(word) => Err(word.to_vec()),
                    };
                    let headers = frame.headers.iter();
                    outcome.frames.push(Seen {
                        command,
                        headers: headers
                            .map(|(name, value)| (name.to_vec(), value.to_vec()))
                            .collect(),
                        body: frame.body.to_vec(),
                    });
                    done += wire_len;
                }
                Err(error) => {
                    let again = decoder.decode(&buffer[done..], &mut scratch);
                    assert_eq!(again.err(), Some(error), "an error stays");
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
        buffer.drain(..done);
        assert!(buffer.len() <= limits.frame_len_max, "held: {}", buffer.len());
    }
    outcome.left_len = buffer.len();
    outcome
}

fn check_bounds(seen: &Seen, limits: &Limits) {
    assert!(seen.headers.len() <= limits.header_count_max);
    assert!(seen.body.len() <= limits.body_len_max);
    let mut names: Vec<&[u8]> = seen.headers.iter().map(|(name, _)| &name[..]).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), seen.headers.len(), "the first of a name only");
    if let Some(len) = value(seen, b"content-length") {
        let len: usize = String::from_utf8_lossy(len)
            .trim_matches([' ', '\t'])
            .parse()
            .expect("a frame's content-length is a number");
        assert_eq!(len, seen.body.len());
    }
}

/// The values that a session reads further, as if each header were one of them.
fn check_values(seen: &Seen) {
    for (_, octets) in &seen.headers {
        if let Ok(asked) = HeartBeat::parse(octets) {
            let agreed = asked.agree();
            assert_eq!(agreed.incoming().is_some(), asked.can_send_ms > 0);
            assert_eq!(agreed.outgoing().is_some(), asked.wants_ms > 0);
        }
        if let Some(version) = Version::negotiate(Some(octets)) {
            let offered = octets.split(|octet| *octet == b',');
            let offered = offered.map(|token| token.trim_ascii());
            assert!(
                offered.into_iter().any(|token| token == version.as_str().as_bytes()),
                "{version:?} was not offered by {}",
                octets.escape_ascii()
            );
        }
    }
}

/// No header, however odd, becomes another header or another frame on its way to the next peer.
fn check_written_again(seen: &Seen, version: Version) {
    let Ok(command) = seen.command else { return };
    // In frames that open a session a backslash is literal in one direction and read in the other.
    if command.opens_session() {
        return;
    }
    let mut wire = Vec::new();
    let mut frame = FrameWriter::begin(&mut wire, command);
    let mut expected = seen.clone();
    expected.headers.retain(|(name, _)| name != b"content-length");
    for (name, value) in &expected.headers {
        assert!(frame.header(name, value), "no NUL passes the decoder");
    }
    frame.finish(&seen.body, FrameEnd::NulLf);

    let mut outcome = feed(Limits::from_server(usize::MAX >> 8), version, &[&wire]);
    assert_eq!((outcome.error, outcome.noise_len, outcome.left_len), (None, 1, 0));
    for again in &mut outcome.frames {
        again.headers.retain(|(name, _)| name != b"content-length");
    }
    assert_eq!(outcome.frames, [expected]);
}

fn value<'a>(seen: &'a Seen, name: &[u8]) -> Option<&'a [u8]> {
    let (_, value) = seen.headers.iter().find(|(found, _)| found == name)?;
    Some(value)
}
