//! What one address, one visitor and one socket may ask of us.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::frame::Close;
use super::settings;

/// Of one account in one process.
const MAX_SOCKETS: usize = 50_000;
/// What is forgotten of those who are quiet, every so many arrivals.
const FORGET_EVERY: u32 = 1_024;

pub(super) struct Limits {
    connects: DefaultKeyedRateLimiter<IpAddr>,
    messages: DefaultKeyedRateLimiter<String>,
    /// In KiB.
    uploads: DefaultKeyedRateLimiter<IpAddr>,
    frames: Quota,
    sockets_an_address: usize,
    pub sockets_a_visitor: usize,
    arrivals: AtomicU32,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    of_address: HashMap<IpAddr, usize>,
    all: usize,
}

/// A socket that is inside, until this is dropped.
pub(super) struct Entry {
    address: IpAddr,
    inside: Arc<Mutex<Inside>>,
}

impl Limits {
    pub fn new(settings: &settings::Limits) -> Result<Self, String> {
        let at_least_one = |name: &str, number: u32| {
            NonZeroU32::new(number).ok_or_else(|| format!("limits.{name}: must be at least 1"))
        };
        let connects = at_least_one("connects_a_minute", settings.connects_a_minute)?;
        let messages = at_least_one("messages_a_minute", settings.messages_a_minute)?;
        let frames = at_least_one("frames_a_second", settings.frames_a_second)?;
        let mebibytes = at_least_one("upload_mebibytes_an_hour", settings.upload_mebibytes_an_hour)?;
        let kibibytes = mebibytes.saturating_mul(KIB_A_MIB);
        if settings.sockets_an_address == 0 || settings.sockets_a_visitor == 0 {
            return Err("limits.sockets_an_address and sockets_a_visitor must be at least 1".to_owned());
        }
        Ok(Self {
            connects: RateLimiter::keyed(Quota::per_minute(connects)),
            messages: RateLimiter::keyed(Quota::per_minute(messages)),
            uploads: RateLimiter::keyed(Quota::per_hour(kibibytes)),
            // A burst is what a page says in its first moments.
            frames: Quota::per_second(frames).allow_burst(frames.saturating_mul(BURST)),
            sockets_an_address: settings.sockets_an_address,
            sockets_a_visitor: settings.sockets_a_visitor,
            arrivals: AtomicU32::new(0),
            inside: Arc::default(),
        })
    }

    /// Lets a socket of this address in, or says why not.
    pub fn enter(&self, address: IpAddr) -> Result<Entry, Close> {
        if self.arrivals.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.connects.retain_recent();
            self.messages.retain_recent();
            self.uploads.retain_recent();
        }
        if self.connects.check_key(&address).is_err() {
            return Err(Close::Flood);
        }
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.all >= MAX_SOCKETS {
            return Err(Close::Full);
        }
        let of_address = inside.of_address.entry(address).or_default();
        if *of_address >= self.sockets_an_address {
            return Err(Close::Flood);
        }
        *of_address += 1;
        inside.all += 1;
        Ok(Entry {
            address,
            inside: self.inside.clone(),
        })
    }

    /// Whether this visitor may send one more message now.
    pub fn may_send(&self, thread: &String) -> bool {
        self.messages.check_key(thread).is_ok()
    }

    /// Whether this address may leave a file of this size here now.
    pub fn may_upload(&self, address: IpAddr, bytes: usize) -> bool {
        let kibibytes = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(1);
        let kibibytes = NonZeroU32::new(kibibytes).unwrap_or(NonZeroU32::MAX);
        // The inner error: not now; the outer: never.
        matches!(self.uploads.check_key_n(&address, kibibytes), Ok(Ok(())))
    }

    /// What one socket may say.
    pub fn of_socket(&self) -> DefaultDirectRateLimiter {
        RateLimiter::direct(self.frames)
    }
}

