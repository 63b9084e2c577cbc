//! Records of the event log, whoever wrote them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(undecodable) = bus::decode(bytes) {
        assert_eq!(undecodable.bytes, bytes);
        assert!(!undecodable.reason.is_empty());
    }
});
