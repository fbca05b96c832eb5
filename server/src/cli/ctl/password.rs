//! Reading a password: from a person without showing it, or one line from a pipe.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{Failure, exit};

/// The longest password in octets.
const PASSWORD_LEN_MAX: u64 = 4096;

/// Reads a password from standard input, with a prompt if a person sits there.
///
/// # Errors
/// With [`exit::DATA`] when there is none.
pub(super) fn read() -> Result<String, Failure> {
    let stdin = io::stdin();
    let read = if stdin.is_terminal() { ask(&stdin) } else { line(&mut stdin.lock()) };
    let failure = |message: String| Failure { code: exit::DATA, message };
    let password = read.map_err(|error| failure(format!("cannot read the password: {error}")))?;
    if password.is_empty() {
        let message = "the password is missing; give it as an argument or on standard input";
        return Err(failure(message.into()));
    }
    Ok(password)
}

fn ask(stdin: &io::Stdin) -> io::Result<String> {
    let _unseen = Unseen::begin(stdin)?;
    let mut prompt = io::stderr().lock();
    prompt.write_all(b"Password: ")?;
    prompt.flush()?;
    let password = line(&mut stdin.lock());
    // The line feed that was typed was not shown either.
    prompt.write_all(b"\n")?;
    password
}

/// One line without its end.
fn line(input: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(PASSWORD_LEN_MAX).read_line(&mut line)?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Unseen<'t> {
    terminal: &'t io::Stdin,
    before: Termios,
}

impl<'t> Unseen<'t> {
    fn begin(terminal: &'t io::Stdin) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to restore.
        tcsetattr(self.terminal.as_fd(), OptionalActions::Now, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_it_ends_and_spaces_belong_to_it() {
        for (input, expected) in [
            (&b"secret\nnext"[..], "secret"),
            (b" se cret \r\n", " se cret "),
            (b"no end", "no end"),
            (b"", ""),
        ] {
            assert_eq!(line(&mut { input }).expect("readable"), expected);
        }
    }
}
