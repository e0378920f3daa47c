//! The whole agent over mutual TLS, on simulated machines.

mod desktops;
mod faults;
mod lab;
mod seals;
