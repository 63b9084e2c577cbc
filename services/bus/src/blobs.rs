//! Large bytes, kept under their SHA-256 in a folder.

mod serve;

use std::path::Path;
use std::time::SystemTime;

use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, PutPayload};

use crate::Error;
use crate::wire::is_sha256;
pub use serve::Served;

/// Content-addressed bytes: written once, durable when `put` returns.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: std::sync::Arc<LocalFileSystem>,
}

impl Blobs {
    /// What is larger is refused.
    pub const MAX_BYTES: usize = 50 * 1024 * 1024;

    /// Opens `file:PATH`, and makes the folder if there is none.
    pub fn open(url: &str) -> Result<Self, Error> {
        let Some(path) = url.strip_prefix("file:").filter(|path| !path.is_empty()) else {
            return Err(Error::Settings(format!("[blobs] url must be file:PATH, not `{url}`")));
        };
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        let doing = format!("opening the folder of blobs {}", path.display());
        crate::local::make_folder(path).map_err(|error| Error::settings(&doing, &error))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|error| Error::settings(&doing, &error))?;
        Ok(Self {
            store: std::sync::Arc::new(store.with_fsync(true)),
        })
    }

    /// Keeps the bytes under their SHA-256 (lower-case hexadecimal), which it
    /// returns. Durable when it returns; a repeat changes nothing.
    ///
    /// The file is written again even if it is there: whoever wrote it may not
    /// have lived to see it on the disk, and a damaged one is mended.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<String, Error> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(Error::Malformed(format!("{} bytes are too large to keep", bytes.len())));
        }
        let sha256 = model::id::sha256_hex(&bytes);
        self.store
            .put(&key(&sha256), PutPayload::from(bytes))
            .await
            .map_err(|error| Error::unavailable("keeping a blob", &error))?;
        Ok(sha256)
    }

    /// The bytes of that name, checked; `None` if there are none.
    pub async fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, Error> {
        if !is_sha256(sha256) {
            return Ok(None);
        }
        let found = match self.store.get(&key(sha256)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::unavailable("reading a blob", &error)),
        };
        if found.meta.size > Self::MAX_BYTES as u64 {
            return Err(Error::Malformed(format!(
                "the blob {sha256} is damaged: it is too large"
            )));
        }
        let bytes = found
            .bytes()
            .await
            .map_err(|error| Error::unavailable("reading a blob", &error))?;
        if model::id::sha256_hex(&bytes) != sha256 {
            return Err(Error::Malformed(format!(
                "the blob {sha256} is damaged: its bytes have another hash"
            )));
        }
        Ok(Some(bytes.into()))
    }

    /// When it was put last, by the clock of the folder; `None` if there is none.
    pub async fn put_at(&self, sha256: &str) -> Result<Option<SystemTime>, Error> {
        if !is_sha256(sha256) {
            return Ok(None);
        }
        match self.store.head(&key(sha256)).await {
            Ok(found) => Ok(Some(found.last_modified.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::unavailable("looking for a blob", &error)),
        }
    }

    /// Forgets it. Whoever calls knows that nothing refers to it.
    pub async fn remove(&self, sha256: &str) -> Result<(), Error> {
        if !is_sha256(sha256) {
            return Ok(());
        }
        match self.store.delete(&key(sha256)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::unavailable("removing a blob", &error)),
        }
    }
}

/// Two levels of folders, so that none grows too long to list.
fn key(sha256: &str) -> Key {
    Key::from(format!("{}/{}/{sha256}", &sha256[..2], &sha256[2..4]))
}
