//! Configurations that grow: instructions of a call where there are many backends and many apps.

use std::fmt::Write as _;
use std::io;

use sha2::{Digest as _, Sha256};

use crate::callgrind::{self, FREE};
use crate::http::{chat_body, request};
use crate::mock::{Behaviour, Mock};
use crate::peers::{Place, Scene, Who};

/// Backends and apps of the configurations that are compared.
const SIZES: [(u32, u32); 6] = [
    (2, 10),
    (20, 10),
    (200, 10),
    (2, 1_000),
    (2, 100_000),
    (200, 100_000),
];

/// Deployments of one model. A model takes 64 at most, so that many backends serve several models, of
/// which one is called.
const OF_A_MODEL: u32 = 20;

/// How often each is counted. The least counts: what the console does every ten seconds is no call's.
const COUNTED: usize = 3;

/// A configuration with so many backends, all of them at one address, and so many apps, of which the
/// last one calls. Its placeholders are those of `peers/spillway.toml`.
pub(crate) fn config(backends: u32, apps: u32) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    for number in 0..backends {
        let model = match number / OF_A_MODEL {
            0 => "gpt-4o".to_owned(),
            more => format!("model-{more}"),
        };
        let _ = write!(
            text,
            "[[backend]]\nname = \"backend-{number}\"\nendpoint = \"http://{{{{backend}}}}\"\nkey = \"${{BACKEND_KEY}}\"\n\
             [[backend.deployment]]\nname = \"{model}\"\nkind = \"payg\"\n"
        );
    }
    for number in 1..apps {
        let name = format!("app-{number}");
        let digest = Sha256::digest(&name);
        let _ = write!(text, "[[app]]\nname = \"{name}\"\nkey_hashes = [\"sha256:");
        for byte in digest {
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str("\"]\n");
    }
    text + "[[app]]\nname = \"bench\"\nkey_hashes = [\"sha256:{{key_hash}}\"]\n"
}

/// Counts `calls` plain calls with each configuration; a table.
pub(crate) fn run(place: &Place, backend: &Mock, calls: u32) -> io::Result<String> {
    backend.play(Behaviour::default());
    let request = request(&chat_body(false));
    let mut table = String::from(
        "| backends | apps | instructions a call | allocations a call |\n| ---: | ---: | ---: | ---: |\n",
    );
    for (backends, apps) in SIZES {
        let out = place.work.join(format!("callgrind.out.{backends}.{apps}"));
        let peer = callgrind::start(place, Who::Spillway, Scene::Grown { backends, apps }, &out)?;
        let mut least = (f64::INFINITY, f64::INFINITY);
        for _ in 0..COUNTED {
            let counted = callgrind::counted(&peer, &out, &request, calls)?;
            least.0 = least.0.min(counted.instructions / f64::from(calls));
            least.1 = least.1.min(counted.calls_of(&FREE) / f64::from(calls));
        }
        let (instructions, allocations) = least;
        let _ = writeln!(
            table,
            "| {backends} | {apps} | {instructions:.0} | {allocations:.1} |"
        );
    }
    Ok(table)
}
