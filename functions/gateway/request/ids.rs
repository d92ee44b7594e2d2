//! The ids of stored things that a request's body names: as a member, in a list, or deep within its
//! prompt and its tools.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

use super::{MAX_STORED_IDS, text};

/// Ids, each once, in the order in which they are named.
#[derive(Debug, Default)]
pub(super) struct Ids<'a> {
    found: Vec<Cow<'a, str>>,
    known: BTreeSet<Cow<'a, str>>,
}

impl<'a> Ids<'a> {
    /// Adds one. A conversation's answers and citations name the same file over and over.
    fn add(&mut self, id: Cow<'a, str>) {
        if !id.is_empty() && self.known.insert(id.clone()) {
            self.found.push(id);
        }
    }

    fn add_text(&mut self, json: Option<&'a str>) {
        if let Some(id) = json.and_then(text) {
            self.add(id);
        }
    }

    /// Whether there are more than a body may name.
    pub(super) const fn are_too_many(&self) -> bool {
        self.found.len() > MAX_STORED_IDS
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|id| &**id)
    }

    /// Adds what a member names that is an id, or an object that has one: `conversation`, or `data_source` of
    /// an evaluation, whose file stands in it or in its `source`.
    pub(super) fn add_named(&mut self, json: &'a str) {
        match text(json) {
            Some(id) => self.add(id),
            None => Walk::of(json.as_bytes(), &["id"], 2).run(self),
        }
    }

    /// Adds the ids that stand anywhere within a body. Most bodies have none, which a search for the members'
    /// names tells at once; they are not walked through then.
    pub(super) fn add_within(&mut self, body: &'a [u8]) {
        if may_have_ids(body) {
            Walk::of(body, &DEEP, usize::MAX).run(self);
        }
    }
}

/// Members whose values are ids, or lists of them, however deep they stand: files of messages, of the code
/// interpreter and its containers; vector stores of the file search. (API reference, "Create a model
/// response": `input`, `tools`.)
const DEEP: [&str; 5] = [
    "file_id",
    "file_ids",
    "vector_store_ids",
    "container",
    "container_id",
];

/// Members that are the caller's own to fill, and name nothing: of calls, and of a vector store's files.
const OWN: [&str; 2] = ["metadata", "attributes"];

/// What a body with ids has in it: the beginnings of the members' names.
static BEGINNINGS: LazyLock<[Finder<'static>; 3]> = LazyLock::new(|| {
    let names = ["\"file_id", "\"vector_store_ids\"", "\"container"];
    names.map(Finder::new)
});

/// What an escaped letter begins with.
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u00"));

fn may_have_ids(json: &[u8]) -> bool {
    let mut names = BEGINNINGS.iter();
    names.any(|name| name.find(json).is_some()) || has_escaped_letters(json)
}

/// Whether letters (or `_`) are escaped, which nobody needs who has nothing to hide.
fn has_escaped_letters(json: &[u8]) -> bool {
    let mut escapes = ESCAPE.find_iter(json);
    escapes.any(|at| matches!(json.get(at + 4), Some(b'4'..=b'7')))
}

/// A walk through JSON that was found to be valid, from its first byte to its last.
///
/// It goes by brackets and strings alone, so that nothing that a backend may read ends it early (half of a
/// surrogate pair, a number beyond all ranges), and it takes no stack however deep the JSON is nested.
struct Walk<'n, 'a> {
    json: &'a [u8],
    at: usize,
    depth: usize,
    names: &'n [&'n str],
    /// How deep these count; 1: in the object itself.
    deepest: usize,
    /// The depths of the lists of ids that it is in.
    lists: Vec<usize>,
    /// The depth of the caller's own object that it is in.
    own: Option<usize>,
}

