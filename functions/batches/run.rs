//! Works one batch off: looks at its input, has its lines answered, ends it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::{mpsc, watch};

use super::call::Shared;
use super::lines::{LineError, Lines};
use super::results::{Done, Results, Unwritten, result};
use super::{Batches, blob};
use crate::gateway::app::App;
use crate::gateway::batch::line;
use crate::gateway::batch::reply::Answer;
use crate::gateway::batches::file::{FileRecord, OUTPUT};
use crate::gateway::batches::mistake::{self, MAX_TOLD, Mistake, Names};
use crate::gateway::batches::name;
use crate::gateway::batches::record::{BatchRecord, Counts, Status};
use crate::gateway::time::Timestamp;
use crate::store::batches::{self as rows, Active, Read};
use crate::store::{StoreError, Table};

/// Longest line of an input, bytes.
const MAX_LINE: usize = 8 << 20;

/// How often an app sees new counts, and how soon a batch learns that it was called off.
const TELL: Duration = Duration::from_secs(1);

/// How often a batch's row is written that others write, too.
const ATTEMPTS: usize = 20;

/// Why a batch is left before its end.
#[derive(Debug)]
pub(super) enum RunError {
    /// Somebody else works on it.
    Lost,
    /// What is kept can't be reached.
    Store(StoreError),
    /// Its files can't be reached.
    Lines(LineError),
    /// Its results can't be written, now or later.
    Refused(String),
    /// The configuration has its app no longer.
    NoApp(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("somebody else works on it"),
            Self::Store(error) => write!(f, "what is kept of it: {error}"),
            Self::Lines(error) => write!(f, "its files: {error:?}"),
            Self::Refused(why) => write!(f, "its results are refused: {why}"),
            Self::NoApp(app) => write!(f, "there is no app {app}"),
        }
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LineError> for RunError {
    fn from(error: LineError) -> Self {
        Self::Lines(error)
    }
}

impl From<Unwritten> for RunError {
    fn from(error: Unwritten) -> Self {
        match error {
            Unwritten::Lost => Self::Lost,
            Unwritten::Refused(why) => Self::Refused(why),
        }
    }
}

/// A batch under way.
struct Run<'a> {
    batches: &'a Batches,
    app: Arc<App>,
    row: String,
    batch: BatchRecord,
}

/// What came of a batch's lines so far, beside its blobs.
struct Progress {
    good: Results,
    bad: Results,
    counts: Mutex<Counts>,
}

impl Progress {
    /// How many lines have their results, those too that an app has not been told of.
    fn counted(&self) -> Counts {
        let told = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Counts {
            completed: self.good.count,
            failed: self.bad.count,
            ..told
        }
    }
}

impl Batches {
    /// Works a batch off. `false` where there is no such batch.
    pub(super) async fn run(&self, active: &Active) -> Result<bool, RunError> {
        let Some(row) = name::key(name::BATCH, &active.id) else {
            return Ok(true);
        };
        let read = rows::get(&*self.store, Table::Batches, &active.app, &row).await?;
        let Some(Read { record: batch, .. }) = read else {
            return Ok(false);
        };
        let app = self.way.app(&active.app);
        let app = app.ok_or_else(|| RunError::NoApp(active.app.clone()))?;
        let mut run = Run {
            batches: self,
            app,
            row,
            batch,
        };
        if run.batch.status == Status::Validating {
            run.validate().await?;
        }
        if !run.batch.status.is_final() {
            run.work().await?;
        }
        Ok(true)
    }
}

