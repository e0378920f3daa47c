//! The whole agent over mutual TLS, on simulated machines.

#![allow(clippy::unwrap_used)]

mod arrivals;
mod desktops;
mod faults;
mod lab;
mod power;
mod replica;
mod seals;
