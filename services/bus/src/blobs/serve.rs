//! A blob on its way to a browser: streamed, whole or in part, under headers that
//! let nothing in it run. Desk and public door serve files alike by this.

use std::ops::Range;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use model::file::{self, Wanted};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::{Blobs, key};
use crate::Error;
use crate::wire::is_sha256;

/// An HTTP answer with a file.
pub struct Served {
    /// 200, 206 or 416.
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// Ends with an error if the bytes are not those of the name.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl Blobs {
    /// The blob of that name as a file of this `name`; `range` is the request's
    /// header. `None` if there is no such blob.
    pub async fn serve(&self, sha256: &str, name: &str, range: Option<&str>) -> Result<Option<Served>, Error> {
        let Some(size_bytes) = self.size_bytes(sha256).await? else {
            return Ok(None);
        };
        let head = self.part(sha256, 0..size_bytes.min(file::HEAD_BYTES as u64)).await?;
        let Some(head) = head else { return Ok(None) };
        let mut headers = file::headers(name, &file::true_type(&head, "")).to_vec();
        let (status, part) = match file::wanted(range, size_bytes) {
            Wanted::Whole => (200, 0..size_bytes),
            Wanted::Part(part) => (206, part),
            Wanted::Nothing => (416, 0..0),
        };
        headers.push(("content-length", (part.end - part.start).to_string()));
        match status {
            206 => headers.push((
                "content-range",
                format!("bytes {}-{}/{size_bytes}", part.start, part.end - 1),
            )),
            416 => headers.push(("content-range", format!("bytes */{size_bytes}"))),
            _ => {}
        }
        let bytes = match status {
            200 if size_bytes > 0 => self.whole(sha256).await?,
            206 => self.stream(sha256, Some(part)).await?,
            _ => Some(stream::empty().boxed()),
        };
        Ok(bytes.map(|bytes| Served { status, headers, bytes }))
    }

    /// How large the blob of that name is, and so whether there is one.
    pub async fn size_bytes(&self, sha256: &str) -> Result<Option<u64>, Error> {
        if !is_sha256(sha256) {
            return Ok(None);
        }
        match self.store.head(&key(sha256)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::unavailable("looking for a blob", &error)),
        }
    }

    async fn part(&self, sha256: &str, part: Range<u64>) -> Result<Option<Vec<u8>>, Error> {
        if part.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let Some(mut pieces) = self.stream(sha256, Some(part)).await? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(Some(bytes))
    }

    /// All of it; the last piece is held back until the hash is known to be right.
    async fn whole(&self, sha256: &str) -> Result<Option<BoxStream<'static, Result<Bytes, Error>>>, Error> {
        let Some(pieces) = self.stream(sha256, None).await? else {
            return Ok(None);
        };
        let expected = sha256.to_owned();
        let state = (pieces, Context::new(&SHA256), None::<Bytes>, expected);
        let checked = stream::try_unfold(state, |(mut pieces, mut hash, mut held, expected)| async move {
            loop {
                match pieces.next().await.transpose()? {
                    Some(piece) => {
                        hash.update(&piece);
                        if let Some(ready) = held.replace(piece) {
                            return Ok(Some((ready, (pieces, hash, held, expected))));
                        }
                    }
                    None if held.is_none() => return Ok(None),
                    None if HEXLOWER.encode(hash.clone().finish().as_ref()) != expected => {
                        return Err(Error::Malformed(format!("the blob {expected} is damaged")));
                    }
                    None => return Ok(held.take().map(|last| (last, (pieces, hash, None, expected)))),
                }
            }
        });
        Ok(Some(checked.boxed()))
    }

    async fn stream(
        &self,
        sha256: &str,
        part: Option<Range<u64>>,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, Error>>>, Error> {
        let options = GetOptions {
            range: part.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        match self.store.get_opts(&key(sha256), options).await {
            Ok(found) => {
                let pieces = found.into_stream();
                let pieces = pieces.map(|piece| piece.map_err(|error| Error::unavailable("reading a blob", &error)));
                Ok(Some(pieces.boxed()))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::unavailable("reading a blob", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(served: Served) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut pieces = served.bytes;
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }

    fn header<'a>(served: &'a Served, name: &str) -> Option<&'a str> {
        let found = served.headers.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_str())
    }

    #[tokio::test]
    async fn a_file_is_served_whole_and_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file:{}", folder.path().display())).unwrap();
        let text: Vec<u8> = (0..100_000_u32)
            .flat_map(|number| format!("{number}\n").into_bytes())
            .collect();
        let sha256 = blobs.put(text.clone()).await.unwrap();
        let serve = async |range: Option<&str>| blobs.serve(&sha256, "a.txt", range).await.unwrap().unwrap();

        let whole = serve(None).await;
        assert_eq!(
            (whole.status, header(&whole, "content-type")),
            (200, Some("text/plain; charset=utf-8"))
        );
        assert_eq!(header(&whole, "content-length"), Some(text.len().to_string().as_str()));
        assert_eq!(read(whole).await.unwrap(), text);

        let part = serve(Some("bytes=10-19")).await;
        let expected = format!("bytes 10-19/{}", text.len());
        assert_eq!(
            (part.status, header(&part, "content-range")),
            (206, Some(expected.as_str()))
        );
        assert_eq!(read(part).await.unwrap(), text[10..20]);

        let beyond = serve(Some("bytes=99999999-")).await;
        assert_eq!((beyond.status, header(&beyond, "content-length")), (416, Some("0")));
        assert!(read(beyond).await.unwrap().is_empty());

        let empty = blobs.put(Vec::new()).await.unwrap();
        let empty = blobs.serve(&empty, "a", None).await.unwrap().unwrap();
        assert_eq!((empty.status, read(empty).await.unwrap()), (200, Vec::new()));
        for nothing in [model::id::sha256_hex(b"another"), "../../etc/passwd".to_owned()] {
            assert!(blobs.serve(&nothing, "a", None).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_damaged_file_does_not_end_well() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file:{}", folder.path().display())).unwrap();
        let sha256 = blobs.put(b"the right bytes".to_vec()).await.unwrap();
        let path = folder.path().join(&sha256[..2]).join(&sha256[2..4]).join(&sha256);
        std::fs::write(path, b"the wrong bytes").unwrap();
        let served = blobs.serve(&sha256, "a", None).await.unwrap().unwrap();
        assert!(matches!(read(served).await, Err(Error::Malformed(_))));
    }

    #[tokio::test]
    async fn a_removed_blob_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file:{}", folder.path().display())).unwrap();
        let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        let sha256 = blobs.put(b"bytes".to_vec()).await.unwrap();
        assert!(blobs.put_at(&sha256).await.unwrap().is_some_and(|at| at > before));
        // Removing it again changes nothing.
        for _ in 0..2 {
            blobs.remove(&sha256).await.unwrap();
            assert_eq!(blobs.get(&sha256).await.unwrap(), None);
            assert_eq!(blobs.put_at(&sha256).await.unwrap(), None);
        }
    }
}
