//! The folder that the Functions host runs: host.json, a folder a function, the binary, the
//! configuration.

use std::fs;
use std::io;
use std::path::Path;

/// Each function's folder and its bindings, compiled in so that the binary alone can package.
const FUNCTIONS: [(&str, &str); 9] = [
    ("relay", include_str!("relay/function.json")),
    ("relay_v1", include_str!("relay_v1/function.json")),
    ("relay_low", include_str!("relay_low/function.json")),
    ("console", include_str!("console/function.json")),
    ("status", include_str!("status/function.json")),
    ("batch", include_str!("batch/function.json")),
    ("utilization", include_str!("utilization/function.json")),
    ("alert", include_str!("alert/function.json")),
    ("chargeback", include_str!("chargeback/function.json")),
];

const HOST_JSON: &str = include_str!("../host.json");

/// The binary's name in the folder; host.json names it.
const BINARY: &str = "spillway";

/// Writes the folder `out`: `binary` as the handler and `config` as its spillway.toml.
///
/// # Errors
/// When `out` is there and not empty, or can't be written.
pub fn write(out: &Path, binary: &Path, config: &str) -> io::Result<()> {
    let at = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot write {}: {error}", out.display()),
        )
    };
    fs::create_dir_all(out).map_err(at)?;
    if fs::read_dir(out).map_err(at)?.next().is_some() {
        let message = format!("{} is not empty; name a new folder", out.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    fs::write(out.join("host.json"), HOST_JSON).map_err(at)?;
    fs::write(out.join("spillway.toml"), config).map_err(at)?;
    for (name, bindings) in FUNCTIONS {
        fs::create_dir(out.join(name)).map_err(at)?;
        fs::write(out.join(name).join("function.json"), bindings).map_err(at)?;
    }
    // Copying keeps the permission to execute, which the host needs.
    fs::copy(binary, out.join(BINARY)).map_err(|error| {
        let message = format!(
            "cannot copy {} to {}: {error}",
            binary.display(),
            out.display()
        );
        io::Error::new(error.kind(), message)
    })?;
    Ok(())
}
