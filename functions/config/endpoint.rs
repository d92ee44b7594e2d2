//! Where a backend listens.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::Deserialize;

/// What an endpoint has to look like.
const RULE: &str = "must be a URL such as https://NAME.openai.azure.com";

/// Paths that people copy from the portal along with the resource's URL. The gateway adds the
/// path of each call itself.
const PATHS: [&str; 6] = ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"];

/// Hosts that are this machine, the only ones that may be called without TLS.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS: this machine only.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where a backend listens: scheme, host and port. It has no path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
    authority: String,
}

impl Endpoint {
    /// How it is spoken to.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address in lower case, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, the scheme's own where the URL names none.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `host`, or `host:port` where the port is not the scheme's own: the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        LOOPBACK.contains(&self.host.as_str())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text)?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        check_path(path)?;
        if authority.contains('@') {
            return Err(format!("{RULE}, without a user or password before `@`"));
        }
        let (host, port) = split_port(authority)?;
        let (host, written) = check_host(host)?;
        let port = port.unwrap_or_else(|| scheme.default_port());
        let authority = if port == scheme.default_port() {
            written
        } else {
            format!("{written}:{port}")
        };
        let endpoint = Self {
            scheme,
            host,
            port,
            authority,
        };
        if scheme == Scheme::Http && !endpoint.is_loopback() {
            return Err(
                "must start with https://: http:// is only for 127.0.0.1, localhost and [::1]"
                    .into(),
            );
        }
        Ok(endpoint)
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), String> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| format!("{RULE}, does not start with https://"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Ok((Scheme::Https, rest)),
        "http" => Ok((Scheme::Http, rest)),
        _ => Err(format!("{RULE}, does not start with https://")),
    }
}

fn check_path(path: &str) -> Result<(), String> {
    if path.contains(['?', '#']) {
        return Err(format!(
            "{RULE}, without a query: the version is set by api_version"
        ));
    }
    if PATHS.contains(&path) {
        return Ok(());
    }
    Err(format!(
        "{RULE}, without a path: the gateway adds the path of each call"
    ))
}

/// The host as written, and the port where one is named.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let after_address = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let tail = authority.get(after_address..).unwrap_or_default();
    let Some(colon) = tail.find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(after_address + colon);
    let digits = port.trim_start_matches(':');
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && all_digits => Ok((host, Some(port))),
        _ => Err(format!("{RULE}, its port must be from 1 to 65535")),
    }
}

/// The host without brackets, and as it stands in a URL.
fn check_host(host: &str) -> Result<(String, String), String> {
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| format!("{RULE}, has no IPv6 address in its brackets"))?;
        return Ok((address.to_string(), format!("[{address}]")));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.is_empty() {
        return Err(format!("{RULE}, has no host"));
    }
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(format!(
            "{RULE}, its host may have letters, digits, `-`, `_` and single dots"
        ));
    }
    let host = host.to_ascii_lowercase();
    Ok((host.clone(), host))
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The URL, without a slash at the end.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)
    }
}
