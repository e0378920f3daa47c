//! Builds anew when the page was built anew. In debug builds its files are read when asked
//! for, so only a release cares.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let dist = "../../web/dist";
    // A path that isn't there would make cargo build this crate every time; for a release
    // without a page that is right, it may come any moment.
    if std::path::Path::new(dist).is_dir() || std::env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo::rerun-if-changed={dist}");
    }
}
