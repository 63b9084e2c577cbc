//! ITIL incidents.
use super::kind::Kind;
/// An incident.
pub const INCIDENT: Kind = Kind {
    name: "incident",
    prefix: "INC",
    states: &[],
    resolution_codes: &[],
};
