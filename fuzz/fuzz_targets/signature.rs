//! Every channel's `verify` and `handshake`: the channel, the URL, the values of the
//! headers that it keeps, a line each; an empty line; the body.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((channel, rest)) = fuzz::line(bytes) else {
        return;
    };
    let Some(account) = fuzz::ACCOUNTS.get(channel) else {
        return;
    };
    let Some((url, mut rest)) = fuzz::line(rest) else {
        return;
    };
    let mut headers = Vec::new();
    for name in account.channel.kept_headers() {
        match fuzz::line(rest) {
            Some((value, behind)) if !value.is_empty() => {
                headers.push(((*name).to_owned(), value.to_owned()));
                rest = behind;
            }
            _ => break,
        }
    }
    let input = fuzz::posted(url, headers, rest.strip_prefix(b"\n").unwrap_or(rest));
    let _ = account.channel.verify(&input);
    let _ = account.channel.handshake(&input);
});
