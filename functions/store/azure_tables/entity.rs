//! Rows as entities, the JSON objects of Table Storage, and back.
//!
//! A property that JSON has no type for stands beside its type: `"n": "7"` and
//! `"n@odata.type": "Edm.Int64"`.

use serde_json::{Map, Value};

use crate::store::{Etag, Field, Fields, Key, Row, StoreError};

/// An entity.
pub(super) type Entity = Map<String, Value>;

/// What a property's type is called, after the property's name.
const TYPE: &str = "@odata.type";

/// Properties that every entity has and no row.
const OWN: [&str; 3] = ["PartitionKey", "RowKey", "Timestamp"];

/// The entity of a row.
///
/// # Errors
/// When a field has a name that Table Storage needs itself.
pub(super) fn encode(partition: &str, row: &str, fields: &Fields) -> Result<Entity, StoreError> {
    let mut entity = Entity::new();
    entity.insert("PartitionKey".into(), partition.into());
    entity.insert("RowKey".into(), row.into());
    for (name, field) in fields.iter() {
        if OWN.contains(&name) || name.contains(['@', '.']) {
            return Err(StoreError::Refused(format!(
                "a field can't be called {name:?} in Table Storage"
            )));
        }
        let value = match field {
            Field::Bool(value) => Value::Bool(*value),
            Field::Int(value) => {
                entity.insert(format!("{name}{TYPE}"), "Edm.Int64".into());
                value.to_string().into()
            }
            Field::Text(text) => text.as_str().into(),
        };
        entity.insert(name.to_owned(), value);
    }
    Ok(entity)
}

/// The row of an entity. Its version is `etag`, or what stands in the entity.
///
/// # Errors
/// When it is none that this program wrote: a key is missing, or a property has another type than
/// a field can have.
pub(super) fn decode(mut entity: Entity, etag: Option<String>) -> Result<Row, StoreError> {
    let key = Key {
        partition: take_text(&mut entity, "PartitionKey")?,
        row: take_text(&mut entity, "RowKey")?,
    };
    let etag = match etag {
        Some(etag) => etag,
        None => take_text(&mut entity, "odata.etag")?,
    };
    let mut fields = Vec::with_capacity(entity.len());
    for (name, value) in &entity {
        if OWN.contains(&name.as_str()) || name.contains(['@', '.']) {
            continue;
        }
        let edm = entity.get(&format!("{name}{TYPE}")).and_then(Value::as_str);
        let field = field(value, edm).ok_or_else(|| {
            StoreError::Damaged(format!(
                "the property {name} of row {:?} of {:?} is no field ({})",
                key.row,
                key.partition,
                edm.unwrap_or("without a type")
            ))
        })?;
        fields.push((name.clone(), field));
    }
    Ok(Row {
        key,
        etag: Etag(etag),
        fields: fields.into_iter().collect(),
    })
}

fn field(value: &Value, edm: Option<&str>) -> Option<Field> {
    match (value, edm) {
        (Value::Bool(value), _) => Some(Field::Bool(*value)),
        // Edm.Int32 stands without its type: somebody else's, who wrote 7 and meant a number.
        (Value::Number(number), None | Some("Edm.Int32" | "Edm.Int64")) => {
            number.as_i64().map(Field::Int)
        }
        (Value::String(text), Some("Edm.Int64")) => text.parse().ok().map(Field::Int),
        (Value::String(text), None | Some("Edm.String")) => Some(Field::Text(text.clone())),
        _ => None,
    }
}

fn take_text(entity: &mut Entity, name: &str) -> Result<String, StoreError> {
    match entity.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(StoreError::Damaged(format!("an entity without {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entity(value: Value) -> Entity {
        match value {
            Value::Object(entity) => entity,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_number_stands_as_text_beside_its_type() {
        let fields = Fields::new()
            .number("n", u64::MAX)
            .text("t", "x")
            .flag("f", true);
        let expected = json!({"PartitionKey": "p", "RowKey": "r", "f": true, "t": "x",
            "n": "9223372036854775807", "n@odata.type": "Edm.Int64"});
        assert_eq!(encode("p", "r", &fields).unwrap(), entity(expected));
    }

    #[test]
    fn an_answer_of_the_service_is_read() {
        let answer = json!({"odata.type": "account.chargeback", "odata.id": "https://x",
            "odata.etag": "W/\"e\"", "odata.editLink": "chargeback(...)",
            "PartitionKey": "p", "RowKey": "r", "Timestamp@odata.type": "Edm.DateTime",
            "Timestamp": "2026-11-24T00:00:00Z", "n@odata.type": "Edm.Int64", "n": "-5",
            "small": 7, "text": "x"});
        let row = decode(entity(answer), None).unwrap();
        assert_eq!(
            (row.key.partition.as_str(), row.key.row.as_str()),
            ("p", "r")
        );
        assert_eq!(row.etag, Etag("W/\"e\"".into()));
        let fields: Vec<_> = row.fields.iter().collect();
        let text = Field::Text("x".into());
        assert_eq!(
            fields,
            [
                ("n", &Field::Int(-5)),
                ("small", &Field::Int(7)),
                ("text", &text)
            ]
        );
    }

    #[test]
    fn what_is_no_row_is_damaged_and_named() {
        let with = |name: &str, value: Value| {
            let mut one = entity(json!({"PartitionKey": "p", "RowKey": "r"}));
            one.insert(name.into(), value);
            one
        };
        for (entity, named) in [
            (entity(json!({"PartitionKey": "p"})), "RowKey"),
            (with("x", json!(1.5)), "property x"),
            (with("x", json!({"y": 1})), "property x"),
        ] {
            match decode(entity, Some("e".into())) {
                Err(StoreError::Damaged(why)) => assert!(why.contains(named), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            decode(with("x", json!(1)), None),
            Err(StoreError::Damaged(_))
        ));
    }

    #[test]
    fn names_that_the_service_needs_are_refused() {
        for name in ["RowKey", "Timestamp", "odata.etag", "n@odata.type"] {
            let refused = encode("p", "r", &Fields::new().flag(name, true));
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{name}");
        }
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_went(text in ".{0,20}", n in any::<i64>(), flag: bool) {
            let all = [("t", Field::Text(text)), ("n", Field::Int(n)), ("f", Field::Bool(flag))];
            let all = all.map(|(name, field)| (name.to_owned(), field));
            let fields: Fields = all.into_iter().collect();
            let row = decode(encode("p", "r", &fields).unwrap(), Some("e".into())).unwrap();
            prop_assert_eq!(row.fields, fields);
        }
    }
}
