//! `warren server`: from settings to a broker that runs until it is told to stop.

use std::future::pending;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Prepared, ServerArgs, banner, exit, prepare};
use crate::opening::{Opening, telling};
use crate::settings::{Problem, check_all};
use crate::systemd::{self, State};
use crate::{Running, StartError, start_telling};

/// How much longer systemd is to wait for a broker that starts, from each time that it is told.
const STARTING_FOR: Duration = Duration::from_secs(30);

/// How long a process that ends waits for threads that wait for the disk. A broker that stops in order has none of
/// them; one that is told to stop while it opens its store has one, which may be at it for minutes.
const LAST_THREADS: Duration = Duration::from_millis(100);

/// Starts the broker and runs it until SIGTERM, SIGINT or `warren ctl stop`.
#[must_use]
pub fn server(args: &ServerArgs) -> ExitCode {
    let prepared = match prepare(args) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("warren-worker")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(prepared));
            runtime.shutdown_timeout(LAST_THREADS);
            code
        }
        Err(error) => {
            eprintln!("error: cannot start the threads of the broker: {error}");
            exit::SOFTWARE.into()
        }
    }
}

async fn run(prepared: Prepared) -> ExitCode {
    let settings = prepared.settings.clone();
    let mut signals = Signals::new();
    let started = tokio::select! {
        started = start_telling_systemd(&prepared) => started,
        name = stop_signal(&mut signals) => {
            info!("{name}: stopping before the store is open; it is left as it is");
            tell(State::Stopping("stopping before the store is open"));
            return ExitCode::SUCCESS;
        }
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            error!(%error, "the broker does not start");
            return exit::UNAVAILABLE.into();
        }
    };
    print(&banner(&settings, &running.addresses));
    tell(State::Ready("ready"));
    match signals {
        Ok(signals) => signals.serve(&prepared, &running).await,
        Err(error) => {
            warn!(%error, "cannot hear signals: stop the broker with `warren ctl stop`");
            running.asked_to_stop().await;
        }
    }
    tell(State::Stopping("saying goodbye to clients"));
    running.shutdown().await;
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "the banner is what a person starts the broker to see")]
fn print(text: &str) {
    print!("{text}");
}

fn tell(state: State<'_>) {
    if let Err(error) = systemd::notify(state) {
        warn!(%error, "cannot tell systemd how the broker is");
    }
}

/// Starts the broker. systemd is told how far it is again and again, so that a broker with much to read is not
/// killed over it.
async fn start_telling_systemd(prepared: &Prepared) -> Result<Running, StartError> {
    let opening = Opening::default();
    let tell_starting = || tell(State::Starting(&opening.now().to_string(), STARTING_FOR));
    tell_starting();
    telling(start_telling(prepared.settings.clone(), opening.clone()), tell_starting).await
}

/// The name of the next signal that asks the broker to stop; never comes where signals cannot be heard.
async fn stop_signal(signals: &mut io::Result<Signals>) -> &'static str {
    match signals {
        Ok(signals) => signals.stop().await,
        Err(_) => pending().await,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the next signal that asks the broker to stop.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Acts on signals until one, or the control socket, says stop.
    async fn serve(mut self, prepared: &Prepared, running: &Running) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return info!("SIGTERM: stopping"),
                _ = self.interrupt.recv() => return info!("SIGINT: stopping"),
                () = running.asked_to_stop() => return,
                _ = self.hangup.recv() => {
                    tell(State::Reloading);
                    reload(prepared, running);
                    tell(State::Ready("ready"));
                }
            }
        }
    }
}

/// Reads certificates and the log level again; says which other settings wait for a restart.
fn reload(prepared: &Prepared, running: &Running) {
    let fresh = match check_all(&prepared.sources) {
        Ok(fresh) => fresh.settings,
        Err(problems) => {
            for Problem { message, place, help, .. } in &problems {
                // One line each.
                error!(%place, help = help.as_deref(), "the settings were not reloaded: {message}");
            }
            return;
        }
    };
    if let Err(error) = running.reload_certificates() {
        error!(%error, "the certificates were not reloaded");
        return;
    }
    prepared.logging.set_level(&fresh.log.level);
    let mut applied = prepared.settings.clone();
    applied.log.level = fresh.log.level.clone();
    if applied == fresh {
        info!("certificates and log level were read again");
    } else {
        warn!("certificates and log level were read again; the other changes wait for a restart");
    }
}
