//! A request's JSON in the one form that all ways to write it have in common.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a body that is a JSON object. The map orders keys, so that writing it gives one text for bodies
/// that differ in order and white space only.
///
/// `None` where it is none, or where any key stands twice in an object: the backend could go by another
/// of the two than whoever is given the answer next.
pub(super) fn read(body: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice::<Unique>(body).ok()?.0 {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// A value without a key that stands twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        // A whole number beyond 64 bits comes as this, and shares its value with others.
        if number.abs() >= 9_007_199_254_740_992.0 {
            return Err(E::custom("a number that can't be told from its neighbours"));
        }
        if number.fract() == 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
            let whole = number as i64;
            return Ok(whole.into());
        }
        let number = Number::from_f64(number).ok_or_else(|| E::custom("no number"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Unique(value))) = entries.next_entry::<String, _>()? {
            if all.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> Option<String> {
        read(body.as_bytes()).map(|fields| Value::Object(fields).to_string())
    }

    #[test]
    fn order_and_white_space_make_no_difference() {
        let one = text(r#"{"b":{"y":1,"x":[1,2]},"a":"\u0041"}"#);
        assert_eq!(one, text(" {\"a\" : \"A\",\n\"b\":{\"x\":[1,2],\"y\":1}} "));
        assert!(one.is_some());
        assert_eq!(text(r#"{"a":0.0,"b":2e1}"#), text(r#"{"a":-0.0,"b":20}"#));
        assert_ne!(text(r#"{"a":[1,2]}"#), text(r#"{"a":[2,1]}"#));
        assert_ne!(text(r#"{"a":"1"}"#), text(r#"{"a":1}"#));
    }

    #[test]
    fn what_two_readers_could_take_for_different_things_has_no_form() {
        for odd in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":[{"b":1,"c":2,"b":3}]}"#,
            r#"{"seed":18446744073709551617}"#,
            "[]",
            "{",
            "",
        ] {
            assert_eq!(text(odd), None, "{odd}");
        }
    }
}
