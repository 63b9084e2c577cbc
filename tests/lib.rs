//! What the stories and the bench share: servers, Tributary's processes, and
//! the people around them, all through the public doors.

pub mod harness;
pub mod vendors;
