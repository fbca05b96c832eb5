//! The checker of histories is checked: by a simulated broker that is correct, by others that each have one
//! fault, and by histories written by hand for what a broker is excused for.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that it has failed"
)]

mod history {
    mod excuses;
    mod faults;
    mod files;
    mod simulation;
}
