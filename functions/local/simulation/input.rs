//! What chat and responses requests have in common: content, tools, formats, number ranges.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::errors::WireError;
use super::tokens::{IMAGE_TOKENS, Prompt};

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tool {
    pub(super) name: String,
    /// JSON Schema of the arguments.
    pub(super) parameters: Value,
}

/// Which tool the model has to call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ToolChoice {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
}

/// The form that the answer has to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum ResponseFormat {
    #[default]
    Text,
    JsonObject,
    JsonSchema(Value),
}

/// Reads a request body.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WireError> {
    serde_json::from_slice(body).map_err(|error| WireError::unreadable(&error))
}

/// The tools of a request: `{"type":"function","function":{"name",...}}` as chat has them, or
/// `{"type":"function","name",...}` as responses have them. Tools of other types are not simulated.
pub(super) fn tools(list: &[Value]) -> Vec<Tool> {
    let functions = list.iter().filter_map(|tool| {
        let function = tool.get("function").unwrap_or(tool);
        let name = function.get("name")?.as_str()?.to_owned();
        let parameters = function.get("parameters").cloned().unwrap_or_default();
        Some(Tool { name, parameters })
    });
    functions.collect()
}

/// Reads `tool_choice`, in either API's form.
pub(super) fn tool_choice(choice: Option<&Value>) -> ToolChoice {
    match choice {
        Some(Value::String(word)) if word == "none" => ToolChoice::None,
        Some(Value::String(word)) if word == "required" => ToolChoice::Required,
        Some(choice) => {
            let name = choice.get("function").unwrap_or(choice).get("name");
            let named = |name: &str| ToolChoice::Named(name.to_owned());
            name.and_then(Value::as_str).map_or(ToolChoice::Auto, named)
        }
        None => ToolChoice::Auto,
    }
}

/// Reads `response_format` (chat) or `text.format` (responses).
pub(super) fn response_format(format: Option<&Value>) -> ResponseFormat {
    let Some(format) = format else {
        return ResponseFormat::Text;
    };
    match format.get("type").and_then(Value::as_str) {
        Some("json_object") => ResponseFormat::JsonObject,
        Some("json_schema") => {
            let holder = format.get("json_schema").unwrap_or(format);
            ResponseFormat::JsonSchema(holder.get("schema").cloned().unwrap_or_default())
        }
        _ => ResponseFormat::Text,
    }
}

/// Adds a message's content to the prompt: a string, or parts with text or an image. It is read
/// in place, as parts may hold megabytes of picture.
pub(super) fn add_content(
    prompt: &mut Prompt,
    content: Option<&RawValue>,
    param: &str,
) -> Result<(), WireError> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(rename = "type")]
        kind: String,
        #[serde(borrow)]
        text: Option<std::borrow::Cow<'a, str>>,
    }

    let Some(content) = content.map(RawValue::get) else {
        return Ok(());
    };
    if content == "null" {
        return Ok(());
    }
    if content.starts_with('"') {
        let text: std::borrow::Cow<'_, str> = parse(content.as_bytes())?;
        prompt.add(&text);
        return Ok(());
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(content).map_err(|_| {
        let message =
            format!("Invalid type for '{param}': expected a string or an array of objects.");
        WireError::invalid_coded(param, &message, &Value::from("invalid_type"))
    })?;
    for part in parts {
        match part.text {
            Some(text) => prompt.add(&text),
            None if part.kind.contains("image") => prompt.add_tokens(IMAGE_TOKENS),
            None => {}
        }
    }
    Ok(())
}

/// Checks that a number, if given, is in its range.
pub(super) fn in_range<T: PartialOrd + std::fmt::Display>(
    param: &str,
    value: Option<T>,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), WireError> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (from, to) = (range.start(), range.end());
            let message = format!(
                "Invalid '{param}': expected a value from {from} to {to}, but got {value} instead."
            );
            Err(WireError::invalid(param, &message))
        }
        _ => Ok(()),
    }
}
