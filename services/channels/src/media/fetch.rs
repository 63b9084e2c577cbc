//! One fetch of a file, under the guard: redirects are followed here, and each hop
//! is checked like the first.

use std::time::Duration;

use model::error::chain;
use reqwest::StatusCode;
use reqwest::header::{LOCATION, RETRY_AFTER};
use secrecy::ExposeSecret;
use url::Url;

use super::{Fetch, Unfetched};
use crate::guard::{Guard, is_private};

/// Hops after the first.
const MAX_REDIRECTS: usize = 5;

/// The longest that a `Retry-After` makes us wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The bytes, at most `max_bytes`. Whoever calls bounds the time.
pub async fn bytes(guard: &Guard, asked: &Fetch, max_bytes: u64) -> Result<Vec<u8>, Unfetched> {
    let first = guard.url(&asked.url).map_err(Unfetched::lost)?;
    let mut url = first.clone();
    for _ in 0..=MAX_REDIRECTS {
        let mut request = guard.get(&url).map_err(Unfetched::lost)?;
        // Secrets are for the server that they were made for.
        if url.origin() == first.origin() {
            for (name, value) in &asked.headers {
                request = request.header(*name, value.expose_secret());
            }
        }
        let response = request.send().await.map_err(unreached)?;
        if !response.status().is_redirection() {
            return read(response, max_bytes).await;
        }
        if !asked.follows {
            return Err(Unfetched::lost(
                "the server sends us elsewhere instead of giving the file",
            ));
        }
        url = next(guard, &url, &response)?;
    }
    Err(Unfetched::lost(format!("more than {MAX_REDIRECTS} redirects")))
}

fn next(guard: &Guard, url: &Url, response: &reqwest::Response) -> Result<Url, Unfetched> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| Unfetched::lost(format!("the server answered {}", response.status())))?;
    let next = url
        .join(location)
        .map_err(|error| Unfetched::lost(format!("a redirect to no URL: {error}")))?;
    if url.scheme() == "https" && next.scheme() != "https" {
        return Err(Unfetched::lost("a redirect to an address without TLS"));
    }
    guard
        .url(next.as_str())
        .map_err(|reason| Unfetched::lost(format!("a redirect to {reason}")))
}

