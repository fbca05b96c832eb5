//! Runs a target on its seeds and on blind mutations of them, where libFuzzer cannot be built.
//!
//! `blind TARGET SEEDS SECONDS`. It sees no coverage, so it finds less in more time; the sequence of
//! inputs is the same in every run. An input that breaks a promise is printed as hex before the
//! process ends with the panic.

use std::env;
use std::error::Error;
use std::fs;
use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use warren_fuzz::TARGETS;

/// No mutation makes an input longer than this.
const LEN_MAX: usize = 4096;

/// The input under test, for the panic hook.
static CURRENT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, seeds, seconds] = &arguments[..] else {
        eprintln!("usage: blind TARGET SEEDS SECONDS");
        return Ok(ExitCode::from(2));
    };
    let Some((_, run)) = TARGETS.iter().find(|(target, _)| target == name) else {
        eprintln!("no target {name}");
        return Ok(ExitCode::from(2));
    };
    let mut corpus = Vec::new();
    for entry in fs::read_dir(seeds)? {
        corpus.push(fs::read(entry?.path())?);
    }
    corpus.sort();
    print_input_on_panic();

    let time = Duration::from_secs(seconds.parse()?);
    #[expect(clippy::disallowed_methods, reason = "a program's own clock, which no test pauses")]
    let begun = Instant::now();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut runs = 0_u64;
    for seed in &corpus {
        run_one(*run, seed);
    }
    while begun.elapsed() < time {
        let input = mutated(&corpus, &mut random);
        run_one(*run, &input);
        runs += 1;
    }
    println!("{name}: {} seeds and {runs} blind mutations of them", corpus.len());
    Ok(ExitCode::SUCCESS)
}

fn run_one(run: fn(&[u8]), input: &[u8]) {
    if let Ok(mut current) = CURRENT.lock() {
        current.clear();
        current.extend_from_slice(input);
    }
    run(input);
}

fn print_input_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        before(info);
        if let Ok(current) = CURRENT.try_lock() {
            let hex: String = current.iter().map(|octet| format!("{octet:02x}")).collect();
            eprintln!("input: {hex}");
        }
    }));
}

/// A seed with some octets changed, dropped, repeated, or joined with those of another seed.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let any = |random: &mut Random| corpus.get(random.below(corpus.len())).cloned();
    let mut input = any(random).unwrap_or_default();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(16)).min(input.len());
        match random.below(6) {
            0 => input.insert(at, random.octet()),
            1 => drop(input.drain(at..end)),
            2 => {
                let repeated = input[at..end].to_vec();
                input.splice(at..at, repeated);
            }
            3 => {
                let other = any(random).unwrap_or_default();
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                if let Some(octet) = input.get_mut(at) {
                    // Limits and signs are where mistakes are.
                    *octet = match random.below(4) {
                        0 => 0,
                        1 => 0xFF,
                        2 => octet.wrapping_add(1),
                        _ => random.octet(),
                    };
                }
            }
        }
    }
    input.truncate(LEN_MAX);
    input
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[3]
    }

    /// A number below `bound`, and 0 for a bound of 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from((self.next() >> 11) % bound).unwrap_or_default()
    }
}
