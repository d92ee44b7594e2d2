//! The process as the Functions host starts, probes and ends it.

use std::process::Command;

use crate::gateway::{OPEN, backend};
use crate::process::{Process, ends, free_port, handler, package};
use crate::raw::Raw;
use crate::scripted::{Scripted, good};

/// A configuration that is right, and whose backend is asked nothing.
const RIGHT: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n";

/// A packaged app with this configuration, in a folder whose path has spaces.
fn app(config: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::Builder::new()
        .prefix("site wwwroot ")
        .tempdir()
        .unwrap();
    let folder = root.path().join("my app");
    package(&folder, config);
    (root, folder)
}

#[tokio::test]
async fn the_handler_is_ready_and_serves_from_a_path_with_spaces() {
    let a = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned() + &backend("a", a.address, "payg", "");
    let (_root, folder) = app(&config);
    let port = free_port();
    let process = Process::start(handler(&folder, &port.to_string()), port);
    let mut host = Raw::connect(process.address).await;
    host.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .await;
    assert_eq!(host.answer().await.status, 200);
    let body = "{\"model\":\"gpt-4o\"}";
    let call = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    host.write(call.as_bytes()).await;
    assert_eq!(host.answer().await.status, 200);
    let (stdout, stderr) = process.kill();
    assert_eq!(stderr, "", "the host takes stderr for errors");
    for line in stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["timestamp"].is_string());
    }
    let lines: Vec<_> = stdout.lines().filter(|l| l.contains("listening")).collect();
    assert_eq!(lines.len(), 1, "a probe is no line of the log: {stdout}");
}

/// A backend that hangs or is not there holds up no start: it is asked when a call needs it.
#[tokio::test]
async fn the_handler_is_ready_whatever_its_backends_are() {
    let config = OPEN.to_owned()
        + "[[backend]]\nname = \"far\"\nendpoint = \"https://no-such-host.invalid\"\nkey = \"k\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n";
    let (_root, folder) = app(&config);
    let port = free_port();
    Process::start(handler(&folder, &port.to_string()), port);
}

/// The host restarts a handler that ends with an error, and never one that ends with 0.
fn fails(command: Command, says: &[&str]) {
    let done = ends(command);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let stderr = String::from_utf8(done.stderr).unwrap();
    for text in says {
        assert!(stderr.contains(text), "{text} is not in: {stderr}");
    }
}

#[test]
fn a_taken_port_is_fatal() {
    let (_root, folder) = app(RIGHT);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let command = handler(&folder, &address.port().to_string());
    fails(command, &["cannot listen", &address.to_string()]);
}

#[test]
fn a_port_that_is_none_is_fatal() {
    let (_root, folder) = app(RIGHT);
    for port in ["", "0", "-1", "65536", "7071 ", "http"] {
        let says = ["FUNCTIONS_CUSTOMHANDLER_PORT", "1 to 65535", port];
        fails(handler(&folder, port), &says);
    }
}

#[test]
fn a_missing_configuration_is_fatal() {
    let (_root, folder) = app(RIGHT);
    std::fs::remove_file(folder.join("spillway.toml")).unwrap();
    fails(handler(&folder, "7071"), &["spillway.toml"]);
}

#[test]
fn a_wrong_configuration_is_fatal_and_every_mistake_is_said() {
    let config = "[gateway]\nmax_atempts = 1\n[[backend]]\nname = \"a\"\nendpoint = \"${NO_SUCH_SETTING}\"\n";
    let (_root, folder) = app(RIGHT);
    std::fs::write(folder.join("spillway.toml"), config).unwrap();
    fails(
        handler(&folder, "7071"),
        &[
            "spillway.toml:2:1",
            "max_attempts",
            "spillway.toml:5:",
            "NO_SUCH_SETTING",
        ],
    );
}

#[test]
fn a_key_that_no_header_can_hold_is_fatal_and_not_printed() {
    let config = RIGHT.replacen("[[backend.", "key = \"${KEY}\"\n[[backend.", 1);
    let (_root, folder) = app(&config);
    let mut command = handler(&folder, "7071");
    command.env("KEY", "secret\nsecret");
    let done = ends(command);
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).to_string();
    assert!(
        said.contains("backend a") && !said.contains("secret"),
        "{said}"
    );
}
