//! Reads an event, whoever wrote it.
//!
//! The relay's are [`UsageEvent`]s. Others may leave out what they don't know, as long as the event
//! names who pays, a moment and tokens, and may write numbers as texts. Known so is the API
//! Management policy that logs to an Event Hub (`log-to-eventhub`): `event-time`, `appid`, `operation`,
//! `model`, `modeltime`, `completion_tokens`, `prompt_tokens`, `total_tokens`, all of them texts.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::Delivered;
use crate::gateway::event::{Kind, Outcome, Tokens, UsageEvent, UsageSource};
use crate::gateway::time::Timestamp;
use crate::store::rejects::digest;

/// Longest name of an app, a model, a backend or a deployment, as in the configuration.
const MAX_NAME: usize = 64;

/// Longest id.
const MAX_ID: usize = 128;

/// Most attempts of an event, as many as a call may have and that of a spillover.
const MAX_ATTEMPTS: usize = 33;

/// How .NET writes a moment without being asked for a form (`DateTime.UtcNow.ToString()`), in its
/// invariant culture and in that of the United States: month, day, year.
const DOTNET: [&[BorrowedFormatItem<'_>]; 2] = [
    format_description!(
        "[month padding:none]/[day padding:none]/[year] [hour padding:none]:[minute]:[second]"
    ),
    format_description!(
        "[month padding:none]/[day padding:none]/[year] [hour padding:none repr:12]:[minute]:[second] [period]"
    ),
];

/// Apps by their Entra application ids, in lower case.
pub(super) type Apps = HashMap<String, Arc<str>>;

/// Reads an event, or says what is wrong with it.
pub(super) fn read(delivered: &Delivered, apps: &Apps) -> Result<UsageEvent, String> {
    let body = delivered.body.as_slice();
    if let Ok(event) = serde_json::from_slice::<UsageEvent>(body) {
        return checked(event);
    }
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("it is no JSON: {error}"))?;
    let Value::Object(map) = value else {
        return Err("it is no JSON object".into());
    };
    let fields = Fields(map);
    let tokens = fields.tokens()?;
    let id = match fields.text(&["id"]) {
        Some(id) => id,
        None if delivered.place.is_empty() => digest(&[body]),
        None => digest(&[delivered.place.as_bytes(), body]),
    };
    let status = fields.count("status")?.unwrap_or(200);
    let usage = if fields.text(&["usage"]).as_deref() == Some("estimated") {
        UsageSource::Estimated
    } else {
        UsageSource::Reported
    };
    checked(UsageEvent {
        id,
        time: fields.time(delivered)?,
        app: fields.app(apps)?,
        user: fields.name("user"),
        subject: fields.name("subject"),
        priority: fields.word("priority").unwrap_or_default(),
        model: fields.name("model"),
        operation: fields.text(&["operation"]).unwrap_or_default(),
        backend: fields.name("backend"),
        deployment: fields.name("deployment"),
        kind: fields.kind()?,
        region: fields.name("region"),
        status: u16::try_from(status).map_err(|_| "`status` is no HTTP status")?,
        streamed: fields.word("streamed").unwrap_or_default(),
        spilled: fields.word("spilled").unwrap_or_default(),
        outcome: fields.word("outcome").unwrap_or(Outcome::Completed),
        tokens,
        usage,
        first_byte_ms: fields.count("first_byte_ms")?.unwrap_or(0),
        total_ms: fields
            .count("total_ms")?
            .unwrap_or_else(|| fields.model_time()),
        attempts: fields.word("attempts").unwrap_or_default(),
        trace_id: fields.text(&["trace_id"]).unwrap_or_default(),
        parent: None,
        prompt_log: String::new(),
        cache: None,
        saving: None,
    })
}

/// An event within its bounds. What the store can't take is found out there.
fn checked(event: UsageEvent) -> Result<UsageEvent, String> {
    let names = [
        ("app", &*event.app, MAX_NAME),
        ("model", &*event.model, MAX_NAME),
        ("backend", &*event.backend, MAX_NAME),
        ("deployment", &*event.deployment, MAX_NAME),
        ("region", &*event.region, MAX_NAME),
        ("trace_id", &*event.trace_id, MAX_NAME),
        ("id", &*event.id, MAX_ID),
        ("prompt_log", &*event.prompt_log, 4 * MAX_ID),
    ];
    let tries = event.attempts.iter().flat_map(|attempt| {
        [
            ("attempts.backend", &*attempt.backend, MAX_NAME),
            ("attempts.deployment", &*attempt.deployment, MAX_NAME),
        ]
    });
    for (name, value, most) in names.into_iter().chain(tries) {
        if value.chars().count() > most {
            return Err(format!("`{name}` has more than {most} characters"));
        }
    }
    if event.id.trim().is_empty() || event.app.trim().is_empty() {
        return Err("`id` or `app` is empty".into());
    }
    if event.attempts.len() > MAX_ATTEMPTS {
        return Err(format!("it has more than {MAX_ATTEMPTS} attempts"));
    }
    Ok(event)
}

