//! What the stories, the faults and the bench share: servers, Tributary's processes,
//! and the people around them, all through the public doors.

pub mod faults;
pub mod harness;
pub mod office;
pub mod vendors;
