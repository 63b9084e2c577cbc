//! Large bytes, kept under their SHA-256 in a folder or in object storage.

mod serve;
mod shelf;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

use crate::Error;
use crate::wire::is_sha256;
pub use serve::Served;
pub(crate) use shelf::{BEHIND, BLOBS, Shelf};

/// Content-addressed bytes: written once, durable when `put` returns.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Where a gateway keeps what the store does not take.
    shelf: Option<Shelf>,
}

/// How long the store has where there is somewhere else to keep the bytes.
const PATIENCE: Duration = Duration::from_secs(2);
/// Object storage that does not answer: how long a request may take, and how long one
/// that failed is tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES: usize = 3;

impl Blobs {
    /// What is larger is refused.
    pub const MAX_BYTES: usize = 50 * 1024 * 1024;

    /// Opens `file:PATH`, and makes the folder if there is none, or `s3:BUCKET/PREFIX`,
    /// which asks nobody yet. Where S3 is and who we are there says the environment,
    /// under the names that all its clients use (`AWS_…`).
    pub fn open(url: &str) -> Result<Self, Error> {
        let store: Arc<dyn ObjectStore> = match url.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Arc::new(folder(path)?),
            Some(("s3", place)) if !place.is_empty() && !place.starts_with('/') => Arc::new(bucket(place)?),
            _ => {
                return Err(Error::Settings(format!(
                    "[blobs] url must be file:PATH or s3:BUCKET/PREFIX, not `{url}`"
                )));
            }
        };
        Ok(Self { store, shelf: None })
    }

    /// The same, with a place for what the store does not take.
    pub(crate) fn with_shelf(self, shelf: Shelf) -> Self {
        Self {
            shelf: Some(shelf),
            ..self
        }
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
        let bytes = Bytes::from(bytes);
        let Some(shelf) = &self.shelf else {
            self.store(&sha256, bytes).await?;
            return Ok(sha256);
        };
        if !shelf.is_store_away() {
            let stored = tokio::time::timeout(PATIENCE, self.store(&sha256, bytes.clone())).await;
            if let Ok(Ok(())) = stored {
                return Ok(sha256);
            }
            shelf.store_is_away();
        }
        shelf.keep(&sha256, bytes.into()).await?;
        Ok(sha256)
    }

    async fn store(&self, sha256: &str, bytes: Bytes) -> Result<(), Error> {
        self.store
            .put(&key(sha256), PutPayload::from(bytes))
            .await
            .map(drop)
            .map_err(|error| Error::unavailable("keeping a blob", &error))
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

fn folder(path: &str) -> Result<LocalFileSystem, Error> {
    let path = Path::new(path.strip_prefix("//").unwrap_or(path));
    let doing = format!("opening the folder of blobs {}", path.display());
    crate::local::make_folder(path).map_err(|error| Error::settings(&doing, &error))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| Error::settings(&doing, &error))?;
    Ok(store.with_fsync(true))
}

fn bucket(place: &str) -> Result<PrefixStore<impl ObjectStore>, Error> {
    let (bucket, prefix) = place
        .trim_matches('/')
        .split_once('/')
        .unwrap_or((place.trim_matches('/'), ""));
    let options = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        // Whoever names an endpoint without TLS means it.
        .with_allow_http(true);
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(options)
        .with_retry(retry)
        .build()
        .map_err(|error| Error::settings(&format!("opening the bucket {bucket}"), &error))?;
    Ok(PrefixStore::new(store, prefix))
}

/// Two levels of folders, so that none grows too long to list.
fn key(sha256: &str) -> Key {
    Key::from(format!("{}/{}/{sha256}", &sha256[..2], &sha256[2..4]))
}
