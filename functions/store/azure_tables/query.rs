//! What is asked of Table Storage, in its words: quoted keys and filters.
//!
//! The crate puts keys into URLs and filters into queries as they are. Both are OData literals,
//! in which a quote is written twice.

use crate::store::Range;

/// A key as a part of an OData literal, without the quotes around it.
pub(super) fn quoted(key: &str) -> String {
    key.replace('\'', "''")
}

/// The filter for what is left of a range; `None` for a whole table.
///
/// `PartitionKey ge` stands alone before the condition that follows it, so that the service can
/// begin its scan there: with a bare `or` it would read the table from its start.
pub(super) fn filter(range: &Range) -> Option<String> {
    let mut terms = Vec::new();
    let after = range.after.as_ref();
    match (&range.partition, after) {
        (Some(partition), after) => {
            terms.push(term("PartitionKey", "eq", partition));
            terms.extend(after.map(|key| term("RowKey", "gt", &key.row)));
        }
        (None, Some(key)) => {
            terms.push(term("PartitionKey", "ge", &key.partition));
            terms.push(format!(
                "({} or {})",
                term("PartitionKey", "gt", &key.partition),
                term("RowKey", "gt", &key.row)
            ));
        }
        (None, None) => {}
    }
    if !range.prefix.is_empty() {
        // Where the page before ended is further than where the prefix begins.
        if range.partition.is_none() || after.is_none() {
            terms.push(term("RowKey", "ge", &range.prefix));
        }
        terms.extend(end_of(&range.prefix).map(|end| term("RowKey", "lt", &end)));
    }
    (!terms.is_empty()).then(|| terms.join(" and "))
}

fn term(property: &str, operator: &str, literal: &str) -> String {
    format!("{property} {operator} '{}'", quoted(literal))
}

/// The least text that is greater than all that begin with `prefix`; `None` where there is none.
fn end_of(prefix: &str) -> Option<String> {
    let mut end: Vec<char> = prefix.chars().collect();
    while let Some(last) = end.pop() {
        // Characters that are halves of others are no characters of their own.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            end.push(next);
            return Some(end.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Key;

    fn after(partition: &str, row: &str) -> Option<Key> {
        Some(Key {
            partition: partition.into(),
            row: row.into(),
        })
    }

    #[test]
    fn a_whole_table_has_no_filter() {
        assert_eq!(filter(&Range::all()), None);
    }

    #[test]
    fn a_partition_is_read_by_its_rows() {
        let mut range = Range::of("p", "call|");
        assert_eq!(
            filter(&range).unwrap(),
            "PartitionKey eq 'p' and RowKey ge 'call|' and RowKey lt 'call}'"
        );
        range.after = after("p", "call|7");
        assert_eq!(
            filter(&range).unwrap(),
            "PartitionKey eq 'p' and RowKey gt 'call|7' and RowKey lt 'call}'"
        );
    }

    #[test]
    fn a_table_goes_on_where_the_page_before_ended() {
        let range = Range {
            after: after("p", "r"),
            ..Range::all()
        };
        assert_eq!(
            filter(&range).unwrap(),
            "PartitionKey ge 'p' and (PartitionKey gt 'p' or RowKey gt 'r')"
        );
    }

    #[test]
    fn a_quote_can_not_end_a_literal() {
        let range = Range::of("o'brien' or PartitionKey ne '", "");
        assert_eq!(
            filter(&range).unwrap(),
            "PartitionKey eq 'o''brien'' or PartitionKey ne '''"
        );
    }

    proptest! {
        #[test]
        fn what_begins_with_a_prefix_lies_between_it_and_its_end(
            prefix in ".{1,4}", rest in ".{0,4}", other in ".{0,6}"
        ) {
            let Some(end) = end_of(&prefix) else { return Ok(()) };
            let row = format!("{prefix}{rest}");
            prop_assert!(row >= prefix && row < end);
            let between = other >= prefix && other < end;
            prop_assert_eq!(between, other.starts_with(&prefix));
        }
    }
}
