//! Keys and signatures: constant-time checks over raw bytes.

/// The installation's keys (`[keys] files`): the first signs, all verify.
#[derive(Clone)]
pub struct Keys {}

impl Keys {
    /// Keys from their bytes; the first signs.
    pub fn new(_keys: Vec<Vec<u8>>) -> Result<Self, String> {
        unimplemented!()
    }
}
