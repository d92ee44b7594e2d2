//! The smallest value that a JSON Schema asks for: arguments of tool calls, structured answers.

use serde_json::{Map, Value, json};

/// Schemas nest and may refer to themselves; deeper than this is `null`.
const MAX_DEPTH: usize = 12;

/// A value with the required properties of `schema` and no others.
pub(super) fn sample(schema: &Value) -> Value {
    sample_in(schema, schema, MAX_DEPTH)
}

fn sample_in(root: &Value, schema: &Value, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else {
        return Value::Null;
    };
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = target.strip_prefix('#').unwrap_or_default();
        return root
            .pointer(pointer)
            .map_or(Value::Null, |s| sample_in(root, s, depth));
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(value) = schema.get("enum").and_then(|e| e.get(0)) {
        return value.clone();
    }
    for union in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(union).and_then(|u| u.get(0)) {
            return sample_in(root, first, depth);
        }
    }
    match type_of(schema) {
        "string" => string(schema),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(1)),
        "boolean" => Value::Bool(true),
        "array" => array(root, schema, depth),
        "null" => Value::Null,
        _ => object(root, schema, depth),
    }
}

/// The schema's type; of several, the first that is not `null`.
fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            let mut names = names.iter().filter_map(Value::as_str);
            names.find(|name| *name != "null").unwrap_or("null")
        }
        _ => "object",
    }
}

fn string(schema: &Value) -> Value {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2026-01-31",
        Some("date-time") => "2026-01-31T12:00:00Z",
        Some("email") => "someone@example.com",
        Some("uri") => "https://example.com/",
        _ => "sample",
    };
    Value::from(text)
}

fn array(root: &Value, schema: &Value, depth: usize) -> Value {
    let item = schema
        .get("items")
        .map_or(json!("sample"), |items| sample_in(root, items, depth));
    Value::Array(vec![item])
}

fn object(root: &Value, schema: &Value, depth: usize) -> Value {
    let required = schema.get("required").and_then(Value::as_array);
    let names = required.into_iter().flatten().filter_map(Value::as_str);
    let property = |name: &str| {
        let schema = schema.get("properties").and_then(|p| p.get(name));
        schema.map_or(json!("sample"), |s| sample_in(root, s, depth))
    };
    Value::Object(
        names
            .map(|name| (name.to_owned(), property(name)))
            .collect::<Map<_, _>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_required_properties_are_there_in_their_types() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": { "type": "string" },
                "unit": { "enum": ["celsius", "fahrenheit"] },
                "days": { "type": ["null", "integer"], "minimum": 3 },
                "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" } },
                "note": { "type": "string" },
            },
            "required": ["city", "unit", "days", "tags"],
            "$defs": { "tag": { "anyOf": [{ "type": "boolean" }, { "type": "null" }] } },
        });
        let expected = json!({ "city": "sample", "unit": "celsius", "days": 3, "tags": [true] });
        assert_eq!(sample(&schema), expected);
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let schema = json!({
            "type": "object", "properties": { "next": { "$ref": "#" } }, "required": ["next"],
        });
        let nested = sample(&schema).to_string();
        assert!(nested.ends_with("null}}}}}}"), "{nested}");
        assert_eq!(sample(&Value::Null), json!({}));
    }
}
