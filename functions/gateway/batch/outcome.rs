//! What the relay's answer means for a message.

/// What becomes of a message that was answered so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its sender gets this answer, good or bad: asking again would bring the same.
    Answer,
    /// There was no room; the message is put off.
    Full {
        /// When there may be, ms.
        retry_after_ms: u64,
    },
    /// Nobody could answer; the message is tried again.
    Broken(String),
}

/// Shortest wait after an answer that names none, ms.
const NO_ROOM_MS: u64 = 10_000;

/// The verdict on an answer of this status; `code` is the error's, where the gateway itself
/// answered.
pub fn judge(status: u16, code: Option<&str>, retry_after_ms: Option<u64>) -> Verdict {
    match status {
        // Its budget comes back with the month: the sender has to know, not wait.
        429 if code == Some("budget_exceeded") => Verdict::Answer,
        429 => Verdict::Full {
            retry_after_ms: retry_after_ms.unwrap_or(NO_ROOM_MS),
        },
        408 | 500.. => {
            let why = code.map_or_else(
                || format!("status {status}"),
                |code| format!("status {status}, {code}"),
            );
            Verdict::Broken(why)
        }
        _ => Verdict::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_would_be_the_same_again_are_passed_on() {
        for status in [200, 201, 400, 401, 403, 404, 413, 422] {
            assert_eq!(judge(status, None, None), Verdict::Answer, "{status}");
        }
        assert_eq!(
            judge(429, Some("budget_exceeded"), Some(1)),
            Verdict::Answer
        );
    }

    #[test]
    fn no_room_waits_and_what_is_broken_is_tried_again() {
        assert_eq!(
            judge(429, None, Some(70)),
            Verdict::Full { retry_after_ms: 70 }
        );
        assert_eq!(
            judge(429, Some("all_deployments_full"), None),
            Verdict::Full {
                retry_after_ms: NO_ROOM_MS
            }
        );
        for status in [408, 500, 502, 503, 504] {
            assert!(
                matches!(judge(status, None, None), Verdict::Broken(_)),
                "{status}"
            );
        }
    }
}
