//! `tributary migrate`

use anyhow::Result;
use store::Store;

use crate::settings::Settings;

/// Brings the schema to this version.
pub async fn run(settings: Settings) -> Result<()> {
    let store = Store::open(&settings.store_url()).await?;
    store.migrate().await?;
    super::print("the database is at this version")
}
