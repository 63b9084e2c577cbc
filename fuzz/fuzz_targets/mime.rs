//! Mails: MIME, headers, addresses, HTML, reports.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::parse("email", bytes));
