//! The answer to `status` as text for people, in the sections that rabbitmqctl has.

use serde_json::Value;

/// All sections.
pub(super) fn text(node: &str, status: &Value) -> String {
    let of = |pointer: &str| match status.pointer(pointer) {
        None | Some(Value::Null) => "unknown".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let size = |pointer: &str| match status.pointer(pointer).and_then(Value::as_u64) {
        Some(octets) => gigabytes(octets),
        None => "unknown".to_owned(),
    };
    let alarms = match alarms(status) {
        none if none.is_empty() => "(none)".to_owned(),
        alarms => alarms.join("\n"),
    };
    let empty = Value::Array(Vec::new());
    let sections = [
        (
            "Runtime",
            format!(
                "OS PID: {}\nOS: {}\nUptime (seconds): {}\n{} version: {}\nNode name: {node}",
                of("/pid"),
                of("/os"),
                of("/uptime"),
                of("/product_name"),
                of("/product_version")
            ),
        ),
        (
            "Data directory",
            format!(
                "Node data directory: {}\nDurability: {}\nDamage in the store: {}",
                of("/data_directory"),
                of("/durability"),
                damage(status)
            ),
        ),
        ("Alarms", alarms),
        (
            "Memory",
            format!(
                "Total memory used: {}\nMemory high watermark: {}",
                size("/memory/rss"),
                size("/memory/limit")
            ),
        ),
        (
            "File Descriptors",
            format!(
                "Total: {}, limit: {}",
                of("/file_descriptors/total_used"),
                of("/file_descriptors/total_limit")
            ),
        ),
        (
            "Free Disk Space",
            format!(
                "Low free disk space watermark: {}\nFree disk space: {}",
                size("/disk_free_limit"),
                size("/disk_free")
            ),
        ),
        (
            "Totals",
            format!(
                "Connection count: {}\nQueue count: {}\nVirtual host count: {}",
                of("/totals/connection_count"),
                of("/totals/queue_count"),
                of("/totals/virtual_host_count")
            ),
        ),
        ("Listeners", listeners(status.get("listeners").unwrap_or(&empty)).trim_end().to_owned()),
    ];
    let sections = sections.map(|(title, lines)| format!("{title}\n\n{lines}\n"));
    sections.join("\n")
}

/// A line for each listener.
pub(super) fn listeners(rows: &Value) -> String {
    let row = |row: &Value| {
        let of = |name: &str| match row.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        };
        format!(
            "Interface: {}, port: {}, protocol: {}, purpose: {}\n",
            of("interface"),
            of("port"),
            of("protocol"),
            of("purpose")
        )
    };
    rows.as_array().into_iter().flatten().map(row).collect()
}

/// What is damaged in the store, a line each.
fn damage(status: &Value) -> String {
    let damage = status.get("damage").and_then(Value::as_array);
    let lines: Vec<&str> = damage.into_iter().flatten().filter_map(Value::as_str).collect();
    if lines.is_empty() { "(none)".to_owned() } else { format!("\n{}", lines.join("\n")) }
}

/// The alarms in a status, by name.
pub(super) fn alarms(status: &Value) -> Vec<&str> {
    let alarms = status.get("alarms").and_then(Value::as_array);
    alarms.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Octets as gigabytes with four digits behind the point, rounded to the nearest, as rabbitmqctl shows them.
fn gigabytes(octets: u64) -> String {
    const UNIT: u64 = 100_000;
    let tenths_of_megabytes = octets.saturating_add(UNIT / 2) / UNIT;
    format!("{}.{:04} gb", tenths_of_megabytes / 10_000, tenths_of_megabytes % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_are_rounded_to_four_digits() {
        assert_eq!(gigabytes(0), "0.0000 gb");
        assert_eq!(gigabytes(134_955_008), "0.1350 gb");
        assert_eq!(gigabytes(10_110_600_806), "10.1106 gb");
    }

    #[test]
    fn what_the_system_does_not_tell_is_unknown_and_not_zero() {
        let text = text("warren@host", &json!({ "memory": { "rss": null }, "alarms": ["disk"] }));
        assert!(text.contains("Total memory used: unknown"), "{text}");
        assert!(text.contains("Alarms\n\ndisk\n"), "{text}");
        assert!(text.contains("Damage in the store: (none)"), "{text}");
    }
}
