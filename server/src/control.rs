//! The control socket: how operators on this machine ask and tell a running broker.
//!
//! A Unix socket that only its owner can open; whoever connects has to be root or the user that the broker
//! runs as (the kernel says who it is), and may then do everything. One request a connection, see
//! [`protocol`]. What is asked is carried out by [`execute`] on a thread where waiting hurts nobody; the
//! client formats.
//!
//! Every step has a bound: [`REQUEST_LEN_MAX`] octets, [`REQUEST_TIMEOUT`] to send them, [`ANSWER_TIMEOUT`] to take
//! the answer, [`CLIENTS_MAX`] at a time. This is not the way in for other machines: there is none.

pub(crate) mod client;
mod execute;
mod lists;
pub(crate) mod protocol;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::log::Log;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::cli::BoundAddresses;
use crate::logging::seldom::{self, Line};
use crate::node::Node;
use execute::Outcome;
use protocol::{Answer, Head, REQUEST_LEN_MAX, Refusal, Refused, Request, Tail};

/// Clients that are served at the same time; more wait. Each may make the broker compute a password hash.
const CLIENTS_MAX: usize = 8;

/// From accepting a connection to the end of its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take to take its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a change may take to be on stable storage before the client is told that it may not be, and how often that
/// is looked at.
const KEPT_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How long answers that are under way may still take when the broker stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long to wait when the process has no descriptors left.
const NO_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// What the socket's commands can reach beside the node.
#[derive(Debug)]
struct Broker {
    node: Arc<Node>,
    addresses: BoundAddresses,
    stop: watch::Sender<bool>,
}

