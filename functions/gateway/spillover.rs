//! The spillover of the service itself: a provisioned deployment that can't take a call has a standard
//! deployment of its own resource answer it (the property `spilloverDeploymentName`, or the request's
//! header `x-ms-spillover-deployment`). Such an answer is paid by the token.
//!
//! Microsoft Learn ("Manage traffic with spillover for provisioned deployments") says that the presence of
//! `x-ms-spillover-from-...` tells such an answer, and that another header names the deployment that
//! served; as seen, that is `x-ms-deployment-name`. `x-ms-is-spilled-over: true` is read by other
//! gateways. Any of them counts.

use std::sync::Arc;

use super::event::Attempt;

/// The request's header that asks for a spillover. The gateway decides where calls go, so that none of
/// a client's reaches a backend.
pub const ASKS: &str = "x-ms-spillover-deployment";

/// What begins the name of the header that names the provisioned deployment.
const FROM: &str = "x-ms-spillover-from-";

/// Says `true` or `false`.
const IS_SPILLED: &str = "x-ms-is-spilled-over";

/// Names the deployment that served.
const SERVED_BY: &str = "x-ms-deployment-name";

/// A status: of the provisioned deployment's refusal, where the answer is a good one. (Where the
/// standard deployment fails too, the service gives the provisioned one's answer, which is no success.)
const ERROR: &str = "x-ms-spillover-error";

/// What the standard deployment is called where the answer does not name it. No deployment can have
/// the name: names have no parentheses.
const UNNAMED: &str = "(spillover)";

/// What went wrong at the provisioned deployment, in the word of an attempt.
const WORD: &str = "spillover";

/// Longest name of a deployment, bytes.
const MAX_NAME: usize = 64;

/// The status of a deployment that is full.
const FULL: u16 = 429;

/// An answer of a standard deployment in place of a provisioned one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spillover {
    /// The standard deployment.
    pub served_by: Arc<str>,
    /// What the provisioned one had said: 429 where the answer does not tell.
    pub refusal: u16,
}

impl Spillover {
    /// Reads the headers of a successful answer of the provisioned deployment `asked`.
    pub fn read<'h>(
        asked: &str,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) -> Option<Self> {
        let (mut is_spilled, mut served_by, mut refusal) = (false, None, None);
        let known = headers.filter(|(name, value)| name.starts_with("x-ms-") && !value.is_empty());
        for (name, value) in known {
            match name {
                IS_SPILLED => is_spilled |= value.eq_ignore_ascii_case(b"true"),
                SERVED_BY => served_by = deployment(value).filter(|name| *name != asked),
                ERROR => refusal = status(value),
                _ => is_spilled |= name.starts_with(FROM),
            }
        }
        is_spilled.then(|| Self {
            served_by: served_by.unwrap_or(UNNAMED).into(),
            refusal: refusal.unwrap_or(FULL),
        })
    }

    /// Whether the provisioned deployment was full. It may have failed instead, or not have taken so
    /// long a prompt.
    pub const fn was_full(&self) -> bool {
        self.refusal == FULL
    }

    /// The two tries that `tried`, at the provisioned deployment, was.
    pub fn attempts(&self, tried: Attempt) -> [Attempt; 2] {
        let refused = Attempt {
            status: Some(self.refusal),
            error: Some(WORD.to_owned()),
            // How much of the time was its is not told.
            ms: 0,
            ..tried.clone()
        };
        let served = Attempt {
            deployment: Arc::clone(&self.served_by),
            kind: super::event::Kind::Payg,
            ..tried
        };
        [refused, served]
    }
}

/// The provisioned deployment whose spillover the attempt number `place` is; `None` where it is none.
pub fn provisioned(attempts: &[Attempt], place: usize) -> Option<&Attempt> {
    let served = attempts.get(place)?;
    let before = attempts.get(place.checked_sub(1)?)?;
    let is_its = before.error.as_deref() == Some(WORD) && before.backend == served.backend;
    is_its.then_some(before)
}

/// The name of a deployment, as the configuration takes it.
fn deployment(value: &[u8]) -> Option<&str> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    let is_name = value.len() <= MAX_NAME && value.iter().all(plain);
    std::str::from_utf8(value).ok().filter(|_| is_name)
}

fn status(value: &[u8]) -> Option<u16> {
    let status: u16 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (400..600).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::Kind;

    fn read(headers: &[(&str, &str)]) -> Option<(String, u16)> {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        let spillover = Spillover::read("chat-ptu", headers)?;
        Some((spillover.served_by.to_string(), spillover.refusal))
    }

    #[test]
    fn each_header_that_tells_a_spillover_does() {
        let from = ("x-ms-spillover-from-deployment", "chat-ptu");
        let documented = ("x-ms-spillover-from-chat-ptu", "chat-ptu");
        let other = ("x-ms-is-spilled-over", "True");
        let by = ("x-ms-deployment-name", "chat");
        for told in [from, documented, other] {
            assert_eq!(read(&[told, by]), Some(("chat".into(), 429)), "{told:?}");
        }
        assert_eq!(read(&[other]), Some(("(spillover)".into(), 429)));
    }

    #[test]
    fn an_answer_of_the_provisioned_deployment_itself_is_none() {
        let by = ("x-ms-deployment-name", "chat-ptu");
        assert_eq!(read(&[by, ("x-ms-is-spilled-over", "false")]), None);
        assert_eq!(read(&[by, ("x-ms-spillover-from-deployment", "")]), None);
        assert_eq!(read(&[("x-ms-deployment-name", "chat")]), None);
        assert_eq!(read(&[("x-ms-region", "Sweden Central")]), None);
    }

    #[test]
    fn why_it_spilled_is_told_or_it_was_full() {
        let from = ("x-ms-spillover-from-deployment", "chat-ptu");
        let refusal =
            |text| read(&[from, ("x-ms-spillover-error", text)]).map(|(_, status)| status);
        assert_eq!(refusal("503"), Some(503));
        for odd in ["", "busy", "200", "70000"] {
            assert_eq!(refusal(odd), Some(429), "{odd:?}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_not_taken() {
        let from = ("x-ms-spillover-from-deployment", "chat-ptu");
        let long = "x".repeat(65);
        for name in ["a b", "<script>", "chat-ptu", &long] {
            let found = read(&[from, ("x-ms-deployment-name", name)]);
            assert_eq!(found, Some(("(spillover)".into(), 429)), "{name}");
        }
    }

    #[test]
    fn it_is_a_refusal_and_an_answer() {
        let tried = Attempt {
            backend: "sweden".into(),
            deployment: "chat-ptu".into(),
            kind: Kind::Ptu,
            status: Some(200),
            error: None,
            after_ms: 0,
            ms: 90,
            billed: false,
        };
        let spillover = Spillover {
            served_by: "chat".into(),
            refusal: 429,
        };
        let attempts = spillover.attempts(tried.clone());
        assert_eq!(attempts[0].status, Some(429));
        assert_eq!(
            (&*attempts[1].deployment, attempts[1].kind),
            ("chat", Kind::Payg)
        );
        assert_eq!((attempts[1].status, attempts[1].ms), (Some(200), 90));
        let found = provisioned(&attempts, 1).map(|one| &*one.deployment);
        assert_eq!(found, Some("chat-ptu"));
        assert_eq!(provisioned(&attempts, 0), None);
        assert_eq!(provisioned(&[tried.clone(), tried], 1), None);
    }
}
