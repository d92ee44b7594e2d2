//! What goes wrong with Table Storage, and what that means to the store's callers.
//!
//! The crate loses most of a refusal: the real service names no code in its headers, and its
//! errors have a shape that the crate does not read. So the transport makes a [`Fault`] of each
//! refusal, and here it is found again at the end of the crate's chain of errors.

use std::error::Error;
use std::fmt;

use azure_core_tables as legacy;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::batch::MAX_BYTES;
use crate::azure::describe;
use crate::store::{Change, StoreError, Write};

/// Longest text of the service that is passed on, characters.
const MAX_MESSAGE: usize = 300;

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The service refused it.
    Refusal(Refusal),
    /// There is no token to send it with.
    NoToken,
    /// It has more bytes than a transaction may have; it was not sent.
    TooLarge(usize),
    /// The service was not reached, or broke off, or was too slow, or what it said is no answer.
    NoAnswer(String),
}

/// What the service says when it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Such as `EntityAlreadyExists`; empty where it names none.
    pub(super) code: String,
    /// Of a transaction: which of its writes was refused, from 0.
    pub(super) index: Option<usize>,
    message: String,
}

/// The body of a refusal. `code` and `message` stand in it in one of two shapes.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "odata.error", alias = "error")]
    error: BodyError,
}

#[derive(Deserialize)]
struct BodyError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Value,
}

impl Refusal {
    /// Reads a refusal. `header` is the code that Azurite names in `x-ms-error-code`; the real
    /// service has it in the body only.
    pub(super) fn read(status: StatusCode, header: Option<&str>, body: &str) -> Self {
        let error = serde_json::from_str::<Body>(body)
            .map(|body| body.error)
            .ok();
        let (code, message) = match &error {
            Some(error) => {
                let message = error.message.pointer("/value").unwrap_or(&error.message);
                (error.code.as_str(), message.as_str().unwrap_or_default())
            }
            // XML, where a proxy or an old version answers.
            None => (
                element(body, "code")
                    .or(element(body, "Code"))
                    .unwrap_or_default(),
                element(body, "message")
                    .or(element(body, "Message"))
                    .unwrap_or_default(),
            ),
        };
        let code = if code.is_empty() {
            header.unwrap_or_default()
        } else {
            code
        };
        let (index, message) = split_index(message);
        // After it come the request's id and the time, each on a line of its own.
        let line = message.lines().next().unwrap_or_default();
        Self {
            status,
            code: code.chars().take(64).collect(),
            index,
            message: line.chars().take(MAX_MESSAGE).collect(),
        }
    }

    /// Whether it is not about what was sent: the same may be taken later.
    fn is_passing(&self) -> bool {
        match self.status.as_u16() {
            401 | 403 | 408 | 429 => true,
            404 | 409 => matches!(self.code.as_str(), "TableNotFound" | "TableBeingDeleted"),
            // Not implemented.
            501 => false,
            status => !(400..500).contains(&status),
        }
    }
}

/// What a message says of the write it is about: `1:The specified entity already exists.`
fn split_index(message: &str) -> (Option<usize>, &str) {
    let split = message.split_once(':').and_then(|(index, rest)| {
        let digits = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| index.parse().ok())
            .flatten()
            .map(|index| (index, rest))
    });
    split.map_or((None, message), |(index, rest)| (Some(index), rest))
}

/// The text of the first XML element of that name.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}"))?;
    let (_, rest) = rest.split_once('>')?;
    rest.split_once('<').map(|(text, _)| text)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => refusal.fmt(f),
            Self::NoToken => f.write_str("the gateway has no token for Table Storage"),
            Self::TooLarge(bytes) => write!(
                f,
                "a transaction has at most {MAX_BYTES} bytes as it is sent, not {bytes}"
            ),
            Self::NoAnswer(why) => write!(f, "Table Storage does not answer: {why}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Table Storage says {} {}",
            self.status.as_u16(),
            self.code
        )?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if matches!(self.status.as_u16(), 401 | 403) {
            f.write_str(
                " (does the gateway's identity have the role Storage Table Data Contributor, and may this network reach the account?)",
            )?;
        }
        Ok(())
    }
}

