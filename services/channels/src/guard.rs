//! The guard of outgoing fetches: private addresses are refused, also behind
//! names, unless settings allow them. Redirects are not followed and proxies of
//! the environment not used, so that no hop escapes the check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use model::error::chain;
use reqwest::Method;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Url};

use crate::channel::Sent;

/// For a connection to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a file may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(3600);

/// An HTTP client that reaches only where it may.
#[derive(Clone)]
pub struct Guard {
    client: reqwest::Client,
    allow_private: bool,
}

impl Guard {
    /// `allow_private`: also reaches private and local addresses.
    pub fn new(allow_private: bool) -> Result<Self, String> {
        Self::build(allow_private, |builder| builder)
    }

    fn build(
        allow_private: bool,
        configure: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self, String> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(30))
            .dns_resolver(Resolver { allow_private });
        let client = configure(builder)
            .build()
            .map_err(|error| format!("the HTTP client cannot be built: {error}"))?;
        Ok(Self { client, allow_private })
    }

    /// A strict guard that takes this name, and no other, for a local server.
    #[cfg(test)]
    pub fn with_host(name: &str, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::build(false, |builder| builder.resolve(name, address)).unwrap()
    }

    /// Reads a URL that may be fetched: `http` or `https`, with a host that is no
    /// private address. A name is looked up, and checked, only when it is fetched.
    pub fn url(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{}: only http and https are fetched", url.scheme()));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err("a URL without a host".to_owned()),
        };
        match literal {
            Some(address) if !self.may_reach(address) => Err(Private(address.to_string()).to_string()),
            _ => Ok(url),
        }
    }

    /// A request for a URL that [`Guard::url`] read; its host is checked again.
    pub fn get(&self, url: &Url) -> Result<reqwest::RequestBuilder, String> {
        let url = self.url(url.as_str())?;
        // Files may take longer than answers; who fetches them has a deadline.
        Ok(self.client.get(url).timeout(FILE_TIMEOUT))
    }

    /// A request to a URL that [`Guard::url`] read; its host is checked again.
    pub fn post(&self, url: &Url) -> Result<reqwest::RequestBuilder, String> {
        self.request(Method::POST, url)
    }

    /// The same by any method.
    pub fn request(&self, method: Method, url: &Url) -> Result<reqwest::RequestBuilder, String> {
        let url = self.url(url.as_str())?;
        Ok(self.client.request(method, url))
    }

    /// A connection to the host of a URL, for what is no HTTP for long: a socket.
    pub async fn connect(&self, url: &Url) -> Result<TcpStream, String> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err("a URL without a host".to_owned());
        };
        // An IPv6 address stands in brackets there.
        let host = host.trim_matches(['[', ']']);
        let connecting = async {
            let found = tokio::net::lookup_host((host, port))
                .await
                .map_err(|error| error.to_string())?;
            let allowed: Vec<SocketAddr> = found.filter(|address| self.may_reach(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Private(host.to_owned()).to_string());
            }
            TcpStream::connect(allowed.as_slice())
                .await
                .map_err(|error| error.to_string())
        };
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or_else(|_| Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))
    }

    fn may_reach(&self, address: IpAddr) -> bool {
        self.allow_private || is_public(address)
    }
}

/// Why a request got no answer.
pub struct Unanswered {
    /// Whether it may have reached the other side all the same.
    pub may_have_arrived: bool,
    /// In words, without its URL.
    pub error: String,
}

impl From<reqwest::Error> for Unanswered {
    fn from(error: reqwest::Error) -> Self {
        Self {
            may_have_arrived: !error.is_connect() && !error.is_builder(),
            error: chain(&error.without_url()),
        }
    }
}

impl From<Unanswered> for Sent {
    fn from(unanswered: Unanswered) -> Self {
        let error = unanswered.error;
        match unanswered.may_have_arrived {
            true => Self::Unknown { error },
            false => Self::Later { after: None, error },
        }
    }
}

/// Reads a response's body up to `max_bytes`; more is an error.
pub async fn read_body(response: &mut reqwest::Response, max_bytes: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
        if body.len() + chunk.len() > max_bytes {
            return Err(format!("the answer is longer than {max_bytes} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

struct Resolver {
    allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(Private(name.as_str().to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// A host that may not be reached.
#[derive(Debug)]
struct Private(String);

impl std::fmt::Display for Private {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(host) = self;
        write!(
            formatter,
            "{host} is a private or local address, which settings do not allow to be reached"
        )
    }
}

impl std::error::Error for Private {}

/// Whether a request failed because a name is one of private addresses only.
pub fn is_private(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<Private>() {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Whether the address belongs to the public Internet: nothing that the IANA
/// registries of special-purpose addresses keep for other uses.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        (0 | 10 | 127, _, _) => true,
        // Carrier-grade NAT, RFC 6598.
        (100, 64..=127, _) => true,
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        // Protocol assignments, documentation, 6to4 relays.
        (192, 0, 0 | 2) | (192, 88, 99) => true,
        (192, 168, _) => true,
        // Benchmarks, documentation.
        (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224..=255, _, _) => true,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64, RFC 6052, and 6to4, RFC 3056: what counts is the address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and other protocol assignments, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Everything else that is global unicast. Loopback, mapped, compatible,
        // unique local, link-local and multicast lie outside.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let check = |address: &str, expected: bool| {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        };
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
        ] {
            check(public, true);
        }
        for public in [
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "169.253.0.1",
        ] {
            check(public, true);
        }
        for public in ["2606:4700:4700::1111", "2a00::1", "64:ff9b::808:808", "2002:808:808::1"] {
            check(public, true);
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "100.64.0.1",
        ] {
            check(private, false);
        }
        for private in [
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
        ] {
            check(private, false);
        }
        for private in [
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
        ] {
            check(private, false);
        }
        for private in ["203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"] {
            check(private, false);
        }
        for private in [
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::8.8.8.8",
            "fc00::1",
            "fd12::1",
        ] {
            check(private, false);
        }
        for private in [
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
        ] {
            check(private, false);
        }
        for private in [
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "2002:7f00:1::1",
            "2002:c0a8:101::1",
        ] {
            check(private, false);
        }
    }

    #[test]
    fn urls_are_checked_however_their_address_is_written() {
        let [strict, open] = [false, true].map(|allow_private| Guard::new(allow_private).unwrap());
        let check = |text: &str, is_public: bool, is_url: bool| {
            assert_eq!(strict.url(text).is_ok(), is_public, "{text}");
            assert_eq!(open.url(text).is_ok(), is_url, "{text}");
        };
        check("https://example.com/hook", true, true);
        check("http://8.8.8.8/", true, true);
        check("http://127.0.0.1:9/", false, true);
        check("http://0x7f.1/", false, true);
        check("http://2130706433/", false, true);
        check("http://017700000001/", false, true);
        check("http://[::1]/", false, true);
        check("http://[::ffff:10.0.0.1]/", false, true);
        check("http://10.1/", false, true);
        check("ftp://example.com/", false, false);
        check("file:///etc/passwd", false, false);
        check("gopher://example.com/", false, false);
        check("https://", false, false);
        check("example.com", false, false);
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_not_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let guard = Guard::new(false).unwrap();
        let url = guard.url(&text).unwrap();
        let error = guard.post(&url).unwrap().send().await.unwrap_err().without_url();
        let error = chain(&error);
        assert!(error.contains("localhost is a private"), "{error}");
    }
}
