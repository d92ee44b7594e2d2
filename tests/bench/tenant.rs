//! An Entra tenant of the benchmark's own: a server that publishes a real RSA key, and a token that
//! is signed by it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// The tenant's id.
pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";

/// The application id of the app that calls with a token.
pub(crate) const APP_ID: &str = "aaaaaaaa-0000-0000-0000-000000000001";

/// Most of a request that is read, bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// A tenant whose server runs until the process ends.
pub(crate) struct Tenant {
    address: SocketAddr,
    key: KeyPair,
}

impl Tenant {
    /// Starts its server.
    pub(crate) fn start(port: u16) -> io::Result<Self> {
        let key = KeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
        let public = key.public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        let keys = json!({"keys": [{"kty": "RSA", "use": "sig", "kid": "bench", "n": n, "e": e}]});
        let keys = keys.to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One that breaks off asks again.
                let _ = publish(stream, &keys);
            }
        });
        Ok(Self { address, key })
    }

    /// A v2 token of the app, good for an hour.
    pub(crate) fn token(&self) -> io::Result<String> {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
        let now = now.as_secs();
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": "bench"});
        let claims = json!({
            "ver": "2.0", "iss": format!("http://{}/{TENANT}/v2.0", self.address), "tid": TENANT,
            "aud": "api://spillway", "azp": APP_ID, "azpacr": "1", "oid": "oid-of-bench",
            "sub": "sub-of-bench", "iat": now, "nbf": now, "exp": now + 3600,
        });
        let [header, claims] =
            [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
            .map_err(io::Error::other)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Answers a request, whichever document it asks for, with the keys.
fn publish(mut stream: TcpStream, keys: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            read => request.extend(part.iter().take(read)),
        }
    }
    let length = keys.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{keys}"
    )
}
