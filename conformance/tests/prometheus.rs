//! The metrics endpoint, read by Prometheus's own Python parser.

use warren_conformance::{Client, run};

#[test]
fn scrape() {
    run(Client::Python, "prometheus/scrape.py", &[]);
}
