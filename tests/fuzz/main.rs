//! What is read of bytes that come from outside, fed with bytes that nobody would send.
//!
//! LLVM's libFuzzer keeps those inputs that reach code which no input before has reached, and goes on
//! from them. `run` builds this and says which target a process runs, by `SPILLWAY_FUZZ_TARGET`. A target
//! fails by a panic, by too much memory or time, or because something does not hold that it asserts.

#![no_main]

mod inside;
mod outside;
mod triggers;

use std::sync::LazyLock;

use spillway::config::Config;

type Target = fn(&[u8]);

/// Each target by its name, which is that of its seeds' folder.
const TARGETS: [(&str, Target); 14] = [
    ("alert", triggers::alert),
    ("batch_line", triggers::batch_line),
    ("chargeback", triggers::chargeback),
    ("claims", outside::claims),
    ("config", outside::config),
    ("invocation", triggers::invocation),
    ("monitor", triggers::monitor),
    ("multipart", inside::multipart),
    ("opening", inside::opening),
    ("request", inside::request),
    ("route", inside::route),
    ("sse", inside::sse),
    ("token", outside::token),
    ("transform", inside::transform),
];

/// The configuration of those that need one.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let read = Config::parse(include_str!("config.toml"), "config.toml", &|_| None);
    read.unwrap_or_else(|mistakes| panic!("{mistakes}"))
});

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("SPILLWAY_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found
        .unwrap_or_else(|| panic!("SPILLWAY_FUZZ_TARGET is no target: {wanted:?}"))
        .1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