/// Makes the socket at `path`, with a private directory around it if there is none yet.
///
/// # Errors
/// Another broker answers there; something that is not a socket is in the way; everybody may write to the
/// directory; or what the system says.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        refuse_open_directory(directory)?;
    }
    clear_the_way(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// In a directory where everybody may replace files, somebody could put a socket of his own in our place and be
/// told passwords. The sticky bit, as on `/tmp`, prevents that.
fn refuse_open_directory(directory: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(directory)?.permissions().mode();
    if mode & 0o1002 == 0o002 {
        let message = format!(
            "everybody may write to {}; take that away with 'chmod o-w', or set control.socket",
            directory.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Removes the socket of a broker that is dead.
fn clear_the_way(path: &Path) -> io::Result<()> {
    let there = match std::fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        let message = "a file that is not a socket is in the way; move it, or set control.socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            let message = "a running broker answers there; stop it with 'warren ctl stop', or give this \
                           one a data_dir of its own";
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

/// Answers on `listener` until the broker stops; then removes the socket. The command `stop` is passed on
/// through `stop`.
pub(crate) async fn serve(
    node: Arc<Node>,
    listener: UnixListener,
    mut stopping: watch::Receiver<bool>,
    addresses: BoundAddresses,
    stop: watch::Sender<bool>,
) {
    let broker = Arc::new(Broker { node, addresses, stop });
    let permits = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut clients = JoinSet::new();
    loop {
        // Who has to wait does so unaccepted, and costs no descriptor.
        let accept = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        let accepted = tokio::select! {
            accepted = accept => accepted,
            Some(_) = clients.join_next() => continue,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                let broker = Arc::clone(&broker);
                clients.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = client(&broker, stream).await {
                        info!(%error, "a client of the control socket went away");
                    }
                });
            }
            Err(error) => {
                if let Some(Line { left_out }) = seldom::NO_OPERATOR.line() {
                    warn!(%error, left_out, "cannot accept on the control socket");
                }
                sleep(NO_DESCRIPTORS_PAUSE).await;
            }
        }
    }
    let path = listener.local_addr().ok().and_then(|own| own.as_pathname().map(Path::to_owned));
    drop(listener);
    if let Some(path) = path
        && let Err(error) = std::fs::remove_file(&path)
    {
        warn!(path = %path.display(), %error, "cannot remove the control socket");
    }
    let finish = async { while clients.join_next().await.is_some() {} };
    if timeout(FAREWELL, finish).await.is_err() {
        info!("a client of the control socket did not take its answer in time");
    }
}

/// Serves one client: who is it, what does it want, the answer.
async fn client(broker: &Arc<Broker>, mut stream: UnixStream) -> io::Result<()> {
    let own = rustix::process::getuid().as_raw();
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != own {
        if let Some(Line { left_out }) = seldom::WRONG_OPERATOR.line() {
            warn!(uid = peer, left_out, "refused a client of the control socket");
        }
        let refused = Refusal::Unavailable.because(format!(
            "only root and the user that the broker runs as (uid {own}) may ask; this is uid {peer}"
        ));
        return answer(broker, &mut stream, Err(refused)).await;
    }
    let line = match timeout(REQUEST_TIMEOUT, request_line(&mut stream)).await {
        Ok(line) => line?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    // Somebody who connects and says nothing wants to know whether we live.
    if line.is_empty() {
        return Ok(());
    }
    let request = match read_request(&line) {
        Ok(request) => request,
        Err(refused) => return answer(broker, &mut stream, Err(refused)).await,
    };
    let stops = request == Request::Stop {};
    let outcome = carry_out(Arc::clone(broker), request).await;
    let answered = answer(broker, &mut stream, outcome).await;
    if stops {
        // After the answer: the broker may be gone a moment later.
        broker.stop.send_replace(true);
    }
    answered
}

/// The first line, its line feed included; less when the client ends or says too much.
async fn request_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut bounded = BufReader::new(stream).take(REQUEST_LEN_MAX as u64);
    bounded.read_until(b'\n', &mut line).await?;
    Ok(line)
}

fn read_request(line: &[u8]) -> Result<Request, Refused> {
    if !line.ends_with(b"\n") {
        let why = format!("a request is one line of at most {REQUEST_LEN_MAX} octets");
        return Err(Refusal::Usage.because(why));
    }
    serde_json::from_slice(line).map_err(|error| {
        Refusal::Usage.because(format!(
            "the broker does not know this request ({error}); are 'warren ctl' and the broker of one version?"
        ))
    })
}

/// Executes a request where it may take its time: lists are long, password hashes are slow.
async fn carry_out(broker: Arc<Broker>, request: Request) -> Result<Outcome, Refused> {
    let changes = request.changes_something();
    let log = Arc::clone(&broker.node.broker.log);
    let executed = tokio::task::spawn_blocking(move || execute::execute(&broker, request)).await;
    let outcome = executed.unwrap_or_else(|error| {
        warn!(%error, "a command of the control socket failed");
        Err(Refusal::Conflict.because("the command failed inside the broker; its log says more"))
    })?;
    if changes {
        kept(&*log).await?;
    }
    Ok(outcome)
}

/// Waits until what was done is on stable storage: a password that was changed is not to be the old one after a crash.
async fn kept(log: &dyn Log) -> Result<(), Refused> {
    let position = log.appended_up_to();
    let durable = async {
        while log.durable_up_to() < position {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(KEPT_TIMEOUT, durable).await.map_err(|_| {
        let why = "done, but the disk does not say that it is kept: after a crash it may be undone. \
                   'warren ctl status' names the alarms";
        Refusal::Unavailable.because(why)
    })
}

/// Writes the answer and ends the connection.
async fn answer(
    broker: &Broker,
    stream: &mut UnixStream,
    outcome: Result<Outcome, Refused>,
) -> io::Result<()> {
    let (answer, rows) = match outcome {
        Ok(Outcome::Value(value)) => (Answer::Value(value), None),
        Ok(Outcome::Rows(columns, rows)) => (Answer::Columns(columns), Some(rows)),
        Err(refused) => (Answer::Refused(refused), None),
    };
    let write = async {
        let mut out = BufWriter::new(stream);
        let mut line = serde_json::to_vec(&Head { node: broker.node.name.clone(), answer })?;
        line.push(b'\n');
        out.write_all(&line).await?;
        if let Some(rows) = rows {
            for row in &rows {
                line.clear();
                serde_json::to_writer(&mut line, row)?;
                line.push(b'\n');
                out.write_all(&line).await?;
            }
            line.clear();
            serde_json::to_writer(&mut line, &Tail { rows: rows.len() as u64 })?;
            line.push(b'\n');
            out.write_all(&line).await?;
        }
        out.shutdown().await
    };
    match timeout(ANSWER_TIMEOUT, write).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