impl Run<'_> {
    /// Changes the batch's row as `change` says, whoever else has changed it meanwhile.
    async fn update(&mut self, change: impl Fn(&mut BatchRecord)) -> Result<(), RunError> {
        let (store, app) = (&*self.batches.store, &*self.app.name);
        for _ in 0..ATTEMPTS {
            let read = rows::get(store, Table::Batches, app, &self.row).await?;
            let Some(Read { mut record, etag }) = read else {
                return Err(RunError::Lost);
            };
            change(&mut record);
            let put = rows::put(store, Table::Batches, app, &self.row, &record, Some(etag));
            match put.await {
                Ok(()) => {
                    self.batch = record;
                    return Ok(());
                }
                Err(StoreError::Changed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RunError::Lost)
    }

    /// The lines of the input.
    async fn lines(&self) -> Result<Lines, RunError> {
        let blob = blob(&self.app.name, &self.batch.input_file_id);
        let blobs = &self.batches.blobs;
        let length = blobs.length(&blob).await.map_err(LineError::Blob)?;
        let length = length.ok_or(LineError::Gone)?;
        Ok(Lines::new(Arc::clone(blobs), blob, length, MAX_LINE))
    }

    /// Looks at each line of the input before any is called.
    async fn validate(&mut self) -> Result<(), RunError> {
        let now = self.batches.now_s();
        match self.mistakes().await {
            Ok((total, mistakes)) if mistakes.is_empty() => {
                self.update(|batch| {
                    batch.counts.total = total;
                    batch.times.in_progress = Some(now);
                    if batch.status == Status::Validating {
                        batch.status = Status::InProgress;
                    }
                })
                .await
            }
            Ok((_, mistakes)) => self.update(|batch| batch.fail(mistakes.clone(), now)).await,
            Err(RunError::Lines(LineError::Gone)) => {
                self.update(|batch| batch.fail(vec![gone()], now)).await
            }
            Err(error) => Err(error),
        }
    }

    /// How many lines the input has, and what is wrong with it.
    async fn mistakes(&self) -> Result<(u32, Vec<Mistake>), RunError> {
        let most = self.batches.settings.max_lines;
        let mut lines = self.lines().await?.at_most(most);
        let (mut total, mut mistakes, mut names) = (0_u32, Vec::new(), Names::default());
        while mistakes.len() < MAX_TOLD {
            let (number, line) = match lines.next().await {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(LineError::TooLong { number }) => {
                    let message = format!("The line has more than {} MiB.", MAX_LINE >> 20);
                    mistakes.push(Mistake::new("line_too_long", message, Some(number)));
                    break;
                }
                Err(LineError::TooMany) => {
                    let message =
                        format!("The file has more than {most} lines, blank ones counted.");
                    mistakes.push(Mistake::new("too_many_lines", message, None));
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            total = total.saturating_add(1);
            match mistake::read(number, &line, &self.batch.path) {
                Ok((name, _)) if names.note(&name) => {}
                Ok(_) => {
                    let message = "The `custom_id` stands in an earlier line, too.";
                    mistakes.push(Mistake::new("duplicate_custom_id", message, Some(number)));
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if total == 0 && mistakes.is_empty() {
            mistakes.push(Mistake::new("empty_file", "The file has no lines.", None));
        }
        Ok((total, mistakes))
    }

    /// Has all lines answered that have no result yet, and ends the batch.
    async fn work(&mut self) -> Result<(), RunError> {
        let (app, blobs) = (&*self.app.name, &self.batches.blobs);
        let (good, answered) = Results::open(blobs, blob(app, &self.batch.output_file_id)).await?;
        let (bad, failed) = Results::open(blobs, blob(app, &self.batch.error_file_id)).await?;
        let counts = Counts {
            total: self.batch.counts.total,
            completed: good.count,
            failed: bad.count,
        };
        let finished: HashSet<u32> = answered.into_iter().chain(failed).collect();
        let mut progress = Progress {
            good,
            bad,
            counts: Mutex::new(counts),
        };
        // Lines that have their results keep them, whatever comes in between.
        let mistake = match self.call_all(&finished, &mut progress).await {
            Ok(()) => None,
            Err(RunError::Lines(LineError::Gone)) => Some(gone()),
            Err(RunError::Refused(why)) => {
                tracing::error!(id = self.batch.id, why, "results of a batch are refused");
                Some(refused())
            }
            Err(error) => return Err(error),
        };
        self.finish(&progress, mistake).await
    }

    async fn call_all(
        &mut self,
        finished: &HashSet<u32>,
        progress: &mut Progress,
    ) -> Result<(), RunError> {
        let was_cancelled = self.batch.status == Status::Cancelling;
        let (cancel, cancelled) = watch::channel(was_cancelled);
        let lines = self.lines().await?;
        let expires = Timestamp::from_unix_ms(self.batch.expires().saturating_mul(1000));
        let spill_ms = u64::from(self.batches.settings.spill_before_minutes) * 60_000;
        let spills = expires.unix_ms().saturating_sub(spill_ms);
        let shared = Shared {
            app: Arc::clone(&self.app),
            expires,
            spills: Timestamp::from_unix_ms(spills),
            cancelled,
        };
        let concurrency = self.batches.settings.concurrency;
        let (done, results) = mpsc::channel(concurrency);
        let (batch, path) = (self.batch.id.clone(), self.batch.path.clone());
        let batches = self.batches;
        let Progress { good, bad, counts } = progress;
        let calling = call_lines(batches, lines, finished, &shared, &path, done);
        let writing = write_results(&batch, results, good, bad, counts);
        let work = async { tokio::try_join!(calling, writing) };
        let telling = self.tell(counts, &cancel);
        tokio::select! {
            done = work => done.map(drop),
            Err(error) = telling => Err(error),
        }
    }

    /// Has the app see how far the batch is, and the batch whether it was called off, until that fails.
    async fn tell(
        &mut self,
        counts: &Mutex<Counts>,
        cancel: &watch::Sender<bool>,
    ) -> Result<(), RunError> {
        loop {
            tokio::time::sleep(TELL).await;
            let now = *counts.lock().unwrap_or_else(PoisonError::into_inner);
            let store = &*self.batches.store;
            let read =
                rows::get::<BatchRecord>(store, Table::Batches, &self.app.name, &self.row).await;
            let told = match read {
                Ok(Some(read)) if read.record.counts == now => {
                    self.batch = read.record;
                    Ok(())
                }
                Ok(Some(_)) => self.update(|batch| batch.counts = now).await,
                Ok(None) => Err(RunError::Lost),
                Err(error) => Err(error.into()),
            };
            match told {
                Ok(()) if self.batch.status.is_final() => return Err(RunError::Lost),
                Ok(()) => drop(cancel.send_replace(self.batch.status == Status::Cancelling)),
                Err(RunError::Store(StoreError::Unavailable(why))) => {
                    tracing::warn!(why, "how far a batch is can't be told");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the batch; `mistake` is why not all lines may have their results. Each step can be made
    /// again.
    async fn finish(
        &mut self,
        progress: &Progress,
        mistake: Option<Mistake>,
    ) -> Result<(), RunError> {
        let (output, errors) = (
            self.batch.output_file_id.clone(),
            self.batch.error_file_id.clone(),
        );
        let has_output = self.file(&output, progress.good.length, "output").await?;
        let has_errors = self.file(&errors, progress.bad.length, "error").await?;
        let counts = progress.counted();
        let mistake = mistake.filter(|_| !counts.is_all());
        let now = self.batches.now_s();
        self.update(|batch| {
            batch.has_output = has_output;
            batch.has_errors = has_errors;
            if let Some(mistake) = &mistake {
                batch.counts = counts;
                batch.fail(vec![mistake.clone()], now);
            } else {
                batch.end(counts, now);
            }
        })
        .await
    }

    /// Makes a file of results known, where there are any.
    async fn file(&self, id: &str, bytes: u64, sort: &str) -> Result<bool, RunError> {
        let Some(row) = name::key(name::FILE, id).filter(|_| bytes > 0) else {
            return Ok(false);
        };
        let file = FileRecord {
            id: id.to_owned(),
            bytes,
            created_at: self.batches.now_s(),
            filename: format!("{}_{sort}.jsonl", self.batch.id),
            purpose: OUTPUT.to_owned(),
        };
        let (store, app) = (&*self.batches.store, &*self.app.name);
        rows::put(store, Table::Files, app, &row, &file, None).await?;
        Ok(true)
    }
}

fn gone() -> Mistake {
    Mistake::new("file_missing", "The input file is gone.", None)
}

/// Why it was refused is the operator's, who finds it in the log.
fn refused() -> Mistake {
    let message =
        "A result can't be written: where files are kept refuses it. Those before it are there.";
    Mistake::new("results_refused", message, None)
}

/// Has lines answered, so many at the same time as `done` has room for.
async fn call_lines(
    batches: &Batches,
    lines: Lines,
    finished: &HashSet<u32>,
    shared: &Shared,
    path: &str,
    done: mpsc::Sender<Done>,
) -> Result<(), RunError> {
    let stopped: Mutex<Option<LineError>> = Mutex::new(None);
    let next = unfold(lines, |mut lines| async {
        if *shared.cancelled.borrow() {
            return None;
        }
        match lines.next().await {
            Ok(next) => Some((next?, lines)),
            Err(error) => {
                *stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    });
    let call = |(number, line): (u32, Bytes)| {
        let done = done.clone();
        async move {
            if finished.contains(&number) {
                return;
            }
            if let Some(result) = answered(batches, shared, path, number, &line).await {
                // Whoever writes them down has left only where the batch is left.
                let _ = done.send(result).await;
            }
        }
    };
    next.for_each_concurrent(batches.settings.concurrency, call)
        .await;
    let stopped = stopped.into_inner().unwrap_or_else(PoisonError::into_inner);
    match stopped {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}

/// What a line comes to; `None` where the batch was called off before it was called.
async fn answered(
    batches: &Batches,
    shared: &Shared,
    path: &str,
    number: u32,
    line: &Bytes,
) -> Option<Done> {
    let (custom_id, answer) = match mistake::read(number, line, path) {
        Ok((custom_id, line)) => (custom_id, batches.answer(shared, &line).await?),
        // It was looked at before, and the file can't have changed: only by another version of the
        // gateway, which took more than this one. It has its result like any other.
        Err(Mistake { code, message, .. }) => {
            tracing::error!(number, code, "a line of a batch can't be read any more");
            let custom_id = line::custom_id(line).unwrap_or_default();
            (custom_id, Answer::Error { code, message })
        }
    };
    Some(Done {
        number,
        custom_id,
        answer,
    })
}

/// Writes results down, all that have come at once.
async fn write_results(
    batch: &str,
    mut results: mpsc::Receiver<Done>,
    good: &mut Results,
    bad: &mut Results,
    counts: &Mutex<Counts>,
) -> Result<(), RunError> {
    while let Some(first) = results.recv().await {
        let (mut answered, mut failed) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(done) = next {
            let (line, is_good) = result(batch, &done);
            if is_good {
                answered.push(line);
            } else {
                failed.push(line);
            }
            next = results.try_recv().ok();
        }
        good.append(&answered).await?;
        bad.append(&failed).await?;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.completed = good.count;
        counts.failed = bad.count;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
