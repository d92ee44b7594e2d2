//! Changes a JSON body by naming spans of it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::super::request::{BodyError, Edit};
use super::super::route::Operation;
use super::{Action, Change, Parameter, TransformError, Why};

/// Most members of a body that rules change: each is noted, and notes are longer than a member can be. No call of
/// the API has as many.
const MAX_MEMBERS: usize = 10_000;

/// Whether a system prompt has a place in this operation.
pub(super) const fn takes_system_prompt(operation: Operation) -> bool {
    matches!(operation, Operation::ChatCompletions | Operation::Responses)
}

/// The changes that `actions` make of a body.
pub(super) fn edits<'r>(
    body: &[u8],
    actions: impl Iterator<Item = &'r Action>,
    operation: Operation,
) -> Result<Vec<Edit>, TransformError> {
    let mut editor = Editor {
        body: Object::parse(body)?,
        operation,
        fields: Vec::new(),
        prompts: Vec::new(),
    };
    for action in actions {
        match action {
            Action::Parameter(parameter, change) => editor.parameter(*parameter, change)?,
            Action::SystemPrompt(text) => editor.system_prompt(text)?,
            Action::Header(..) => {}
        }
    }
    Ok(editor.finish())
}

/// A body's members, and where they stand.
struct Object<'a> {
    text: &'a [u8],
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    key: Cow<'a, str>,
    /// The key's JSON.
    raw_key: &'a RawValue,
    value: &'a RawValue,
}

impl<'a> Object<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, TransformError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let members = json
            .deserialize_map(Members)
            .and_then(|members| json.end().map(|()| members))
            .map_err(|error| TransformError::Body(BodyError::not_json(&error)))?;
        Ok(Self { text, members })
    }

    /// Where a value that was read from this body stands in it.
    fn span(&self, raw: &RawValue) -> Range<usize> {
        let text = raw.get();
        let start = text
            .as_ptr()
            .addr()
            .saturating_sub(self.text.as_ptr().addr());
        start..start + text.len()
    }

    /// Where a first member can be put in: behind the opening brace.
    fn inside(&self) -> usize {
        let brace = self.text.iter().position(|byte| *byte == b'{');
        brace.map_or(0, |at| at + 1)
    }
}

struct Members;

impl<'a> Visitor<'a> for Members {
    type Value = Vec<Member<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = Vec::new();
        while let Some((raw_key, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
            if members.len() == MAX_MEMBERS {
                return Err(M::Error::custom(format_args!(
                    "the body has more than {MAX_MEMBERS} keys at its top; leave out what the API does not know"
                )));
            }
            let key = text_of(raw_key.get()).unwrap_or_default();
            members.push(Member {
                key,
                raw_key,
                value,
            });
        }
        Ok(members)
    }
}

/// A member that a rule is about, as it will be.
struct Field<'a> {
    name: &'static str,
    /// Which member it is; `None`: there was none.
    index: Option<usize>,
    /// Its JSON; `None`: it is not there.
    value: Option<Cow<'a, str>>,
}

struct Editor<'a> {
    body: Object<'a>,
    operation: Operation,
    fields: Vec<Field<'a>>,
    /// Messages that go before the others, JSON.
    prompts: Vec<String>,
}

