//! `warren server`: from settings to a broker that runs until it is told to stop.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{SettingsArgs, banner, exit, prepare};
use crate::settings::{Problem, check_all};
use crate::systemd::{self, State};
use crate::{Running, start};

use super::Prepared;

/// How much longer systemd is to wait for a broker that starts, from each time that it is told; and how often it is.
const STARTING_FOR: Duration = Duration::from_secs(30);
const STARTING_EVERY: Duration = Duration::from_secs(10);

/// Starts the broker and runs it until SIGTERM, SIGINT or `warren ctl stop`.
#[must_use]
pub fn server(args: &SettingsArgs) -> ExitCode {
    let prepared = match prepare(args) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("warren-worker")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(prepared)),
        Err(error) => {
            eprintln!("error: cannot start the threads of the broker: {error}");
            exit::SOFTWARE.into()
        }
    }
}

async fn run(prepared: Prepared) -> ExitCode {
    let settings = prepared.settings.clone();
    let signals = Signals::new();
    tell_starting();
    // A task of its own, for another thread: starting may keep this one busy.
    let telling = tokio::spawn(async {
        loop {
            sleep(STARTING_EVERY).await;
            tell_starting();
        }
    });
    let started = start(settings.clone()).await;
    telling.abort();
    // Nothing of it may come behind what is told next. It always ends by being aborted.
    telling.await.err();
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

/// Told again and again, so that a broker with much to read is not killed over it.
fn tell_starting() {
    tell(State::Starting("starting", STARTING_FOR));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
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
        Ok(fresh) => fresh,
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
