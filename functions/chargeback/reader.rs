//! Reads an event, whoever wrote it.
//!
//! The relay's are [`UsageEvent`]s. Others may leave out what they don't know, as long as the event
//! names who pays, a moment and tokens, and may write numbers as texts. Known so is the API
//! Management policy that logs to an Event Hub (`log-to-eventhub`): `event-time`, `appid`, `operation`,
//! `model`, `modeltime`, `completion_tokens`, `prompt_tokens`, `total_tokens`, all of them texts.

use std::collections::HashMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Map, Value};
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::Delivered;
use crate::gateway::event::{Kind, Outcome, Tokens, UsageEvent, UsageSource};
use crate::gateway::time::Timestamp;
use crate::store::rejects::digest;

#[cfg(test)]
mod tests;

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

/// A moment written as a number below it is in seconds since the Unix epoch, any other in milliseconds: 10^11
/// milliseconds came before usage was counted, in 1973, and 10^11 seconds are far off, in 5138.
const SECONDS_BELOW: u64 = 100_000_000_000;

/// A smaller number is no moment: in seconds it came before 2001, and it may be a day such as 20261123.
const LEAST_SECONDS: u64 = 1_000_000_000;

/// A greater number is no moment: milliseconds of the year 2286, and it may be written as 20261123170630 or in
/// .NET's ticks.
const MOST_MS: u64 = 10_000_000_000_000;

/// Apps by their Entra application ids, in lower case.
pub(super) type Apps = HashMap<String, Arc<str>>;

/// Reads an event, or says what is wrong with it.
pub(super) fn read(delivered: &Delivered, apps: &Apps) -> Result<UsageEvent, String> {
    let body = delivered.body.as_slice();
    if let Ok(mut event) = serde_json::from_slice::<UsageEvent>(body) {
        // Whoever else writes events of this form may count in seconds.
        event.time = of_number(event.time.unix_ms());
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
        service_tier: fields.word("service_tier").unwrap_or_default(),
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
        let read = named.iter().find_map(|name| moment(&self.text(&[*name])?));
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
                cached_audio: count("cached_audio")?,
                cached_image: count("cached_image")?,
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

/// The moment so many seconds or milliseconds after the Unix epoch ([`SECONDS_BELOW`]).
const fn of_number(number: u64) -> Timestamp {
    let is_seconds = number < SECONDS_BELOW;
    Timestamp::from_unix_ms(if is_seconds { number * 1000 } else { number })
}

/// The moment of a number's digits. Of seconds the fraction counts, as far as it makes milliseconds.
fn numbered(text: &str) -> Option<Timestamp> {
    let number = Decimal::from_str_exact(text).ok()?;
    if number < Decimal::from(LEAST_SECONDS) {
        return None;
    }
    let is_seconds = number < Decimal::from(SECONDS_BELOW);
    let unit = if is_seconds { 1000_u64 } else { 1 };
    let ms = number.checked_mul(unit.into())?.trunc().to_u64()?;
    (ms < MOST_MS).then_some(Timestamp::from_unix_ms(ms))
}

/// A moment as a number, in RFC 3339, or as .NET writes one by itself; without a zone it is UTC's.
fn moment(text: &str) -> Option<Timestamp> {
    let dotnet = || {
        let mut read = DOTNET
            .iter()
            .map(|form| PrimitiveDateTime::parse(text, form));
        let moment = read.find_map(Result::ok)?.assume_utc();
        let ms = moment.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).ok().map(Timestamp::from_unix_ms)
    };
    let written = || Timestamp::parse(text).or_else(dotnet);
    numbered(text).or_else(written)
}
