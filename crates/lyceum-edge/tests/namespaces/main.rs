//! Courses' networks in network namespaces: who reaches whom, and that nothing else gets through.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

mod matrix;
mod spoof;
mod world;