struct Fields(Map<String, Value>);

impl Fields {
    /// The first of these that is a text, or a number, and not empty.
    fn text(&self, names: &[&str]) -> Option<String> {
        let texts = names.iter().filter_map(|name| match self.0.get(*name)? {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        texts.into_iter().find(|text| !text.is_empty())
    }

    fn name(&self, name: &str) -> Arc<str> {
        self.text(&[name]).unwrap_or_default().into()
    }

    /// A value of a type of ours; `None` where it is another.
    fn word<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.0.get(name)?).ok()
    }

    /// A whole number, which may be written as a text; `None` where there is none.
    fn count(&self, name: &str) -> Result<Option<u64>, String> {
        count(&self.0, name)
    }

    /// `openai-processing-ms`, for the log only: whatever is no number of milliseconds is 0.
    fn model_time(&self) -> u64 {
        let text = self.text(&["modeltime"]).unwrap_or_default();
        let whole = text.split('.').next().unwrap_or_default();
        whole.parse().unwrap_or(0)
    }

    fn kind(&self) -> Result<Option<Kind>, String> {
        match self.text(&["kind"]).as_deref() {
            None => Ok(None),
            Some("ptu") => Ok(Some(Kind::Ptu)),
            Some("payg") => Ok(Some(Kind::Payg)),
            Some(_) => Err("`kind` is neither `ptu` nor `payg`".into()),
        }
    }

    /// Who pays: the configuration's app with that Entra application id, else as it is named.
    fn app(&self, apps: &Apps) -> Result<Arc<str>, String> {
        let id = self.text(&["appid", "app"]);
        let id = id.ok_or("it says neither `app` nor `appid`: nobody would pay")?;
        let known = apps.get(&id.to_ascii_lowercase());
        Ok(known.map_or_else(|| id.into(), Arc::clone))
    }

    fn time(&self, delivered: &Delivered) -> Result<Timestamp, String> {
        let named = ["time", "event-time"];
        if let Some(ms) = named.iter().find_map(|name| self.0.get(*name)?.as_u64()) {
            return Ok(Timestamp::from_unix_ms(ms));
        }
        let text = self.text(&named);
        let read = text.as_deref().and_then(moment);
        read.or(delivered.enqueued)
            .ok_or_else(|| "it has no `time` that can be read, and the hub's is not known".into())
    }

    fn tokens(&self) -> Result<Tokens, String> {
        if let Some(Value::Object(tokens)) = self.0.get("tokens") {
            let count = |name| count(tokens, name).map(Option::unwrap_or_default);
            return Ok(Tokens {
                input: count("input")?,
                output: count("output")?,
                cached: count("cached")?,
                reasoning: count("reasoning")?,
                audio_input: count("audio_input")?,
                audio_output: count("audio_output")?,
                image_input: count("image_input")?,
            });
        }
        let [input, output, total] =
            ["prompt_tokens", "completion_tokens", "total_tokens"].map(|name| self.count(name));
        let (input, output, total) = (input?, output?, total?);
        if input.or(output).or(total).is_none() {
            return Err("it has no tokens: neither `tokens` nor `prompt_tokens`, `completion_tokens`, `total_tokens`".into());
        }
        let output = output.unwrap_or(0);
        let rest = total.unwrap_or(0).saturating_sub(output);
        Ok(Tokens {
            input: input.unwrap_or(rest),
            output,
            ..Tokens::default()
        })
    }
}

fn count(map: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    let number = match map.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_u64(),
    };
    let number = number.ok_or_else(|| format!("`{name}` is no whole number"))?;
    Ok(Some(number))
}

