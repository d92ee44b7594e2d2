//! What a request's body says, whichever format it has.

use std::borrow::Cow;

use super::error::RelayError;
use crate::gateway::multipart::Form;
use crate::gateway::request::{BodyError, Edit, Head};
use crate::gateway::route::Route;

/// A request's body, read.
pub(super) struct Reading<'a> {
    format: Format<'a>,
    /// Makes a stream report its usage, where it would not.
    ask_usage: Option<Edit>,
}

enum Format<'a> {
    Json(Head<'a>),
    Form(Form<'a>),
    Opaque,
}

/// Whether a body begins with a byte order mark, of UTF-8 or UTF-16: it may be JSON to a backend.
fn begins_with_mark(body: &[u8]) -> bool {
    let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];
    marks.into_iter().any(|mark| body.starts_with(mark))
}

impl<'a> Reading<'a> {
    /// Reads `body` by its `content_type`.
    pub(super) fn new(
        route: &Route<'_>,
        content_type: &'a str,
        body: &'a [u8],
    ) -> Result<Self, RelayError> {
        let is = |name: &str| {
            let start = content_type.trim_start().get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        if is("multipart/") {
            let form = Form::parse(body, content_type).map_err(RelayError::Body)?;
            return Ok(Self::of(Format::Form(form)));
        }
        // Whatever its type: the backend could take it for JSON all the same.
        let looks_like_json = body.trim_ascii_start().starts_with(b"{");
        let is_billed = route.operation.is_billed();
        if body.is_empty() && !is_billed {
            return Ok(Self::of(Format::Opaque));
        }
        if !is("application/json") && !looks_like_json {
            if is_billed && !content_type.is_empty() {
                let message = "the body must be JSON, with `content-type: application/json`";
                return Err(RelayError::Body(BodyError::whole(message)));
            }
            if !is_billed {
                if begins_with_mark(body) {
                    let message = "the body must not begin with a byte order mark";
                    return Err(RelayError::Body(BodyError::whole(message)));
                }
                return Ok(Self::of(Format::Opaque));
            }
        }
        let head = Head::parse(body).map_err(RelayError::Body)?;
        let asks = head.stream() && route.operation.takes_stream_options();
        let ask_usage = if asks { head.ask_usage() } else { None };
        Ok(Self {
            ask_usage,
            format: Format::Json(head),
        })
    }

    /// What a call without a body says: nothing.
    pub(super) const fn none() -> Self {
        Self::of(Format::Opaque)
    }

    const fn of(format: Format<'a>) -> Self {
        Self {
            format,
            ask_usage: None,
        }
    }

    /// The model that the body names.
    pub(super) fn model(&self) -> Result<Option<Cow<'a, str>>, RelayError> {
        match &self.format {
            Format::Json(head) => head.model().map_err(RelayError::Body),
            Format::Form(form) => {
                let model = form.model().map_err(RelayError::Body)?;
                Ok(model.map(Cow::Borrowed))
            }
            Format::Opaque => Ok(None),
        }
    }

    /// The changes that the body needs: `deployment` as its model, where that is given, and usage
    /// asked for, of a backend that knows the wish.
    pub(super) fn edits(&self, deployment: Option<&str>, may_ask_usage: bool) -> Vec<Edit> {
        let model = deployment.and_then(|name| match &self.format {
            Format::Json(head) => head.set_model(name),
            Format::Form(form) => form.set_model(name),
            Format::Opaque => None,
        });
        let ask_usage = self.ask_usage.clone().filter(|_| may_ask_usage);
        model.into_iter().chain(ask_usage).collect()
    }

    /// Whether it is JSON.
    pub(super) const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json(_))
    }

    /// Whether it is of no format that is read.
    pub(super) const fn is_opaque(&self) -> bool {
        matches!(self.format, Format::Opaque)
    }

    /// Whether a stream is asked for.
    pub(super) const fn stream(&self) -> bool {
        match &self.format {
            Format::Json(head) => head.stream(),
            Format::Form(_) | Format::Opaque => false,
        }
    }

    /// Whether the answer is to be made after the call has ended.
    pub(super) const fn background(&self) -> bool {
        match &self.format {
            Format::Json(head) => head.background(),
            Format::Form(_) | Format::Opaque => false,
        }
    }

    /// Whether the usage chunk was not the client's wish.
    pub(super) const fn hides_usage(&self) -> bool {
        self.ask_usage.is_some()
    }

    /// The most tokens that the answer may have, where the body says.
    pub(super) const fn max_output_tokens(&self) -> Option<u64> {
        match &self.format {
            Format::Json(head) => head.max_output_tokens(),
            Format::Form(_) | Format::Opaque => None,
        }
    }

    /// Whether the answer is to be kept, where the body says.
    pub(super) fn store(&self) -> Option<bool> {
        match &self.format {
            Format::Json(head) => head.store(),
            Format::Form(_) | Format::Opaque => None,
        }
    }

    /// The ids of what is stored that the body names.
    pub(super) fn stored_ids(&self) -> impl Iterator<Item = &str> {
        let head = match &self.format {
            Format::Json(head) => Some(head),
            Format::Form(_) | Format::Opaque => None,
        };
        head.into_iter().flat_map(Head::stored_ids)
    }

    /// The prompt's JSON; empty where there is none.
    pub(super) fn prompt(&self) -> &[u8] {
        match &self.format {
            Format::Json(head) => head.prompt().unwrap_or_default(),
            Format::Form(_) | Format::Opaque => &[],
        }
    }
}
