//! The operator's file, read and checked as at the start.
#![no_main]

use channels::signature::Keys;

/// They belong to an executable, which nobody can depend on.
#[path = "../../services/tributary/src"]
#[expect(dead_code, reason = "the executable uses the rest")]
mod tributary {
    pub mod settings;
}

use tributary::settings;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Devices among the files that it names would never end.
    if text.contains("_file") || text.contains("/dev") {
        return;
    }
    let keys = Keys::new(vec![vec![1; 32]]).unwrap();
    let checked =
        settings::from_text("fuzz.toml", text, Vec::new()).and_then(|settings| settings::check::check(settings, keys));
    if let Err(settings::Invalid(problems)) = checked {
        assert!(problems.iter().all(|problem| !problem.is_empty()) && !problems.is_empty());
    }
});
