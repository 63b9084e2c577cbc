//! Customer-service cases.
use super::kind::Kind;
/// A case.
pub const CASE: Kind = Kind {
    name: "case",
    prefix: "CS",
    states: &[],
    resolution_codes: &[],
};
