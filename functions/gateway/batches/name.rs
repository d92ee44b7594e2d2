//! What files and batches are called: by a prefix that no backend's have, so that ids of either are told
//! apart.

use super::super::id::newest_first;

/// What files' ids begin with.
pub const FILE: &str = "file-spw";

/// What batches' ids begin with.
pub const BATCH: &str = "batch_spw";

/// What the ids of a batch's results begin with.
const RESULT: &str = "batch_req_spw";

/// The key of a row for `id`, by which the newest comes first; `None` where the id is none that begins
/// with `prefix`.
pub fn key(prefix: &str, id: &str) -> Option<String> {
    newest_first(id.strip_prefix(prefix)?)
}

/// The id of a batch's result: of its line `number`, from 1, the same whenever it is made.
pub fn result(batch: &str, number: u32) -> String {
    let id = batch.strip_prefix(BATCH).unwrap_or(batch);
    format!("{RESULT}{id}_{number}")
}

/// The line that a result is of.
pub fn number(result: &str) -> Option<u32> {
    let (_, number) = result.strip_prefix(RESULT)?.rsplit_once('_')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_others_are_none() {
        let own = format!("{FILE}01J000000000000000000000AA");
        assert!(key(FILE, &own).is_some());
        for other in [
            "file-abc",
            "batch_spw01J000000000000000000000AA",
            "file-spw",
            "file-spw/../x",
        ] {
            assert_eq!(key(FILE, other), None, "{other}");
        }
    }

    #[test]
    fn a_result_names_its_line() {
        let id = result("batch_spw01J000000000000000000000AA", 50_000);
        assert_eq!(number(&id), Some(50_000));
        assert_eq!(number("batch_req_other_1"), None);
    }
}
