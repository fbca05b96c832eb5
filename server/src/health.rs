//! Whether the broker of this machine works: the verdict, and `warren health`, which asks for it.
//!
//! Works means: it answers, and it takes messages. A broker with an alarm answers and holds publishers: it is
//! unwell.

use std::process::ExitCode;

use crate::cli::{HealthArgs, exit};
use crate::control::client::{Client, Content};
use crate::control::protocol::Request;
use crate::node::{Alarm, Node};
use crate::watch;

/// Why the broker does not take messages, in one sentence; `None` if it does.
pub(crate) fn unwell(node: &Node) -> Option<String> {
    let held = || format!("publishers are held: {}", node.alarms.reason());
    node.alarms.any().then(held)
}

/// What its health depends on, a line each; sizes in octets.
pub(crate) fn details(node: &Node) -> String {
    let known = |octets: Option<u64>| octets.map_or_else(|| "unknown".into(), |n| n.to_string());
    let alarm = |alarm| if node.alarms.is_on(alarm) { "alarm" } else { "good" };
    let (memory, disk) = (known(watch::resident_memory()), known(watch::disk_free(node)));
    let (store, damage) = (alarm(Alarm::Store), node.damage().len());
    format!(
        "memory: {}, {memory} in use, limit {}\ndisk: {}, {disk} free, limit {}\nstore: {store}, damages: {damage}\n\
         connections: {}, limit {}\n",
        alarm(Alarm::Memory),
        watch::memory_limit(node),
        alarm(Alarm::Disk),
        node.settings.limits.disk_free.octets(),
        node.connections.len(),
        node.seats.most(),
    )
}

/// Asks the broker that the settings name how it is, and says so in one line.
///
/// The exit code is 0 when it works, [`exit::UNAVAILABLE`] when it does not or nobody answers in time,
/// [`exit::CONFIG`] when the settings that say where it is are wrong.
#[must_use]
pub fn health(args: &HealthArgs) -> ExitCode {
    let loaded = match args.settings.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let client = Client::new(loaded.settings.control_socket(), Some(args.timeout));
    match verdict(&client) {
        Ok(node) => {
            say(&format!("{node} works"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            exit::UNAVAILABLE.into()
        }
    }
}

/// The name of the node that works, or why it does not.
fn verdict(client: &Client) -> Result<String, String> {
    let received = client.ask(&Request::Health {}).map_err(|error| error.to_string())?;
    match received.content.map_err(|refused| refused.message)? {
        Content::Value(answer) => match answer.get("unwell") {
            Some(serde_json::Value::Null) => Ok(received.node),
            Some(serde_json::Value::String(why)) => {
                Err(format!("{} is unwell: {why}", received.node))
            }
            _ => Err(format!("{} gave an answer that says nothing", received.node)),
        },
        Content::Rows(_) => Err(format!("{} gave an answer that says nothing", received.node)),
    }
}

#[expect(clippy::print_stdout, reason = "the verdict is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
