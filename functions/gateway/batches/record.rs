//! A batch, as it is known and as an app sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::mistake::Mistake;

/// How long a batch has, seconds: the only `completion_window` that the API has is 24 h.
pub const WINDOW_S: u64 = 24 * 3600;

/// How a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its input is looked at.
    Validating,
    /// Its input has mistakes.
    Failed,
    /// Its lines are called.
    InProgress,
    /// All have their results.
    Completed,
    /// It ran out of time.
    Expired,
    /// It was called off; lines that had begun are finished.
    Cancelling,
    /// It was called off.
    Cancelled,
}

impl Status {
    /// The API's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing changes any more.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Completed | Self::Expired | Self::Cancelled
        )
    }
}

/// How many lines have come how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub total: u32,
    /// With a good answer.
    pub completed: u32,
    /// With an error.
    pub failed: u32,
}

impl Counts {
    /// Whether each line has its result.
    pub const fn is_all(&self) -> bool {
        self.completed.saturating_add(self.failed) >= self.total
    }
}

/// What is known of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Its id.
    pub id: String,
    /// The path that its lines are for, as its app wrote it.
    pub endpoint: String,
    /// The same path in the v1 form.
    pub path: String,
    /// Its input.
    pub input_file_id: String,
    /// Where the results are; the file is there from the end on, where there are any.
    pub output_file_id: String,
    /// The same of errors.
    pub error_file_id: String,
    /// Whether the output's file is there.
    pub has_output: bool,
    /// Whether the errors' file is there.
    pub has_errors: bool,
    /// What its app notes of it.
    pub metadata: Option<BTreeMap<String, String>>,
    /// How it stands.
    pub status: Status,
    /// How many lines have come how far.
    pub counts: Counts,
    /// What is wrong with its input, some of it.
    pub mistakes: Vec<Mistake>,
    /// When each state began, seconds since the Unix epoch.
    pub times: Times,
}

/// When states began, seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// When it was made.
    pub created: u64,
    /// When its first line could be called.
    pub in_progress: Option<u64>,
    /// When its last line was done with.
    pub finalizing: Option<u64>,
    /// When it was called off.
    pub cancelling: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
}

impl BatchRecord {
    /// Until when it has, seconds since the Unix epoch.
    pub const fn expires(&self) -> u64 {
        self.times.created.saturating_add(WINDOW_S)
    }

    /// Calls it off. Whether it could be.
    pub fn cancel(&mut self, now: u64) -> bool {
        match self.status {
            Status::Validating | Status::InProgress => {
                self.status = Status::Cancelling;
                self.times.cancelling = Some(now);
                true
            }
            Status::Cancelling => true,
            _ => false,
        }
    }

    /// Ends it. One that was called off, or in time, ends as that, unless each line has its result.
    pub fn end(&mut self, counts: Counts, now: u64) {
        self.counts = counts;
        self.status = if counts.is_all() && counts.total > 0 && now < self.expires() {
            Status::Completed
        } else if self.status == Status::Cancelling {
            Status::Cancelled
        } else {
            Status::Expired
        };
        self.times.finalizing = Some(now);
        self.times.ended = Some(now);
    }

    /// Ends it for its input's mistakes.
    pub fn fail(&mut self, mistakes: Vec<Mistake>, now: u64) {
        self.mistakes = mistakes;
        self.status = Status::Failed;
        self.times.ended = Some(now);
    }

    /// The batch as its app sees it.
    pub fn object(&self) -> Value {
        let ended = |status: Status| self.times.ended.filter(|_| self.status == status);
        let file = |there: bool, id: &str| there.then(|| id.to_owned());
        let mistakes: Vec<Value> = self.mistakes.iter().map(Mistake::object).collect();
        let errors = (!mistakes.is_empty()).then(|| json!({"object": "list", "data": mistakes}));
        json!({
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status.as_str(),
            "output_file_id": file(self.has_output, &self.output_file_id),
            "error_file_id": file(self.has_errors, &self.error_file_id),
            "created_at": self.times.created,
            "in_progress_at": self.times.in_progress,
            "expires_at": self.expires(),
            "finalizing_at": self.times.finalizing,
            "completed_at": ended(Status::Completed),
            "failed_at": ended(Status::Failed),
            "expired_at": ended(Status::Expired),
            "cancelling_at": self.times.cancelling,
            "cancelled_at": ended(Status::Cancelled),
            "request_counts": {
                "total": self.counts.total,
                "completed": self.counts.completed,
                "failed": self.counts.failed,
            },
            "metadata": self.metadata,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> BatchRecord {
        BatchRecord {
            id: "b".into(),
            endpoint: "/v1/embeddings".into(),
            path: "/v1/embeddings".into(),
            input_file_id: "i".into(),
            output_file_id: "o".into(),
            error_file_id: "e".into(),
            has_output: false,
            has_errors: false,
            metadata: None,
            status: Status::InProgress,
            counts: Counts::default(),
            mistakes: Vec::new(),
            times: Times {
                created: 100,
                ..Times::default()
            },
        }
    }

    const fn counts(completed: u32, failed: u32) -> Counts {
        Counts {
            total: 3,
            completed,
            failed,
        }
    }

    #[test]
    fn a_batch_ends_as_what_became_of_it() {
        let late = 100 + WINDOW_S;
        for (cancelled, counts, now, status) in [
            (false, counts(2, 1), 200, Status::Completed),
            (true, counts(2, 1), 200, Status::Completed),
            (true, counts(1, 0), 200, Status::Cancelled),
            (false, counts(1, 2), late, Status::Expired),
            (true, Counts::default(), 200, Status::Cancelled),
        ] {
            let mut batch = batch();
            if cancelled {
                assert!(batch.cancel(150));
            }
            batch.end(counts, now);
            assert_eq!(batch.status, status, "{cancelled} {counts:?}");
            assert!(!batch.cancel(300), "it has ended");
        }
    }

    #[test]
    fn an_app_sees_the_moment_of_its_own_state_only() {
        let mut batch = batch();
        batch.has_output = true;
        batch.end(counts(3, 0), 200);
        let seen = batch.object();
        assert_eq!(seen["status"], "completed");
        assert_eq!(
            (&seen["completed_at"], &seen["expired_at"]),
            (&json!(200), &Value::Null)
        );
        assert_eq!(
            (&seen["output_file_id"], &seen["error_file_id"]),
            (&json!("o"), &Value::Null)
        );
        assert_eq!(seen["expires_at"], 100 + WINDOW_S);
        assert_eq!(seen["errors"], Value::Null);
        batch.fail(vec![Mistake::new("empty_file", "It is empty.", None)], 300);
        assert_eq!(batch.object()["errors"]["data"][0]["code"], "empty_file");
    }
}