impl Error for Fault {}

impl From<Fault> for legacy::Error {
    /// Of a kind that the crate does not retry.
    fn from(fault: Fault) -> Self {
        Self::new(legacy::error::ErrorKind::Other, fault)
    }
}

impl Fault {
    /// What is at the end of an error of the crate.
    pub(super) fn of(error: &legacy::Error) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(fault) = error.downcast_ref::<Self>() {
                return fault.clone();
            }
            next = error.source();
        }
        // The crate did not understand the answer.
        Self::NoAnswer(describe(error))
    }

    /// Whether the same request may soon be answered.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Refusal(refusal) => {
                refusal.is_passing() && !matches!(refusal.status.as_u16(), 401 | 403)
            }
            Self::NoAnswer(_) => true,
            Self::NoToken | Self::TooLarge(_) => false,
        }
    }

    /// Whether the row that was asked for is not there.
    pub(super) fn is_no_row(&self) -> bool {
        let no_row = |refusal: &Refusal| {
            refusal.status == StatusCode::NOT_FOUND && refusal.code != "TableNotFound"
        };
        matches!(self, Self::Refusal(refusal) if no_row(refusal))
    }

    /// Whether the table that was to be made is there.
    pub(super) fn is_table_there(&self) -> bool {
        matches!(self, Self::Refusal(refusal) if refusal.code == "TableAlreadyExists")
    }

    /// What it means to a reader.
    pub(super) fn of_read(&self) -> StoreError {
        match self {
            Self::Refusal(refusal) if !refusal.is_passing() => {
                StoreError::Refused(refusal.to_string())
            }
            Self::TooLarge(_) => StoreError::Refused(self.to_string()),
            _ => StoreError::Unavailable(self.to_string()),
        }
    }

    /// What it means to whoever wanted `writes`.
    pub(super) fn of_write(&self, writes: &[Write]) -> StoreError {
        let Self::Refusal(refusal) = self else {
            return self.of_read();
        };
        let conflict = match refusal.status.as_u16() {
            409 if matches!(refusal.code.as_str(), "" | "EntityAlreadyExists") => {
                |index| StoreError::Exists { index }
            }
            412 | 404 if refusal.code != "TableNotFound" => |index| StoreError::Changed { index },
            _ => return self.of_read(),
        };
        // A transaction of one write needs no number.
        let index = match refusal.index {
            None if writes.len() == 1 => Some(0),
            index => index,
        };
        let write = index.and_then(|index| Some((index, writes.get(index)?)));
        match (write, conflict(0)) {
            // Only an insert can meet a row, only a condition can fail.
            (Some((index, write)), StoreError::Exists { .. })
                if matches!(write.change, Change::Insert(_)) =>
            {
                conflict(index)
            }
            (Some((index, write)), StoreError::Changed { .. })
                if matches!(write.change, Change::Replace(..) | Change::Delete(_)) =>
            {
                conflict(index)
            }
            _ => StoreError::Unavailable(format!("{refusal}; it does not say of which write")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Etag, Fields};

    fn refusal(status: u16, header: Option<&str>, body: &str) -> Fault {
        let status = StatusCode::from_u16(status).unwrap();
        Fault::Refusal(Refusal::read(status, header, body))
    }

    fn odata(status: u16, code: &str, message: &str) -> Fault {
        let body = format!(
            "{{\"odata.error\":{{\"code\":\"{code}\",\"message\":{{\"lang\":\"en-US\",\"value\":\"{message}\\nRequestId:x\\nTime:y\"}}}}}}"
        );
        refusal(status, None, &body)
    }

    fn writes() -> Vec<Write> {
        let write = |row: &str, change| Write {
            row: row.into(),
            change,
        };
        vec![
            write("a", Change::Insert(Fields::new())),
            write("b", Change::Replace(Fields::new(), Etag("e".into()))),
        ]
    }

    #[test]
    fn the_services_own_shape_is_read_without_a_header() {
        let Fault::Refusal(read) = odata(
            409,
            "EntityAlreadyExists",
            "0:The specified entity already exists.",
        ) else {
            panic!()
        };
        assert_eq!(
            (read.code.as_str(), read.index),
            ("EntityAlreadyExists", Some(0))
        );
        assert_eq!(read.message, "The specified entity already exists.");
    }

    #[test]
    fn other_shapes_are_read_as_far_as_they_go() {
        let xml = "<?xml version=\"1.0\"?><error xmlns=\"m\"><code>TableNotFound</code><message xml:lang=\"en-US\">No table.\nRequestId</message></error>";
        for (fault, text) in [
            (refusal(404, None, xml), "404 TableNotFound: No table."),
            (
                refusal(404, Some("ResourceNotFound"), ""),
                "404 ResourceNotFound",
            ),
            (refusal(502, None, "<html>Bad gateway</html>"), "502 "),
            (
                refusal(
                    400,
                    None,
                    "{\"error\":{\"code\":\"X\",\"message\":\"why\"}}",
                ),
                "400 X: why",
            ),
        ] {
            let said = fault.to_string();
            assert!(said.ends_with(text), "{said}");
        }
    }

    #[test]
    fn a_conflict_names_the_write() {
        let writes = writes();
        let exists = odata(409, "EntityAlreadyExists", "0:There.");
        assert_eq!(exists.of_write(&writes), StoreError::Exists { index: 0 });
        let changed = odata(412, "UpdateConditionNotSatisfied", "1:Changed.");
        assert_eq!(changed.of_write(&writes), StoreError::Changed { index: 1 });
        let gone = odata(404, "ResourceNotFound", "1:Gone.");
        assert_eq!(gone.of_write(&writes), StoreError::Changed { index: 1 });
        let only = odata(409, "EntityAlreadyExists", "There.");
        assert_eq!(only.of_write(&writes[..1]), StoreError::Exists { index: 0 });
    }

    #[test]
    fn a_conflict_without_a_write_is_no_answer() {
        for message in ["There.", "7:There.", "1:There.", ":There."] {
            let fault = odata(409, "EntityAlreadyExists", message);
            let error = fault.of_write(&writes());
            assert!(
                matches!(error, StoreError::Unavailable(_)),
                "{message}: {error}"
            );
        }
    }

    #[test]
    fn what_may_pass_is_unavailable_and_what_stays_is_refused() {
        for (status, code) in [
            (404, "TableNotFound"),
            (409, "TableBeingDeleted"),
            (401, "AuthenticationFailed"),
            (403, "AuthorizationPermissionMismatch"),
            (429, ""),
            (500, "OperationTimedOut"),
            (503, "ServerBusy"),
            (302, ""),
        ] {
            let error = odata(status, code, "0:x").of_write(&writes());
            assert!(
                matches!(error, StoreError::Unavailable(_)),
                "{status}: {error}"
            );
        }
        for (status, code) in [
            (400, "InvalidInput"),
            (400, "PropertyValueTooLarge"),
            (413, "RequestBodyTooLarge"),
            (501, "NotImplemented"),
        ] {
            let error = odata(status, code, "0:x").of_write(&writes());
            assert!(matches!(error, StoreError::Refused(_)), "{status}: {error}");
        }
    }

    #[test]
    fn whoever_may_not_hears_which_role_is_missing() {
        let fault = odata(403, "AuthorizationPermissionMismatch", "No.");
        assert!(fault.to_string().contains("Storage Table Data Contributor"));
    }

    #[test]
    fn a_missing_row_is_told_from_a_missing_table() {
        assert!(odata(404, "ResourceNotFound", "x").is_no_row());
        assert!(refusal(404, None, "").is_no_row());
        assert!(!odata(404, "TableNotFound", "x").is_no_row());
    }

    #[test]
    fn a_fault_is_found_below_the_crates_own_words() {
        let error = legacy::Error::from(Fault::NoToken)
            .context("not retried")
            .context("failed");
        assert_eq!(Fault::of(&error), Fault::NoToken);
        let other = legacy::Error::message(legacy::error::ErrorKind::DataConversion, "what?");
        assert_eq!(Fault::of(&other), Fault::NoAnswer("what?".into()));
    }
}
