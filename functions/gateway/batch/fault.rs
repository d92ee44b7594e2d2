//! What can be wrong with a batch message. None of it gets better by trying again: the sender is
//! told, and the message is done with.

use std::fmt;

use super::line::MAX_CUSTOM_ID;
use crate::gateway::request::BodyError;

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body is larger than the gateway takes.
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most that is taken, bytes.
        max: usize,
    },
    /// The body can't be read.
    Body(BodyError),
    /// The sender's name for it is longer than names may be.
    CustomId {
        /// Its characters.
        characters: usize,
    },
    /// The body is neither a line of a batch file nor a request.
    Shapeless,
    /// `method` is none that the batch API has.
    Method(String),
    /// `url` is no operation that can be asked for in a batch.
    Url(String),
    /// The body has `input`, and nothing says whether for embeddings or a response.
    Ambiguous,
    /// The request names no model.
    NoModel,
    /// The request asks for a stream.
    Streams,
    /// The message names no app.
    NoApp,
    /// The configuration has no such app.
    UnknownApp(String),
    /// Replies may not go to that queue.
    ReplyTo(String),
    /// A property has a value that it can't have.
    Property {
        /// Its name.
        name: &'static str,
        /// What is expected.
        expected: &'static str,
    },
    /// It was not, or would not be, answered before its deadline.
    Expired,
}

impl Fault {
    /// The word by which programs know it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "body_too_large",
            Self::Body(_) | Self::Shapeless => "invalid_body",
            Self::CustomId { .. } => "custom_id_too_long",
            Self::Method(_) => "invalid_method",
            Self::Url(_) | Self::Ambiguous => "invalid_url",
            Self::NoModel => "model_missing",
            Self::Streams => "stream_not_possible",
            Self::NoApp => "app_missing",
            Self::UnknownApp(_) => "unknown_app",
            Self::ReplyTo(_) => "reply_address_not_allowed",
            Self::Property { .. } => "invalid_property",
            // OpenAI's word for it (API reference, "The request output object").
            Self::Expired => "batch_expired",
        }
    }
}

/// Most characters of a sender's own text that an error repeats.
const MAX_SHOWN: usize = 100;

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, max } => write!(
                f,
                "The body has {bytes} bytes; a batch message may have {max} ([batch] max_request_mb)."
            ),
            Self::Body(error) => write!(f, "The message can't be read: {error}."),
            Self::CustomId { characters } => write!(
                f,
                "`custom_id` has {characters} characters; it may have {MAX_CUSTOM_ID}."
            ),
            Self::Shapeless => f.write_str(
                "The body must be a line of a batch file (`custom_id`, `method`, `url`, `body`) or a request with `model`.",
            ),
            Self::Method(method) => {
                write!(f, "`method` must be `POST`, is `{}`.", shown(method))
            }
            Self::Url(url) => write!(
                f,
                "`{}` can't be asked for in a batch; `url` must be one of /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses and /v1/images/generations.",
                shown(url)
            ),
            Self::Ambiguous => f.write_str(
                "A body with `input` can be for /v1/embeddings or /v1/responses: say which in `url`, or in the application property `url`.",
            ),
            Self::NoModel => f.write_str("The request has no `model`."),
            Self::Streams => f.write_str(
                "A batch message is answered by one message: leave `stream` out, or make it false.",
            ),
            Self::NoApp => f.write_str(
                "The message names no app: put its name into the application property `app`.",
            ),
            Self::UnknownApp(app) => {
                write!(f, "The app `{}` is not registered with this gateway.", shown(app))
            }
            Self::ReplyTo(queue) => write!(
                f,
                "Replies may not go to `{}`: it is none of [batch] reply_queues. Nothing was called.",
                shown(queue)
            ),
            Self::Property { name, expected } => {
                write!(f, "The application property `{name}` must be {expected}.")
            }
            Self::Expired => {
                f.write_str("The request could not be answered before its deadline.")
            }
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_word_for_programs_and_says_what_to_do() {
        let faults = [
            (
                Fault::TooLarge { bytes: 9, max: 5 },
                "body_too_large",
                "max_request_mb",
            ),
            (
                Fault::CustomId { characters: 600 },
                "custom_id_too_long",
                "may have 512",
            ),
            (Fault::Shapeless, "invalid_body", "`model`"),
            (Fault::Method("PUT".into()), "invalid_method", "`POST`"),
            (
                Fault::Url("/v1/files".into()),
                "invalid_url",
                "/v1/embeddings",
            ),
            (Fault::Ambiguous, "invalid_url", "say which in `url`"),
            (Fault::NoModel, "model_missing", "`model`"),
            (Fault::Streams, "stream_not_possible", "leave `stream` out"),
            (Fault::NoApp, "app_missing", "property `app`"),
            (Fault::UnknownApp("x".into()), "unknown_app", "`x`"),
            (
                Fault::ReplyTo("q".into()),
                "reply_address_not_allowed",
                "reply_queues",
            ),
            (
                Fault::Property {
                    name: "priority",
                    expected: "`low` or `high`",
                },
                "invalid_property",
                "`priority` must be `low` or `high`",
            ),
            (Fault::Expired, "batch_expired", "deadline"),
        ];
        for (fault, code, says) in faults {
            let said = fault.to_string();
            assert_eq!(fault.code(), code, "{said}");
            assert!(said.contains(says) && said.ends_with(['.', ')']), "{said}");
        }
    }

    #[test]
    fn a_senders_own_text_is_repeated_in_part_only() {
        let said = Fault::UnknownApp("\u{fc}".repeat(5000)).to_string();
        assert_eq!(said.matches('\u{fc}').count(), MAX_SHOWN);
    }
}
