//! How many files and sockets the process may have open: systems often begin with
//! 1,024, and let a process have more if it asks.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Room for as many connections as a listener takes, and for files beside them.
const SENSIBLE: u64 = 16_384;

/// Asks for as many as it may have; says so if that is little.
pub fn ask_for_all() {
    let allowed = match raise() {
        Ok(allowed) => allowed,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            return;
        }
    };
    if allowed < SENSIBLE {
        tracing::warn!(
            allowed,
            sensible = SENSIBLE,
            "few files and sockets may be open at once, see ulimit -Hn"
        );
    }
}

/// How many may be open now.
fn raise() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_be_open_as_the_system_allows() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(1_024), hard).unwrap();
        assert_eq!(raise().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
