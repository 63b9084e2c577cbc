//! Bodies of requests: read within their size, their time, and the room that there
//! is for large ones.
//!
//! A large body takes room as it comes, not as it is announced, so that slow
//! senders cannot keep others out. Its account's share is bounded too: who floods
//! one account does not reach the others.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::Refused;

/// A longer body is answered 413.
pub(super) const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// A body up to this size needs no room, and is parsed at once; a larger one is
/// parsed on a thread of its own.
pub(super) const SMALL_BODY_BYTES: usize = 64 * 1024;
/// Room is counted in blocks of this size.
const BLOCK_BYTES: usize = 64 * 1024;
/// So much of what follows a body that is too long is read and thrown away.
const LINGER_BYTES: usize = 4 * MAX_BODY_BYTES;

/// What a sender may take.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The time of a small body, and of one of the greatest size; a body that takes
    /// longer is answered 408.
    pub body: Duration,
    /// The time of a body that is just not small any more; the more has come of it
    /// the longer it has, up to `body`.
    pub large: Duration,
    /// So long a large body waits for room.
    pub waiting: Duration,
    /// So long what is left of a body that is too long is read and thrown away: a
    /// sender who is cut off in mid-body does not see his answer.
    pub linger: Duration,
    /// The room for large bodies, in bytes. One account may take half of it.
    pub room_bytes: usize,
}

pub(super) const BOUNDS: Bounds = Bounds {
    body: Duration::from_secs(30),
    large: Duration::from_secs(10),
    waiting: Duration::from_secs(5),
    linger: Duration::from_secs(2),
    room_bytes: 32 * MAX_BODY_BYTES,
};

/// Room for large bodies, in blocks.
pub(super) struct Room(Semaphore);

/// A body, and the room that it takes.
pub(super) struct Held<'a> {
    pub bytes: Bytes,
    _taken: Option<Taken<'a>>,
}

/// Of the account's room, and of all.
struct Taken<'a>([SemaphorePermit<'a>; 2]);

impl Room {
    /// What all accounts share.
    pub fn of_all(bounds: Bounds) -> Self {
        Self(Semaphore::new(bounds.room_bytes / BLOCK_BYTES))
    }

    /// What one account may take of it.
    pub fn of_account(bounds: Bounds) -> Self {
        Self(Semaphore::new(bounds.room_bytes / BLOCK_BYTES / 2))
    }
}

/// The whole body. `rooms` are the account's and that of all.
pub(super) async fn read<'a>(
    headers: &HeaderMap,
    body: Body,
    rooms: [&'a Room; 2],
    bounds: Bounds,
) -> Result<Held<'a>, Refused> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length: Option<usize> = length.and_then(|text| text.parse().ok());
    let mut chunks = body.into_data_stream();
    let read = if length.is_some_and(|length| length > MAX_BODY_BYTES) {
        Err(Refused::TooLarge)
    } else {
        read_within(&mut chunks, rooms, bounds).await
    };
    // Who asks before he sends has sent nothing yet.
    if matches!(read, Err(Refused::TooLarge)) && !headers.contains_key(EXPECT) {
        // Whoever has more to send than this sees a closed connection.
        let _ = timeout(bounds.linger, skip(&mut chunks)).await;
    }
    read
}

async fn read_within<'a>(
    chunks: &mut BodyDataStream,
    rooms: [&'a Room; 2],
    bounds: Bounds,
) -> Result<Held<'a>, Refused> {
    let begun = Instant::now();
    let mut read = BytesMut::new();
    let mut taken = None;
    loop {
        let next = timeout_at(begun + bounds.time_of(read.len()), chunks.next()).await;
        let Some(chunk) = next.map_err(|_| Refused::TooSlow)? else {
            break;
        };
        let chunk = chunk.map_err(|_| Refused::Broken)?;
        let size = read.len() + chunk.len();
        if size > MAX_BODY_BYTES {
            return Err(Refused::TooLarge);
        }
        if size > SMALL_BODY_BYTES {
            let taking = take(&mut taken, size.div_ceil(BLOCK_BYTES), rooms);
            timeout(bounds.waiting, taking).await.map_err(|_| Refused::Busy)??;
        }
        read.extend_from_slice(&chunk);
    }
    Ok(Held {
        bytes: read.freeze(),
        _taken: taken,
    })
}

/// Takes what is missing to so many blocks.
async fn take<'a>(taken: &mut Option<Taken<'a>>, blocks: usize, rooms: [&'a Room; 2]) -> Result<(), Refused> {
    let has = taken.as_ref().map_or(0, |Taken([permit, _])| permit.num_permits());
    let missing = u32::try_from(blocks.saturating_sub(has)).map_err(|_| Refused::TooLarge)?;
    if missing == 0 {
        return Ok(());
    }
    let [account, all] = rooms;
    let of_account = account.0.acquire_many(missing).await.map_err(|_| Refused::Busy)?;
    let of_all = all.0.acquire_many(missing).await.map_err(|_| Refused::Busy)?;
    match taken {
        Some(Taken([account, all])) => {
            account.merge(of_account);
            all.merge(of_all);
        }
        None => *taken = Some(Taken([of_account, of_all])),
    }
    Ok(())
}

/// Bounded in bytes too: a time-out is not looked at while there is always more.
async fn skip(chunks: &mut BodyDataStream) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(chunk)) = chunks.next().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            break;
        }
    }
}

impl Bounds {
    /// From its begin, for a body of which so much has come: large ones must keep
    /// up a rate, as they hold room.
    fn time_of(self, bytes: usize) -> Duration {
        if bytes <= SMALL_BODY_BYTES {
            return self.body;
        }
        let part = bytes as f64 / MAX_BODY_BYTES as f64;
        self.large + self.body.saturating_sub(self.large).mul_f64(part)
    }
}
