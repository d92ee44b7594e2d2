//! Who asks Blob Storage: a step in the crate's pipeline that puts `Authorization` in.
//!
//! The crate takes a credential too, but asks it while a call waits, and only over HTTPS. Here the
//! token is the gateway's own, refreshed by a task, and loopback is taken where configuration takes it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::Secret;
use azure_core::error::{Error, ErrorKind};
use azure_core::hmac::hmac_sha256;
use azure_core::http::headers::Headers;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request, Url};
use azure_core::time::to_rfc7231;
use azure_storage::clients::EMULATOR_ACCOUNT_KEY;
use time::OffsetDateTime;

use super::EMULATOR_ACCOUNT;
use crate::azure::own_token::OwnToken;
use crate::host::clock::Clock;

/// Longest that the first request waits for the gateway's first token.
const TOKEN_PATIENCE: Duration = Duration::from_secs(3);

/// What a request without a token failed by, for those who read its error.
pub(super) const NO_TOKEN: &str = "the gateway has no token for Blob Storage";

/// Who asks.
pub(super) enum Asker {
    /// The gateway's own identity.
    Token(Arc<OwnToken>, Clock),
    /// Whoever knows the emulator's key, which is published.
    Emulator(Clock),
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(..) => "Token",
            Self::Emulator(_) => "Emulator",
        })
    }
}

#[async_trait]
impl Policy for Asker {
    async fn send(
        &self,
        ctx: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let value = match self {
            Self::Token(token, clock) => {
                let header = token.header(clock.now(), TOKEN_PATIENCE).await;
                let text = header.ok().and_then(|h| h.to_str().ok().map(str::to_owned));
                text.ok_or_else(|| Error::with_message(ErrorKind::Credential, NO_TOKEN))?
            }
            Self::Emulator(clock) => {
                let date = date(*clock)?;
                request.insert_header("x-ms-date", date);
                signature(request)?
            }
        };
        request.insert_header("authorization", value);
        let (first, rest) = next
            .split_first()
            .ok_or_else(|| Error::with_message(ErrorKind::Other, "the pipeline ends early"))?;
        first.send(ctx, request, rest).await
    }
}

fn date(clock: Clock) -> Result<String, Error> {
    let seconds = i64::try_from(clock.now().unix_ms() / 1000).unwrap_or_default();
    let now = OffsetDateTime::from_unix_timestamp(seconds);
    let now = now.map_err(|e| Error::with_message(ErrorKind::Other, e.to_string()))?;
    Ok(to_rfc7231(&now))
}

/// The value of `Authorization` by Shared Key (Azure, "Authorize with Shared Key", Blob service).
fn signature(request: &Request) -> Result<String, Error> {
    let length = request.body().len().unwrap_or_default();
    let text = text_to_sign(
        request.method().as_ref(),
        request.headers(),
        length,
        request.url(),
    );
    let signed = hmac_sha256(&text, &Secret::new(EMULATOR_ACCOUNT_KEY))?;
    Ok(format!("SharedKey {EMULATOR_ACCOUNT}:{signed}"))
}

fn text_to_sign(method: &str, headers: &Headers, length: u64, url: &Url) -> String {
    let of = |name: &'static str| headers.get_optional_str(&name.into()).unwrap_or_default();
    let length = match length {
        0 => String::new(),
        some => some.to_string(),
    };
    let mut text = [
        method,
        of("content-encoding"),
        of("content-language"),
        &length,
        of("content-md5"),
        of("content-type"),
        // The date stands in x-ms-date.
        "",
        of("if-modified-since"),
        of("if-match"),
        of("if-none-match"),
        of("if-unmodified-since"),
        of("range"),
        "",
    ]
    .join("\n");
    let mut own: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    own.sort_unstable();
    for (name, value) in own {
        text.extend([name, ":", value, "\n"]);
    }
    text.extend(["/", EMULATOR_ACCOUNT, url.path()]);
    let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    query.sort_unstable();
    for (name, value) in query {
        text.extend(["\n", &name.to_lowercase(), ":", &value]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_to_sign_is_the_documented_one() {
        let mut headers = Headers::new();
        headers.insert("x-ms-version", "2015-02-21");
        headers.insert("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        let url = Url::parse(
            "http://127.0.0.1:10000/devstoreaccount1/c?comp=metadata&restype=container&timeout=20",
        );
        // The example of Azure's page, with the emulator's account.
        assert_eq!(
            text_to_sign("GET", &headers, 0, &url.unwrap()),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/devstoreaccount1/devstoreaccount1/c\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }
}
