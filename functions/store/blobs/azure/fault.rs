//! What goes wrong with Blob Storage, and what that means to the callers of [`super::super::Blobs`].

use azure_core::error::{Error, ErrorKind};

use crate::azure::describe;
use crate::store::blobs::BlobError;

/// A request that came to nothing.
#[derive(Debug)]
pub(super) struct Fault(pub(super) Error);

impl Fault {
    fn status(&self) -> Option<u16> {
        self.0.http_status().map(u16::from)
    }

    /// Such as `BlobNotFound`; empty where the service names none. An answer to HEAD has no body,
    /// but names it in a header.
    fn code(&self) -> &str {
        match self.0.kind() {
            ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref().unwrap_or_default(),
            _ => "",
        }
    }

    /// There is no such blob.
    pub(super) fn is_no_blob(&self) -> bool {
        self.status() == Some(404) && self.code() != "ContainerNotFound"
    }

    /// There is no such container.
    pub(super) fn is_no_container(&self) -> bool {
        self.status() == Some(404) && self.code() == "ContainerNotFound"
    }

    /// There is such a blob, or container.
    pub(super) fn is_there(&self) -> bool {
        self.status() == Some(409)
            && matches!(self.code(), "BlobAlreadyExists" | "ContainerAlreadyExists")
    }

    /// The blob is the one that was named (RFC 9110, section 13.1.2).
    pub(super) fn is_unchanged(&self) -> bool {
        self.status() == Some(304)
    }

    /// The blob ends before the range begins.
    pub(super) fn is_beyond(&self) -> bool {
        self.status() == Some(416)
    }

    /// The blob does not end where something was to be appended.
    pub(super) fn is_end_elsewhere(&self) -> bool {
        self.status() == Some(412) && self.code() == "AppendPositionConditionNotMet"
    }

    /// Whether the same request may work soon.
    pub(super) fn is_passing(&self) -> bool {
        match self.status() {
            Some(status) => matches!(status, 408 | 429 | 500..=599),
            None => !matches!(self.0.kind(), ErrorKind::Credential),
        }
    }

    /// What it means where nothing else was made of it. A refused or missing identity, and a missing
    /// container, can be mended without a change of what is written: nothing is given up.
    pub(super) fn into_error(self) -> BlobError {
        let is_refusal = match self.status() {
            Some(400..=499) => {
                !matches!(self.status(), Some(401 | 403 | 404 | 408 | 429)) && !self.is_there()
            }
            _ => false,
        };
        // Its text is the service's, which names no header.
        let text = describe(&self.0);
        if is_refusal {
            BlobError::Refused(text)
        } else {
            BlobError::Unavailable(text)
        }
    }
}
