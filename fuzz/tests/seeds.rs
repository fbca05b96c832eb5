//! Every seed is an input that its target accepts, and every target has seeds.

use std::fs;
use std::path::Path;

use warren_fuzz::TARGETS;

#[test]
fn every_target_has_seeds_and_accepts_them() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, run) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(seeds.join(name)).expect("a directory for each target") {
            let path = entry.expect("a seed").path();
            run(&fs::read(&path).expect("a seed"));
            count += 1;
        }
        assert!(count >= 5, "{name} has {count} seeds");
    }
}
