//! The ids of stored things that a request's body names: as a member, in a list, or deep within its
//! prompt and its tools.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{MAX_STORED_IDS, text};

/// Adds the ids of a list to those that are known. What is no list of texts is the backend's to refuse.
pub(super) fn list<'a>(raw: &'a RawValue, ids: &mut Vec<Cow<'a, str>>) {
    ids.extend(text(raw));
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let _ = json.deserialize_seq(Ids(ids));
}

/// Reads a list until there are too many ids: the length of the list is the client's to say.
struct Ids<'i, 'a>(&'i mut Vec<Cow<'a, str>>);

impl<'a> Visitor<'a> for Ids<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ids")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut list: S) -> Result<(), S::Error> {
        while self.0.len() <= MAX_STORED_IDS
            && let Some(id) = list.next_element::<&'a RawValue>()?
        {
            self.0.extend(text(id));
        }
        Ok(())
    }
}

/// `conversation` is an id or an object that has one.
pub(super) fn conversation(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Conversation<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let named = || serde_json::from_str::<Conversation<'_>>(raw.get()).ok();
    text(raw).or_else(|| named().map(|conversation| conversation.id))
}

/// What members begin with, or are, whose values are ids, however deep they stand: files of messages, of the code
/// interpreter and its containers; vector stores of the file search. (API reference, "Create a model
/// response": `input`, `tools`.)
const DEEP: [&str; 3] = ["\"file_id", "\"vector_store_ids\"", "\"container\""];

/// Adds the ids that stand anywhere within a value. Most values have none, which a search for the members'
/// names tells at once; what they hold is not read then.
pub(super) fn within<'a>(raw: &'a RawValue, ids: &mut Vec<Cow<'a, str>>) {
    let json = raw.get();
    if json.starts_with(['[', '{']) && may_have_ids(json.as_bytes()) {
        let mut json = serde_json::Deserializer::from_str(json);
        // Nested beyond what is read here it is the backend's to refuse.
        let _ = Within(ids).deserialize(&mut json);
    }
}

fn may_have_ids(json: &[u8]) -> bool {
    let has = |name: &str| memmem::find(json, name.as_bytes()).is_some();
    DEEP.into_iter().any(has) || has_escaped_letters(json)
}

/// Whether letters (or `_`) are escaped, which nobody needs who has nothing to hide.
fn has_escaped_letters(json: &[u8]) -> bool {
    let mut escapes = memmem::find_iter(json, b"\\u00");
    escapes.any(|at| matches!(json.get(at + 4), Some(b'4'..=b'7')))
}

/// Reads a value of any kind for the ids within it.
struct Within<'i, 'a>(&'i mut Vec<Cow<'a, str>>);

impl<'a> DeserializeSeed<'a> for Within<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Within<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "file_id" | "file_ids" | "vector_store_ids" | "container" => {
                    let raw = map.next_value::<&'a RawValue>()?;
                    list(raw, self.0);
                    within(raw, self.0);
                }
                _ if self.0.len() > MAX_STORED_IDS => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => map.next_value_seed(Within(&mut *self.0))?,
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut list: S) -> Result<(), S::Error> {
        while list.next_element_seed(Within(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