impl<'a> Editor<'a> {
    /// The field of this name.
    fn field(&mut self, name: &'static str) -> Result<&mut Field<'a>, TransformError> {
        let known = self.fields.iter().position(|field| field.name == name);
        let at = match known {
            Some(at) => at,
            None => {
                let index = self.only(name)?;
                let member = index.and_then(|index| self.body.members.get(index));
                let value = member.map(|member| Cow::Borrowed(member.value.get()));
                self.fields.push(Field { name, index, value });
                self.fields.len() - 1
            }
        };
        // It has just been found or put there.
        self.fields
            .get_mut(at)
            .ok_or_else(|| refused(name, Why::Twice))
    }

    /// Which member has this name.
    fn only(&self, name: &'static str) -> Result<Option<usize>, TransformError> {
        let members = self.body.members.iter().enumerate();
        let mut found = members.filter(|(_, member)| member.key == name);
        let first = found.next().map(|(index, _)| index);
        match found.next() {
            Some(_) => Err(refused(name, Why::Twice)),
            None => Ok(first),
        }
    }

    fn parameter(&mut self, parameter: Parameter, change: &Change) -> Result<(), TransformError> {
        let names = parameter.names(self.operation);
        let mut is_there = false;
        for name in names {
            let field = self.field(name)?;
            if !field.is_said() {
                continue;
            }
            is_there = true;
            match change {
                Change::Default(_) => {}
                Change::Set(value) => field.value = Some(Cow::Owned(value.to_string())),
                Change::AtMost(most) => field.cap(most)?,
                Change::Remove => field.value = None,
                Change::Refuse => return Err(refused(name, Why::NotAllowed)),
            }
        }
        let put_in = match change {
            Change::Default(value) | Change::Set(value) => Some(value.to_string()),
            Change::AtMost(most) => {
                let absent = parameter.absent(self.operation);
                let is_more =
                    absent.is_some_and(|absent| most.as_f64().is_some_and(|m| absent > m));
                is_more.then(|| most.to_string())
            }
            Change::Remove | Change::Refuse => None,
        };
        if let (Some(name), Some(value), false) = (names.first(), put_in, is_there) {
            self.field(name)?.value = Some(Cow::Owned(value));
        }
        Ok(())
    }

    fn system_prompt(&mut self, prompt: &str) -> Result<(), TransformError> {
        match self.operation {
            Operation::ChatCompletions => {
                let message = format!(
                    "{{\"role\":\"system\",\"content\":{}}}",
                    Value::from(prompt)
                );
                self.prompts.push(message);
                // A second list could be the one that the backend reads.
                self.only("messages").map(drop)
            }
            Operation::Responses => {
                let field = self.field("instructions")?;
                let said = field.value.as_deref().filter(|_| field.is_said());
                let Some(said) = said else {
                    field.value = Some(Cow::Owned(Value::from(prompt).to_string()));
                    return Ok(());
                };
                let rest = said.strip_prefix('"');
                let rest = rest.ok_or_else(|| refused("instructions", Why::NoText))?;
                let before = Value::from(format!("{prompt}\n\n")).to_string();
                let before = before.strip_suffix('"').unwrap_or(&before);
                field.value = Some(Cow::Owned(format!("{before}{rest}")));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(self) -> Vec<Edit> {
        let mut edits = Vec::new();
        edits.extend(self.insertion());
        for field in &self.fields {
            let Some((index, member)) = field
                .index
                .and_then(|index| Some((index, self.body.members.get(index)?)))
            else {
                continue;
            };
            match &field.value {
                None => edits.push(self.removal(index, member)),
                Some(value) if value == member.value.get() => {}
                Some(value) => edits.push(Edit {
                    range: self.body.span(member.value),
                    text: value.to_string().into(),
                }),
            }
        }
        edits.extend(self.first_messages());
        edits
    }

    /// All new members as one.
    fn insertion(&self) -> Option<Edit> {
        let new = self.fields.iter().filter(|field| field.index.is_none());
        let new =
            new.filter_map(|field| Some(format!("\"{}\":{}", field.name, field.value.as_ref()?)));
        let mut text = new.collect::<Vec<String>>().join(",");
        if text.is_empty() {
            return None;
        }
        if (0..self.body.members.len()).any(|index| !self.is_removed(index)) {
            text.push(',');
        }
        let at = self.body.inside();
        Some(Edit {
            range: at..at,
            text: text.into(),
        })
    }

    fn is_removed(&self, index: usize) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|field| field.index == Some(index) && field.value.is_none())
    }

    /// Takes a member out, with the comma before it where something stays before it, else with the
    /// one behind it.
    fn removal(&self, index: usize, member: &Member<'_>) -> Edit {
        let own = self.body.span(member.raw_key).start..self.body.span(member.value).end;
        let before = index.checked_sub(1).and_then(|i| self.body.members.get(i));
        let stays_before = (0..index).any(|i| !self.is_removed(i));
        let next = self.body.members.get(index + 1);
        let range = match (before.filter(|_| stays_before), next) {
            (Some(before), _) => self.body.span(before.value).end..own.end,
            (None, Some(next)) => own.start..self.body.span(next.raw_key).start,
            (None, None) => own,
        };
        Edit {
            range,
            text: bytes::Bytes::new(),
        }
    }

    /// Puts the system prompts in. A `messages` that is no list is the backend's to refuse.
    fn first_messages(&self) -> Option<Edit> {
        let mut members = self.body.members.iter();
        let messages = members.find(|member| member.key == "messages")?.value;
        let list = messages.get().strip_prefix('[')?;
        if self.prompts.is_empty() {
            return None;
        }
        let mut text = self.prompts.join(",");
        if list.trim_start() != "]" {
            text.push(',');
        }
        let at = self.body.span(messages).start + 1;
        Some(Edit {
            range: at..at,
            text: text.into(),
        })
    }
}

impl Field<'_> {
    /// Whether it has a value.
    fn is_said(&self) -> bool {
        self.value.as_deref().is_some_and(|value| value != "null")
    }

    fn cap(&mut self, most: &Number) -> Result<(), TransformError> {
        let value = self.value.as_deref().unwrap_or_default();
        let number = serde_json::from_str::<Number>(value).ok();
        let number = number.and_then(|number| number.as_f64());
        let number = number.ok_or_else(|| refused(self.name, Why::NoNumber))?;
        if most.as_f64().is_some_and(|most| number > most) {
            self.value = Some(Cow::Owned(most.to_string()));
        }
        Ok(())
    }
}

fn refused(name: &str, why: Why) -> TransformError {
    TransformError::Refused {
        name: name.to_owned(),
        why,
    }
}

/// The text that a JSON string stands for.
fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}
