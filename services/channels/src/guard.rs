//! The guard of outgoing fetches: private addresses are refused, also behind
//! names and redirects, unless settings allow them.

/// An HTTP client that reaches only where it may.
#[derive(Clone)]
pub struct Guard {}
