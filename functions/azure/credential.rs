//! The gateway's own identity in Entra: which sort of it there is, and a credential for it.

use std::fmt;
use std::sync::Arc;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use crate::config::Secret;

/// What the identity is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The platform's identity endpoint: Functions, App Service, a virtual machine.
    ManagedIdentity,
    /// A Kubernetes service account's token.
    WorkloadIdentity,
    /// An application's secret.
    ClientSecret,
    /// Who is logged in to the Azure CLI (or azd) on this machine.
    DeveloperTools,
}

/// Prints what it is called in logs.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ManagedIdentity => "managed identity",
            Self::WorkloadIdentity => "workload identity",
            Self::ClientSecret => "client secret",
            Self::DeveloperTools => "Azure CLI login",
        })
    }
}

/// What the environment says of the identity.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// What the identity is made of.
    pub source: Source,
    tenant_id: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
}

impl Surroundings {
    /// Looks for a managed identity, a workload identity and a client secret, in this order. Where
    /// there is none of them: the Azure CLI's login for `local` work, else a managed identity, as
    /// a virtual machine announces it by nothing.
    pub fn read(env: &dyn Fn(&str) -> Option<String>, local: bool) -> Self {
        let filled = |name: &str| env(name).filter(|value| !value.is_empty());
        let source = if filled("IDENTITY_ENDPOINT").is_some() {
            Source::ManagedIdentity
        } else if filled("AZURE_FEDERATED_TOKEN_FILE").is_some() {
            Source::WorkloadIdentity
        } else if filled("AZURE_CLIENT_SECRET").is_some() {
            Source::ClientSecret
        } else if local {
            Source::DeveloperTools
        } else {
            Source::ManagedIdentity
        };
        Self {
            source,
            tenant_id: filled("AZURE_TENANT_ID"),
            client_id: filled("AZURE_CLIENT_ID"),
            client_secret: filled("AZURE_CLIENT_SECRET").map(Secret::from),
        }
    }

    /// A credential for the identity, or for the user-assigned one with this client id. The
    /// library reads more of the environment itself, such as IDENTITY_ENDPOINT; AZURE_CLIENT_ID is
    /// not among it.
    ///
    /// # Errors
    /// When the environment lacks what the identity needs.
    pub(super) fn credential(
        &self,
        client_id: Option<&str>,
        client: &reqwest::Client,
    ) -> Result<Arc<dyn TokenCredential>, Error> {
        let client_id = client_id.or(self.client_id.as_deref()).map(str::to_owned);
        let client_options = ClientOptions {
            // Whoever asks tries again itself, and says how long it goes on.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(client.clone()))),
            ..ClientOptions::default()
        };
        Ok(match self.source {
            Source::ManagedIdentity => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.map(UserAssignedId::ClientId),
                    client_options,
                };
                ManagedIdentityCredential::new(Some(options))?
            }
            Source::WorkloadIdentity => {
                let credential_options = ClientAssertionCredentialOptions { client_options };
                let options = WorkloadIdentityCredentialOptions {
                    credential_options,
                    client_id,
                    ..WorkloadIdentityCredentialOptions::default()
                };
                WorkloadIdentityCredential::new(Some(options))?
            }
            Source::ClientSecret => {
                let needs = |name: &str| {
                    let message = format!("{name} is not set beside AZURE_CLIENT_SECRET");
                    Error::with_message(ErrorKind::Credential, message)
                };
                let tenant = self.tenant_id.as_deref();
                let tenant = tenant.ok_or_else(|| needs("AZURE_TENANT_ID"))?;
                let id = client_id.ok_or_else(|| needs("AZURE_CLIENT_ID"))?;
                let secret = self.client_secret.as_ref();
                let secret = secret.map(|secret| secret.expose().to_owned());
                let secret = secret.unwrap_or_default().into();
                let options = ClientSecretCredentialOptions { client_options };
                ClientSecretCredential::new(tenant, id, secret, Some(options))?
            }
            Source::DeveloperTools => DeveloperToolsCredential::new(None)?,
        })
    }
}

/// Asks the credential for a token of one scope.
pub(super) async fn fetch(
    credential: &dyn TokenCredential,
    scope: &str,
) -> Result<AccessToken, Error> {
    credential.get_token(&[scope], None).await
}

/// Whether an error stays until somebody acts: the endpoint was reached and refused, or there is
/// no such identity. Other errors pass.
pub(super) fn is_lasting(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<Error>().map(Error::kind) {
            Some(ErrorKind::HttpResponse { status, .. }) => {
                let status = u16::from(*status);
                return (400..500).contains(&status) && status != 408 && status != 429;
            }
            Some(ErrorKind::Connection | ErrorKind::Io | ErrorKind::DataConversion) => {
                return false;
            }
            _ => next = error.source(),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], local: bool) -> Source {
        let env = |name: &str| names.contains(&name).then(|| "x".to_owned());
        Surroundings::read(&env, local).source
    }

    #[test]
    fn the_environment_says_which_identity_there_is() {
        let all = [
            "IDENTITY_ENDPOINT",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_CLIENT_SECRET",
        ];
        assert_eq!(found(&all, true), Source::ManagedIdentity);
        assert_eq!(found(&all[1..], true), Source::WorkloadIdentity);
        assert_eq!(found(&all[2..], true), Source::ClientSecret);
        assert_eq!(found(&[], true), Source::DeveloperTools);
        assert_eq!(found(&[], false), Source::ManagedIdentity);
    }

    #[test]
    fn a_client_secret_is_never_printed() {
        let env = |name: &str| (name == "AZURE_CLIENT_SECRET").then(|| "canary".to_owned());
        let surroundings = Surroundings::read(&env, false);
        assert!(!format!("{surroundings:?}").contains("canary"));
    }

    #[test]
    fn what_is_missing_for_an_identity_is_named() {
        let env = |name: &str| (name == "AZURE_CLIENT_SECRET").then(|| "s".to_owned());
        let client = super::super::http_client().unwrap();
        let error = Surroundings::read(&env, false).credential(None, &client);
        let error = error.err().unwrap();
        assert!(error.to_string().contains("AZURE_TENANT_ID"), "{error}");
        assert!(is_lasting(&error));
    }

    #[test]
    fn a_refusal_lasts_and_a_failure_passes() {
        let http = |status: u16| {
            let kind = ErrorKind::HttpResponse {
                status: status.into(),
                error_code: None,
                raw_response: None,
            };
            let cause = Error::with_message(kind, "refused");
            Error::with_error(ErrorKind::Credential, cause, "no token")
        };
        for (status, lasting) in [(400, true), (403, true), (429, false), (500, false)] {
            assert_eq!(is_lasting(&http(status)), lasting, "{status}");
        }
        let io = Error::with_message(ErrorKind::Io, "reset");
        assert!(!is_lasting(&Error::with_error(
            ErrorKind::Credential,
            io,
            "no token"
        )));
    }
}
