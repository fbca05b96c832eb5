//! Heart-beats: what a client asks for and what comes of it.
//!
//! Arithmetic only. Who sends when, and how late is too late, is the server's; the octet itself is
//! [`HEART_BEAT`](crate::HEART_BEAT) on the way out and noise on the way in.

use std::fmt;
use std::time::Duration;

/// The `heart-beat:cx,cy` header of a `CONNECT` frame, in milliseconds; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeartBeat {
    /// The client can send something at least this often (`cx`).
    pub can_send_ms: u32,
    /// The client wants to receive something at least this often (`cy`).
    pub wants_ms: u32,
}

impl HeartBeat {
    /// Reads the header's value; a missing header is `HeartBeat::default()`.
    ///
    /// A negative number means none, as in RabbitMQ. Blanks around the numbers are ignored. A period
    /// beyond 2³² ms is taken as that, which is seven weeks.
    ///
    /// # Errors
    /// [`HeartBeatError`] unless the value is two decimal integers with a comma between.
    // spec: stomp-1.2 "Heart-beating"
    pub fn parse(value: &[u8]) -> Result<Self, HeartBeatError> {
        let mut numbers = value.split(|&octet| octet == b',').map(milliseconds);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(can_send_ms)), Some(Some(wants_ms)), None) => {
                Ok(Self { can_send_ms, wants_ms })
            }
            _ => Err(HeartBeatError),
        }
    }

    /// What the server answers. The periods are the client's, rounded down to whole seconds and not
    /// below one, so the server promises as much as was asked and never less.
    // RabbitMQ: has no wishes of its own and rounds so; the text lets each side state its own.
    #[must_use]
    pub fn agree(self) -> AgreedHeartBeat {
        AgreedHeartBeat {
            outgoing_ms: whole_seconds(self.wants_ms),
            incoming_ms: whole_seconds(self.can_send_ms),
        }
    }
}

/// The periods in force after `CONNECTED`. `Display` is the value of its `heart-beat` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgreedHeartBeat {
    outgoing_ms: u32,
    incoming_ms: u32,
}

impl AgreedHeartBeat {
    /// The server sends something at least this often; `None`: it sends no heart-beats.
    #[must_use]
    pub fn outgoing(self) -> Option<Duration> {
        period(self.outgoing_ms)
    }

    /// The server expects something at least this often; `None`: silence is fine.
    #[must_use]
    pub fn incoming(self) -> Option<Duration> {
        period(self.incoming_ms)
    }
}

impl fmt::Display for AgreedHeartBeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.outgoing_ms, self.incoming_ms)
    }
}

/// The value of a `heart-beat` header is not two integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The heart-beat header is not of the form cx,cy with two numbers of milliseconds")]
pub struct HeartBeatError;

fn milliseconds(number: &[u8]) -> Option<u32> {
    let number = number.trim_ascii();
    let (negative, digits) = match number {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if negative {
        return Some(0);
    }
    Some(digits.iter().fold(0_u32, |number, &digit| {
        number.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
    }))
}

fn whole_seconds(milliseconds: u32) -> u32 {
    match milliseconds {
        0 => 0,
        1..1000 => 1000,
        _ => milliseconds - milliseconds % 1000,
    }
}

fn period(milliseconds: u32) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(u64::from(milliseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_clients_periods_swapped_and_rounded_down_to_seconds() {
        let rows = [
            ("500,1500", "1000,1000"),
            ("10000,0", "0,10000"),
            ("0,0", "0,0"),
            ("1,999", "1000,1000"),
            ("1000,0", "0,1000"),
            ("2999,60001", "60000,2000"),
            ("-5,-1", "0,0"),
            (" 1000 , 2000", "2000,1000"),
            ("99999999999999999999,0", "0,4294967000"),
        ];
        for (asked, answered) in rows {
            let agreed = HeartBeat::parse(asked.as_bytes()).unwrap().agree();
            assert_eq!(agreed.to_string(), answered, "{asked}");
        }
    }

    #[test]
    fn anything_but_two_integers_is_refused() {
        for value in
            ["", ",", "1000", "1000,", ",1000", "1,2,3", "1e3,0", "+1,0", "a,b", "-,0", "--1,0"]
        {
            assert_eq!(HeartBeat::parse(value.as_bytes()), Err(HeartBeatError), "{value:?}");
        }
    }

    #[test]
    fn zero_means_no_heart_beats_in_that_direction() {
        let agreed = HeartBeat { can_send_ms: 0, wants_ms: 1500 }.agree();
        assert_eq!(agreed.outgoing(), Some(Duration::from_secs(1)));
        assert_eq!(agreed.incoming(), None);
        assert_eq!(HeartBeat::default().agree(), AgreedHeartBeat::default());
    }
}
