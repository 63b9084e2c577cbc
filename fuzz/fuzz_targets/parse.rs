//! Every channel's `parse`: its name stands in the first line, the body behind it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((channel, body)) = fuzz::line(bytes) {
        fuzz::parse(channel, body);
    }
});