/// A moment in RFC 3339, or as .NET writes one by itself; without a zone it is UTC's.
fn moment(text: &str) -> Option<Timestamp> {
    let dotnet = || {
        let mut read = DOTNET
            .iter()
            .map(|form| PrimitiveDateTime::parse(text, form));
        let moment = read.find_map(Result::ok)?.assume_utc();
        let ms = moment.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).ok().map(Timestamp::from_unix_ms)
    };
    Timestamp::parse(text).or_else(dotnet)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn try_read(value: &Value) -> Result<UsageEvent, String> {
        let delivered = Delivered {
            body: value.to_string().into(),
            place: "hub|0|7".into(),
            enqueued: Some(Timestamp::from_unix_ms(5)),
        };
        let apps = [("0f8f-ab".to_owned(), "portal".into())].into();
        read(&delivered, &apps)
    }

    fn policy() -> Value {
        json!({"event-time": "11/23/2026 5:06:30 PM", "appid": "0F8F-AB",
            "operation": "chat.completion", "model": "gpt-35-turbo", "modeltime": "412.5",
            "completion_tokens": "6", "prompt_tokens": "14", "total_tokens": "20"})
    }

    #[test]
    fn the_api_management_policys_events_are_read() {
        let read = try_read(&policy()).unwrap();
        assert_eq!((&*read.app, &*read.model), ("portal", "gpt-35-turbo"));
        assert_eq!((read.tokens.input, read.tokens.output), (14, 6));
        assert_eq!((read.total_ms, read.status), (412, 200));
        assert_eq!(read.time.rfc3339(), "2026-11-23T17:06:30.000Z");
        assert_eq!(
            (read.usage, read.outcome),
            (UsageSource::Reported, Outcome::Completed)
        );
    }

    #[test]
    fn moments_are_read_in_the_forms_that_dotnet_writes() {
        for text in [
            "11/23/2026 17:06:30",
            "11/23/2026 5:06:30 PM",
            "2026-11-23T17:06:30Z",
        ] {
            let read = moment(text).map(Timestamp::rfc3339);
            assert_eq!(read.as_deref(), Some("2026-11-23T17:06:30.000Z"), "{text}");
        }
        let mut event = policy();
        event["event-time"] = "23. November".into();
        assert_eq!(try_read(&event).unwrap().time.unix_ms(), 5, "the hub's");
    }

    #[test]
    fn an_event_without_an_id_has_the_same_one_whenever_it_is_delivered() {
        let ids = [policy(), policy()].map(|event| try_read(&event).unwrap().id);
        assert_eq!(ids[0], ids[1]);
        let elsewhere = Delivered {
            body: policy().to_string().into(),
            place: "hub|0|8".into(),
            enqueued: None,
        };
        let other = read(&elsewhere, &Apps::new());
        assert_ne!(
            other.unwrap().id,
            ids[0],
            "the same call again is another event"
        );
    }

    #[test]
    fn the_relays_events_come_back_as_they_went() {
        let event = UsageEvent {
            id: "01J".into(),
            app: "portal".into(),
            kind: Some(Kind::Ptu),
            ..UsageEvent::default()
        };
        assert_eq!(try_read(&serde_json::to_value(&event).unwrap()), Ok(event));
    }

    #[test]
    fn what_is_no_event_is_said() {
        let with = |name: &str, value: Value| {
            let mut event = policy();
            event[name] = value;
            event
        };
        for (event, said) in [
            (json!([1]), "no JSON object"),
            (json!({"id": "e3"}), "no tokens"),
            (json!({"id": "e1", "tokens": 12}), "no tokens"),
            (json!({"prompt_tokens": 1}), "nobody would pay"),
            (with("prompt_tokens", "many".into()), "`prompt_tokens`"),
            (
                with("completion_tokens", (-1).into()),
                "`completion_tokens`",
            ),
            (with("appid", "".into()), "nobody would pay"),
            (with("model", "x".repeat(65).into()), "`model`"),
            (with("id", "x".repeat(129).into()), "`id`"),
            (with("kind", "batch".into()), "`kind`"),
            (with("status", 70_000.into()), "`status`"),
            (
                with(
                    "attempts",
                    json!([{"backend": "x".repeat(65), "deployment": "d", "kind": "ptu", "ms": 1, "billed": true}]),
                ),
                "`attempts.backend`",
            ),
        ] {
            let why = try_read(&event).unwrap_err();
            assert!(why.contains(said), "{event}: {why}");
        }
        let none = Delivered {
            body: vec![0xFF],
            ..Delivered::default()
        };
        assert!(read(&none, &Apps::new()).unwrap_err().contains("no JSON"));
    }
}
