//! An Entra tenant of a test's own: real RSA keys, tokens signed by them, and a server that
//! publishes them as Entra does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding};
use aws_lc_rs::{hmac, rand::SystemRandom};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The tenant's id.
pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";

/// The application id of the app `portal`.
pub(crate) const PORTAL: &str = "aaaaaaaa-0000-0000-0000-000000000001";

/// Keys are slow to make: all tests share these.
static KEYS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [(), ()].map(|()| KeyPair::generate(KeySize::Rsa2048).unwrap()));

/// A signing key and what it is called.
#[derive(Clone, Copy)]
pub(crate) struct SigningKey {
    pub(crate) kid: &'static str,
    number: usize,
}

/// The key that the tenant publishes from the start.
pub(crate) const FIRST: SigningKey = SigningKey {
    kid: "first",
    number: 0,
};

/// The key that comes after it.
pub(crate) const SECOND: SigningKey = SigningKey {
    kid: "second",
    number: 1,
};

impl SigningKey {
    fn pair(self) -> &'static KeyPair {
        &KEYS[self.number]
    }

    /// Its entry in the tenant's document.
    fn jwk(self) -> Value {
        let public = self.pair().public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        json!({"kty": "RSA", "use": "sig", "kid": self.kid, "x5t": self.kid, "n": n, "e": e,
            "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"})
    }

    /// A token with this header and these claims.
    pub(crate) fn sign(self, header: &Value, claims: &Value) -> String {
        let algorithm: &'static dyn RsaEncoding = match header["alg"].as_str() {
            Some("RS512") => &RSA_PKCS1_SHA512,
            _ => &RSA_PKCS1_SHA256,
        };
        let text = unsigned(header, claims);
        let mut signature = vec![0; self.pair().public_modulus_len()];
        let random = SystemRandom::new();
        self.pair()
            .sign(algorithm, &random, text.as_bytes(), &mut signature)
            .unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token that is signed with the public key as if it were a shared secret.
    pub(crate) fn sign_as_secret(self, claims: &Value) -> String {
        let text = unsigned(&json!({"alg": "HS256", "kid": self.kid}), claims);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, self.pair().public_key().as_ref());
        let signature = hmac::sign(&secret, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// A token of these claims as the tenant issues it.
    pub(crate) fn token(self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": self.kid});
        self.sign(&header, claims)
    }
}

/// Header and claims, without a signature.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}")
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// The tenant's server.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) address: SocketAddr,
    published: Arc<Mutex<Vec<SigningKey>>>,
    is_down: Arc<AtomicBool>,
    fetches: Arc<AtomicUsize>,
}

impl Tenant {
    /// A tenant that publishes [`FIRST`].
    pub(crate) async fn start() -> Self {
        let tenant = Self::unreachable().await;
        tenant.listen().await;
        tenant
    }

    /// A tenant whose server is not there yet.
    pub(crate) async fn unreachable() -> Self {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: reserved.local_addr().unwrap(),
            published: Arc::new(Mutex::new(vec![FIRST])),
            is_down: Arc::default(),
            fetches: Arc::default(),
        }
    }

    /// Starts the server.
    pub(crate) async fn listen(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let router = Router::new()
            .route("/{tenant}/discovery/v2.0/keys", get(keys))
            .route("/{tenant}/discovery/keys", get(keys_v1))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// Publishes these keys from now on.
    pub(crate) fn publish(&self, keys: &[SigningKey]) {
        *self.published.lock().unwrap() = keys.to_vec();
    }

    /// Whether the server says 503 to everybody.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, SeqCst);
    }

    /// How often the keys for v2 tokens were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(SeqCst)
    }

    /// The section `[auth]` that names it, and more of that section.
    pub(crate) fn auth(&self, more: &str) -> String {
        format!(
            "[auth]\ntenant = \"{TENANT}\"\naudience = \"api://spillway\"\n\
             authority = \"http://{}\"\n{more}\n",
            self.address
        )
    }

    /// The claims of a good v2 token.
    pub(crate) fn v2(&self) -> Value {
        json!({
            "ver": "2.0", "iss": format!("http://{}/{TENANT}/v2.0", self.address), "tid": TENANT,
            "aud": "api://spillway", "azp": PORTAL, "azpacr": "1", "oid": "oid-of-ada",
            "sub": "sub-of-ada", "roles": ["Reader"],
            "iat": now(), "nbf": now(), "exp": now() + 3600,
        })
    }

    /// The claims of a good v1 token.
    pub(crate) fn v1(&self) -> Value {
        json!({
            "ver": "1.0", "iss": format!("https://sts.windows.net/{TENANT}/"), "tid": TENANT,
            "aud": "api://spillway", "appid": PORTAL, "appidacr": "1", "oid": "oid-of-ada",
            "sub": "sub-of-ada", "iat": now(), "nbf": now(), "exp": now() + 3600,
        })
    }
}

async fn keys(State(tenant): State<Tenant>, Path(id): Path<String>) -> (StatusCode, Json<Value>) {
    tenant.fetches.fetch_add(1, SeqCst);
    document(&tenant, &id)
}

async fn keys_v1(
    State(tenant): State<Tenant>,
    Path(id): Path<String>,
) -> (StatusCode, Json<Value>) {
    document(&tenant, &id)
}

fn document(tenant: &Tenant, id: &str) -> (StatusCode, Json<Value>) {
    if tenant.is_down.load(SeqCst) || id != TENANT {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({})));
    }
    let keys = tenant.published.lock().unwrap();
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    (StatusCode::OK, Json(json!({"keys": keys})))
}