async fn read(mut response: reqwest::Response, max_bytes: u64) -> Result<Vec<u8>, Unfetched> {
    let status = response.status();
    // Taken for a file, an empty answer of "not yet" would be one for ever.
    let is_ready = status.is_success() && status != StatusCode::ACCEPTED;
    if !is_ready {
        return Err(refusal(status, retry_after(&response)));
    }
    let too_large = || Unfetched::lost(format!("the file is larger than {max_bytes} bytes"));
    if response.content_length().is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreached)? {
        if (body.len() + chunk.len()) as u64 > max_bytes {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refusal(status: StatusCode, after: Option<Duration>) -> Unfetched {
    let reason = format!("the server answered {status}");
    let may_change = matches!(
        status,
        StatusCode::ACCEPTED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::CONFLICT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
    );
    match may_change || status.is_server_error() {
        true => Unfetched::Later { after, reason },
        false => Unfetched::Lost { reason },
    }
}

/// Seconds only; a date is left to our own back-off.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// A name of a private address stays one; anything else may work another time.
fn unreached(error: reqwest::Error) -> Unfetched {
    let error = error.without_url();
    let reason = chain(&error);
    match is_private(&error) {
        true => Unfetched::Lost { reason },
        false => Unfetched::Later { after: None, reason },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A server that answers each path with these bytes of HTTP, and goes on with
    /// the last piece for ever if it ends in `…`.
    async fn serve(answers: Vec<(&'static str, String)>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let answers = answers.clone();
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let length = socket.read(&mut request).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    let path = request.split(' ').nth(1).unwrap_or_default();
                    let Some((_, answer)) = answers.iter().find(|(known, _)| *known == path) else {
                        return;
                    };
                    let answer = answer.replace("{port}", &port.to_string());
                    let answer = match request.to_lowercase().contains("authorization: secret") {
                        true => answer.replace("{secret}", "got it!!"),
                        false => answer.replace("{secret}", "has none"),
                    };
                    let _ = socket.write_all(answer.trim_end_matches('…').as_bytes()).await;
                    while answer.ends_with('…') && socket.write_all(&[b'x'; 1024]).await.is_ok() {}
                    if answer.ends_with('~') {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        port
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
    }

    fn file(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn status(status: &str) -> String {
        format!("HTTP/1.1 {status}\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n")
    }

    /// `files.example` is the test's server; whatever else is guarded.
    async fn fetched(port: u16, path: &str, follows: bool) -> String {
        let asked = Fetch {
            headers: vec![("authorization", "secret".into())],
            follows,
            ..Fetch::of(format!("http://files.example:{port}{path}"))
        };
        let guard = Guard::with_host("files.example", port);
        match timeout(Duration::from_secs(2), bytes(&guard, &asked, 100)).await {
            Err(_) => "hangs".to_owned(),
            Ok(Ok(bytes)) => format!("file {}", String::from_utf8_lossy(&bytes)),
            Ok(Err(Unfetched::Lost { reason })) => format!("lost: {reason}"),
            Ok(Err(Unfetched::Later { after, reason })) => {
                format!("later {:?}: {reason}", after.map(|after| after.as_secs()))
            }
        }
    }

    #[tokio::test]
    async fn a_fetch_ends_well_or_says_why_not() {
        let port = serve(vec![
            ("/file", file("{secret}")),
            ("/moved", redirect("/file")),
            ("/moved-fully", redirect("http://files.example:{port}/file")),
            ("/loop", redirect("/loop")),
            ("/to-loopback", redirect("http://127.0.0.1:{port}/file")),
            ("/to-loopback-6", redirect("http://[::1]:{port}/file")),
            ("/to-mapped", redirect("http://[::ffff:127.0.0.1]:{port}/file")),
            ("/to-metadata", redirect("http://169.254.169.254/latest/meta-data")),
            ("/to-private-name", redirect("http://localhost:{port}/file")),
            ("/to-file", redirect("file:///etc/passwd")),
            ("/no-location", status("302 Found")),
            ("/404", status("404 Not Found")),
            ("/403", status("403 Forbidden")),
            ("/429", status("429 Too Many Requests")),
            ("/500", status("500 Internal Server Error")),
            (
                "/announced",
                "HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n~".to_owned(),
            ),
            ("/endless", "HTTP/1.1 200 OK\r\n\r\n…".to_owned()),
            (
                "/short",
                "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nonly this".to_owned(),
            ),
            (
                "/long",
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfile and more".to_owned(),
            ),
            (
                "/hangs",
                "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nonly~".to_owned(),
            ),
        ])
        .await;
        let check = async |path: &str, expected: &str| {
            let found = fetched(port, path, true).await;
            assert!(found.starts_with(expected), "{path}: {found}");
        };
        check("/file", "file got it!!").await;
        check("/moved", "file got it!!").await;
        check("/moved-fully", "file got it!!").await;
        check("/loop", "lost: more than 5 redirects").await;
        check("/to-loopback", "lost: a redirect to 127.0.0.1 is a private").await;
        check("/to-loopback-6", "lost: a redirect to ::1 is a private").await;
        check("/to-mapped", "lost: a redirect to ::ffff:127.0.0.1 is a private").await;
        check("/to-metadata", "lost: a redirect to 169.254.169.254 is a private").await;
        check(
            "/to-private-name",
            "lost: error sending request: client error (Connect): ",
        )
        .await;
        check("/to-file", "lost: a redirect to file: only http").await;
        check("/no-location", "lost: the server answered 302").await;
        check("/404", "lost: the server answered 404").await;
        check("/403", "lost: the server answered 403").await;
        check("/429", "later Some(7): the server answered 429").await;
        check("/500", "later Some(7): the server answered 500").await;
        check("/announced", "lost: the file is larger than 100 bytes").await;
        check("/endless", "lost: the file is larger than 100 bytes").await;
        check("/short", "later None: ").await;
        check("/long", "file file").await;
        check("/hangs", "hangs").await;
        check("/closed", "later None: ").await;
        assert_eq!(
            fetched(port, "/moved", false).await,
            "lost: the server sends us elsewhere instead of giving the file"
        );
    }

    #[tokio::test]
    async fn secrets_stay_with_their_server() {
        let other = serve(vec![("/file", file("{secret}"))]).await;
        let port = serve(vec![("/away", redirect(&format!("http://files.example:{other}/file")))]).await;
        assert_eq!(fetched(port, "/away", true).await, "file has none");
    }

    #[tokio::test]
    async fn what_is_private_is_not_asked_at_all() {
        let port = serve(vec![("/file", file("secret"))]).await;
        let guard = Guard::new(false).unwrap();
        for host in ["127.0.0.1", "[::1]", "0x7f.1", "localhost"] {
            let asked = Fetch::of(format!("http://{host}:{port}/file"));
            let found = bytes(&guard, &asked, 100).await;
            assert!(
                matches!(&found, Err(Unfetched::Lost { reason }) if reason.contains("private")),
                "{host}: {found:?}"
            );
        }
        let open = Guard::new(true).unwrap();
        let asked = Fetch::of(format!("http://localhost:{port}/file"));
        assert_eq!(bytes(&open, &asked, 100).await.unwrap(), b"secret");
    }
}
