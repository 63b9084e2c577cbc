//! webhook

use std::sync::Arc;

use crate::channel::Channel;
use crate::list::{AccountSettings, Surroundings};

/// Builds an account of this channel from its settings.
pub fn build(_account: &AccountSettings, _surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    unimplemented!()
}
