//! Compiles the events' protobuf without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let files = [
        "conversation/v1/event.proto",
        "conversation/v1/desk.proto",
        "hints/v1/hint.proto",
    ];
    let files = protox::compile(files, [&proto])?;
    prost_build::Config::new()
        .compile_well_known_types()
        .include_file("proto.rs")
        .boxed(".conversation.v1.Event.body.message_received")
        .compile_fds(files)?;
    Ok(())
}