impl<'n, 'a> Walk<'n, 'a> {
    /// A walk for the ids in the members of these names.
    const fn of(json: &'a [u8], names: &'n [&'n str], deepest: usize) -> Self {
        Self {
            json,
            at: 0,
            depth: 0,
            names,
            deepest,
            lists: Vec::new(),
            own: None,
        }
    }

    fn run(mut self, ids: &mut Ids<'a>) {
        while let Some(byte) = self.json.get(self.at)
            && !ids.are_too_many()
        {
            match byte {
                b'"' => self.string(ids),
                b'[' | b'{' => {
                    self.depth += 1;
                    self.at += 1;
                }
                b']' | b'}' => self.close(),
                _ => self.at += 1,
            }
        }
    }

    /// Takes a string, which is a member's name where a colon follows it.
    fn string(&mut self, ids: &mut Ids<'a>) {
        let string = self.take_string();
        self.skip_space();
        if self.json.get(self.at) != Some(&b':') {
            if self.lists.last() == Some(&self.depth) {
                ids.add_text(string);
            }
            return;
        }
        self.at += 1;
        self.skip_space();
        if self.own.is_some() || self.depth > self.deepest {
            return;
        }
        let first = self.json.get(self.at);
        match string.and_then(text).as_deref() {
            Some(name) if OWN.contains(&name) && first == Some(&b'{') => {
                self.own = Some(self.depth + 1)
            }
            Some(name) if self.names.contains(&name) => match first {
                Some(b'"') => ids.add_text(self.take_string()),
                Some(b'[') => self.lists.push(self.depth + 1),
                _ => {}
            },
            _ => {}
        }
    }

    /// The string that begins here, with its quotes.
    fn take_string(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += 1;
        while let Some(rest) = self.json.get(self.at..)
            && let Some(found) = memchr2(b'"', b'\\', rest)
        {
            let is_escape = rest.get(found) == Some(&b'\\');
            self.at += found + if is_escape { 2 } else { 1 };
            if !is_escape {
                let string = self.json.get(start..self.at)?;
                return std::str::from_utf8(string).ok();
            }
        }
        self.at = self.json.len();
        None
    }

    fn skip_space(&mut self) {
        while self.json.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn close(&mut self) {
        if self.lists.last() == Some(&self.depth) {
            self.lists.pop();
        }
        if self.own == Some(self.depth) {
            self.own = None;
        }
        self.depth = self.depth.saturating_sub(1);
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn within(body: &str) -> Vec<String> {
        let mut ids = Ids::default();
        ids.add_within(body.as_bytes());
        ids.iter().map(str::to_owned).collect()
    }

    #[test]
    fn what_a_backend_may_read_hides_no_id_behind_it() {
        let id = r#"{"file_id":"x"}"#;
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        for before in [
            r#""\ud83d""#,
            "1e999",
            r#"{"\ud83d":1}"#,
            &deep,
            r#""\\\"""#,
        ] {
            assert_eq!(within(&format!("{{\"a\":{before},\"b\":{id}}}")), ["x"]);
        }
    }

    #[test]
    fn nesting_takes_no_stack_and_each_level_is_looked_at() {
        let levels = 200_000;
        let open = r#"{"container":{"file_ids":["#.repeat(levels);
        let body = format!("{open}\"x\"{}", "]}}".repeat(levels));
        assert_eq!(within(&body), ["x"]);
    }

    #[test]
    fn an_id_that_is_named_often_counts_once() {
        let body = format!(
            "[{}{{}}]",
            r#"{"file_id":"x"},{"file_id":""},"#.repeat(5000)
        );
        assert_eq!(within(&body), ["x"]);
        let many: Vec<String> = (0..5000)
            .map(|i| format!("{{\"file_id\":\"{i}\"}}"))
            .collect();
        assert_eq!(
            within(&format!("[{}]", many.join(","))).len(),
            MAX_STORED_IDS + 1
        );
    }

    #[test]
    fn what_callers_note_for_themselves_names_nothing() {
        assert_eq!(
            within(r#"{"metadata":{"file_id":"a","x":{"file_ids":["b"]}},"file_id":"c"}"#),
            ["c"]
        );
        assert_eq!(within(r#"{"metadata":["a"],"file_id":"c"}"#), ["c"]);
    }

    /// The same by a tree; `is_list`: texts in it are ids.
    fn collect(value: &Value, is_list: bool, found: &mut Vec<String>) {
        match value {
            Value::String(id) if is_list && !id.is_empty() && !found.contains(id) => {
                found.push(id.clone());
            }
            Value::Array(list) => {
                for value in list {
                    collect(value, is_list && value.is_string(), found);
                }
            }
            Value::Object(map) => {
                let others = map
                    .iter()
                    .filter(|(name, of)| !OWN.contains(&name.as_str()) || !of.is_object());
                for (name, of) in others {
                    let is_named = DEEP.contains(&name.as_str());
                    collect(of, is_named && !of.is_object(), found);
                }
            }
            _ => {}
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = || prop_oneof![Just(String::new()), "[a-c\"\\\\\\[\\]{}:,é]{1,3}"];
        let name = prop_oneof![
            prop::sample::select(&DEEP[..]).prop_map(str::to_owned),
            prop::sample::select(&OWN[..]).prop_map(str::to_owned),
            text(),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 60, 5, move |inner| {
            let members = prop::collection::vec((name.clone(), inner.clone()), 0..5);
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(Value::from),
                members.prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_a_tree_has(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let mut found = Vec::new();
            collect(&value, false, &mut found);
            prop_assert_eq!(within(&text.unwrap()), found);
        }

        #[test]
        fn a_walk_ends_whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut ids = Ids::default();
            Walk::of(&bytes, &DEEP, usize::MAX).run(&mut ids);
        }
    }
}
