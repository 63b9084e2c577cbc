//! The stories.
fn main() {}
