//! The settings in force as TOML that reads back, each key with its origin; passwords masked.

use super::Place;
use super::keys;
use super::layers::Loaded;

/// One line a key, grouped by section.
pub(super) fn render(loaded: &Loaded) -> String {
    // Serialising masks secrets; they have no other way out.
    let tree = serde_json::to_value(&loaded.settings).unwrap_or_default();
    let mut out = String::new();
    let mut section = "";
    for key in keys::all() {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if parent != section {
            section = parent;
            out.push_str(&format!("\n[{section}]\n"));
        }
        let pointer = format!("/{}", key.path.replace('.', "/"));
        let value = tree.pointer(&pointer).and_then(|value| toml::Value::try_from(value).ok());
        let line = match value {
            Some(value) => format!("{name} = {value}"),
            None => format!("# {name} is not set"),
        };
        let origin = match loaded.place(&key.path) {
            Place::Default => String::new(),
            place => format!("  # {place}"),
        };
        out.push_str(&format!("{line}{origin}\n"));
    }
    out
}
