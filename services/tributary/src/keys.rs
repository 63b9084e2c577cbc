//! The installation's keys and the first administrator's token: files that only
//! their owner may read, made once.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use channels::signature::Keys;
use model::time::Moment;
use store::Store;

use crate::settings::{Invalid, Settings};

/// Where `all` keeps the key that it made.
pub const KEY_FILE: &str = "key";
/// Where the administrator's first token lies.
pub const TOKEN_FILE: &str = "desk-token";
/// Whose token that is.
pub const ADMINISTRATOR: &str = "administrator";
/// What every token begins with, so that one that leaks is recognised.
const TOKEN_PREFIX: &str = "trb_";

const SECRET_BYTES: usize = 32;

/// The keys of `[keys] files`, else the one that `all` made earlier. `None`:
/// there are none yet.
pub fn read(settings: &Settings) -> Result<Option<Keys>, Invalid> {
    let made = settings.in_data(KEY_FILE);
    let files = match settings.keys.files.as_slice() {
        [] if made.exists() => vec![made],
        [] => return Ok(None),
        files => files.to_vec(),
    };
    let mut problems = Vec::new();
    let mut keys = Vec::new();
    for file in &files {
        match read_key(file) {
            Ok(key) => keys.push(key),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(Invalid(problems));
    }
    let keys = Keys::new(keys).map_err(|reason| Invalid(vec![format!("keys.files: {reason}")]))?;
    Ok(Some(keys))
}

fn read_key(file: &Path) -> Result<Vec<u8>, String> {
    let key = std::fs::read(file).map_err(|error| format!("keys.files: cannot read {}: {error}", file.display()))?;
    if key.len() < Keys::MIN_BYTES {
        return Err(format!(
            "keys.files: {} has {} bytes; a key has at least {}",
            file.display(),
            key.len(),
            Keys::MIN_BYTES
        ));
    }
    Ok(key)
}

/// A key that nothing was ever signed with, for looking at settings.
pub fn throwaway() -> Result<Keys> {
    Keys::new(vec![random()?]).map_err(anyhow::Error::msg)
}

/// Makes the installation's key. Another process that was first wins.
pub fn create(settings: &Settings) -> Result<Keys> {
    let path = settings.in_data(KEY_FILE);
    if !path.exists() {
        create_secret_file(&path, &random()?)?;
    }
    let key = read_key(&path).map_err(anyhow::Error::msg)?;
    Keys::new(vec![key]).map_err(anyhow::Error::msg)
}

/// A new token, and what the store keeps of it.
pub fn new_token() -> Result<(String, String)> {
    let secret = data_encoding::BASE64URL_NOPAD.encode(&random()?);
    let token = format!("{TOKEN_PREFIX}{secret}");
    let sha256 = model::id::sha256_hex(token.as_bytes());
    Ok((token, sha256))
}

/// On the first start, when nobody has a token yet: writes the administrator's to
/// the data folder.
pub async fn create_first_token(settings: &Settings, store: &Store) -> Result<()> {
    if store.has_tokens().await? {
        return Ok(());
    }
    let path = settings.in_data(TOKEN_FILE);
    // The file first: a token that nobody can read would lock everyone out. One
    // that an earlier start left, before it got as far as the store, is used.
    if read_token(&path).is_none() {
        create_secret_file(&path, format!("{}\n", new_token()?.0).as_bytes())?;
    }
    let token = read_token(&path).with_context(|| format!("{} holds no token; remove it", path.display()))?;
    let sha256 = model::id::sha256_hex(token.as_bytes());
    let now = Moment::from(std::time::SystemTime::now());
    store.create_token(ADMINISTRATOR, &sha256, now).await?;
    Ok(())
}

/// The token in this file, if there is a readable one.
pub fn read_token(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let token = text.trim();
    token.starts_with(TOKEN_PREFIX).then(|| token.to_owned())
}

/// Writes a file that must not be there yet, readable by its owner only, whole
/// and on disk when this returns.
fn create_secret_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        // Written under another name first: a crash in between leaves no half key.
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link, unlike a rename, never replaces a file that somebody else made.
        let linked = std::fs::hard_link(&temporary, path);
        std::fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(folder) = path.parent() {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn random() -> Result<Vec<u8>> {
    let mut bytes = vec![0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secret_files_are_private_whole_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_secret_file(&path, b"first").unwrap();
        create_secret_file(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn tokens_differ_and_are_kept_by_their_hash() {
        let (first, sha256) = new_token().unwrap();
        let (second, _) = new_token().unwrap();
        assert_ne!(first, second);
        assert_eq!(first.len(), "trb_".len() + 43);
        assert_eq!(sha256, model::id::sha256_hex(first.as_bytes()));
    }

    #[test]
    fn a_token_file_is_read_without_white_space() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desk-token");
        assert_eq!(read_token(&path), None);
        std::fs::write(&path, "trb_abc\n").unwrap();
        assert_eq!(read_token(&path).as_deref(), Some("trb_abc"));
        std::fs::write(&path, "something else").unwrap();
        assert_eq!(read_token(&path), None);
    }

    #[test]
    fn short_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [1; Keys::MIN_BYTES - 1]).unwrap();
        assert!(read_key(&path).unwrap_err().contains("has 15 bytes"));
        std::fs::write(&path, [1; Keys::MIN_BYTES]).unwrap();
        assert_eq!(read_key(&path).unwrap().len(), 16);
    }
}
