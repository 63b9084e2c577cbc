//! The description of the API is part of the review: it is made from the code
//! and must be what `openapi.json` says.

/// `UPDATE_OPENAPI=1` writes it anew.
#[test]
fn the_description_is_the_reviewed_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let made = api::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(file, &made).unwrap();
    }
    let reviewed = std::fs::read_to_string(file).unwrap();
    assert!(
        made == reviewed,
        "openapi.json is not what the code says; UPDATE_OPENAPI=1 cargo test -p api --test openapi writes it anew"
    );
}