const BURST: NonZeroU32 = NonZeroU32::new(3).unwrap();
const KIB_A_MIB: NonZeroU32 = NonZeroU32::new(1_024).unwrap();

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all = inside.all.saturating_sub(1);
        if let Some(count) = inside.of_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inside.of_address.remove(&self.address);
            }
        }
    }
}

/// Whose request it is: what the last of our own proxies says, if there are any.
/// What stands before that is the sender's word. Of IPv6 the network counts, for
/// everybody has 2⁶⁴ addresses there.
pub(super) fn address(headers: &HeaderMap, peer: IpAddr, trusted_proxies: usize) -> IpAddr {
    match named(headers, peer, trusted_proxies).to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

fn named(headers: &HeaderMap, peer: IpAddr, trusted_proxies: usize) -> IpAddr {
    if trusted_proxies == 0 {
        return peer;
    }
    let values = headers.get_all("x-forwarded-for").iter();
    let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let hops: Vec<&str> = texts.iter().flat_map(|text| text.split(',')).map(str::trim).collect();
    let hop = hops
        .len()
        .checked_sub(trusted_proxies)
        .and_then(|index| hops.get(index));
    hop.and_then(|hop| hop.parse().ok()).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_sockets_and_connects() {
        let limits = Limits::new(&settings::Limits {
            sockets_an_address: 2,
            connects_a_minute: 4,
            ..settings::Limits::default()
        })
        .unwrap();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let first = limits.enter(one).ok().unwrap();
        let _second = limits.enter(one).ok().unwrap();
        assert_eq!(limits.enter(one).err(), Some(Close::Flood));
        let _others = limits.enter(other).ok().unwrap();
        drop(first);
        // The fourth of the minute; the fifth is too many.
        drop(limits.enter(one).ok().unwrap());
        assert_eq!(limits.enter(one).err(), Some(Close::Flood));
        assert!(limits.enter(other).is_ok());
        assert!(limits.inside.lock().unwrap().of_address.len() == 2);
    }

    #[test]
    fn a_visitor_sends_so_many_messages() {
        let limits = Limits::new(&settings::Limits {
            messages_a_minute: 3,
            ..settings::Limits::default()
        })
        .unwrap();
        let sent = |thread: &str| (0..5).filter(|_| limits.may_send(&thread.to_owned())).count();
        assert_eq!((sent("one"), sent("two")), (3, 3));
    }

    #[test]
    fn an_address_uploads_so_much() {
        let limits = Limits::new(&settings::Limits {
            upload_mebibytes_an_hour: 3,
            ..settings::Limits::default()
        })
        .unwrap();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let uploads = |address, bytes| (0..10).filter(|_| limits.may_upload(address, bytes)).count();
        assert_eq!((uploads(one, 1_000_000), uploads(one, 1_000_000)), (3, 0));
        assert_eq!((uploads(other, 4 << 20), uploads(other, 10)), (0, 10));
    }

    #[test]
    fn the_address_is_what_our_own_proxies_say() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let check = |forwarded: &[&str], proxies: usize, expected: &str| {
            let mut headers = HeaderMap::new();
            for text in forwarded {
                headers.append("x-forwarded-for", text.parse().unwrap());
            }
            assert_eq!(
                address(&headers, peer, proxies).to_string(),
                expected,
                "{forwarded:?} {proxies}"
            );
        };
        check(&["192.0.2.1"], 0, "10.0.0.1");
        check(&["192.0.2.1"], 1, "192.0.2.1");
        check(&["198.51.100.1, 192.0.2.1"], 1, "192.0.2.1");
        check(&["198.51.100.1", "192.0.2.1,2001:db8::1"], 2, "192.0.2.1");
        check(&["2001:db8:1:2:3:4:5:6"], 1, "2001:db8:1:2::");
        check(&["::ffff:192.0.2.1"], 1, "192.0.2.1");
        check(&["192.0.2.1"], 2, "10.0.0.1");
        check(&["forged"], 1, "10.0.0.1");
        check(&[], 1, "10.0.0.1");
    }
}
