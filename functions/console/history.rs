//! The last hour, day or week: what all instances counted, by minute or by hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::capacity::{Capacities, Capacity};
use super::monitored::Monitored;
use super::now::percent;
use super::{Console, off_the_worker};
use crate::gateway::event::Kind;
use crate::gateway::metrics::shard::{Count, Size};
use crate::gateway::metrics::{Rollup, Total};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::store::StoreError;
use crate::store::console::{self, Counted, HOUR_MS, Span};

/// How far back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reach {
    /// An hour, by the minute.
    #[default]
    Hour,
    /// A day, by the hour.
    Day,
    /// A week, by the hour.
    Week,
}

impl Reach {
    pub(super) const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// The word used in URLs and for people.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    const fn ms(self) -> u64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
            Self::Week => 7 * DAY_MS,
        }
    }

    const fn span(self) -> Span {
        match self {
            Self::Hour => Span::Minute,
            Self::Day | Self::Week => Span::Hour,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// How far back.
    #[serde(default)]
    pub(super) reach: Reach,
    /// Only this model; absent or empty: all.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(super) model: String,
}

impl Wish {
    /// What is wrong with it.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        let is_long = self.model.chars().count() > 64;
        is_long.then_some("A model's name has at most 64 characters.")
    }
}

/// The past.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct History {
    /// How far back.
    pub(super) reach: Reach,
    /// The model that it is of; empty: all.
    pub(super) model: String,
    /// Seconds from point to point.
    pub(super) step_s: u64,
    /// Up to this utilization low-priority calls run freely, percent, where they are paced.
    pub(super) lower_percent: Option<u32>,
    /// From this one on none does.
    pub(super) upper_percent: Option<u32>,
    /// The points, oldest first; the last one is not over yet.
    pub(super) points: Vec<Point>,
    /// The same by deployment, all points together.
    pub(super) deployments: Vec<DeploymentPast>,
}

/// A minute or an hour.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Point {
    /// When it began, RFC 3339.
    pub(super) time: String,
    /// Calls, however they ended.
    pub(super) calls: u64,
    /// Those answered with a status below 400.
    pub(super) good: u64,
    /// Those answered with a 4xx but 429.
    pub(super) client_errors: u64,
    /// Those answered with 429.
    pub(super) throttled: u64,
    /// Those answered with a 5xx.
    pub(super) server_errors: u64,
    /// Those whose client left.
    pub(super) client_gone: u64,
    /// Those that a full PTU deployment passed on to pay-as-you-go.
    pub(super) spilled: u64,
    /// Tokens that PTU deployments served.
    pub(super) ptu_tokens: u64,
    /// Tokens that pay-as-you-go deployments served.
    pub(super) payg_tokens: u64,
    /// How full all PTUs were by the weighted tokens that went through this gateway, percent; `null`
    /// where no PTU's capacity is known.
    pub(super) utilization_percent: Option<f64>,
    /// How full they were by Azure Monitor, percent: the mean, by PTUs, of what is known.
    pub(super) monitor_percent: Option<f64>,
    /// The highest that an alert said which was in force, percent.
    pub(super) alert_percent: Option<f64>,
    /// Attempts at PTU deployments that met a 429.
    pub(super) ptu_throttles: u64,
    /// Attempts at pay-as-you-go deployments that met a 429.
    pub(super) payg_throttles: u64,
    /// Median of the time to the first byte, ms.
    pub(super) first_byte_p50_ms: Option<u64>,
    /// The 99th percentile of it.
    pub(super) first_byte_p99_ms: Option<u64>,
}

/// A deployment's past.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeploymentPast {
    /// The backend's name.
    pub(super) backend: String,
    /// The deployment's name there.
    pub(super) deployment: String,
    /// The model that it serves.
    pub(super) model: String,
    /// `ptu` or `payg`.
    pub(super) kind: &'static str,
    /// Attempts at it.
    pub(super) attempts: u64,
    /// Percent of them that met a 429; `null` where there was none.
    pub(super) throttled_percent: Option<f64>,
    /// Percent of them that failed.
    pub(super) failed_percent: Option<f64>,
    /// Tokens that it served.
    pub(super) tokens: u64,
    /// Percent of the prompt tokens that came from the prompt cache.
    pub(super) cached_percent: Option<f64>,
    /// Median of the time to the first byte, ms.
    pub(super) first_byte_p50_ms: Option<u64>,
    /// The 99th percentile of it.
    pub(super) first_byte_p99_ms: Option<u64>,
}

/// Reads the past. Without a store there is none.
///
/// # Errors
/// When the store fails.
pub(super) async fn read(console: &Console, wish: &Wish) -> Result<History, StoreError> {
    let now = console.relay.clock.now();
    let span = wish.reach.span();
    let from = start(now, wish.reach);
    let (counted, monitored) = match &console.store {
        Some(store) => {
            let store = store.as_ref();
            tokio::try_join!(
                console::read(store, span, from, now),
                Monitored::read(console, store, &wish.model, from),
            )?
        }
        None => Default::default(),
    };
    let (wish, capacities) = (wish.clone(), Arc::clone(&console.capacities));
    let made = off_the_worker(move || history(&wish, &counted, &monitored, from, now, &capacities));
    let broken = || StoreError::Unavailable("the past could not be added up".into());
    let mut history = made.await.ok_or_else(broken)?;
    (history.lower_percent, history.upper_percent) = console.limits.unzip();
    Ok(history)
}

/// When the first point begins.
fn start(now: Timestamp, reach: Reach) -> Timestamp {
    let step = reach.span().ms();
    let last = now.unix_ms() - now.unix_ms() % step;
    Timestamp::from_unix_ms((last + step).saturating_sub(reach.ms()))
}

fn history(
    wish: &Wish,
    counted: &[Counted],
    monitored: &Monitored,
    from: Timestamp,
    now: Timestamp,
    capacities: &Capacities,
) -> History {
    let step = wish.reach.span().ms();
    let mut by_start: BTreeMap<Timestamp, Vec<&Rollup>> = BTreeMap::new();
    for one in counted {
        by_start.entry(one.start).or_default().push(&one.rollup);
    }
    let mut points = Vec::new();
    let mut at = from;
    while at <= now {
        let rollups = by_start.get(&at).map(Vec::as_slice).unwrap_or_default();
        // The last one is not over yet.
        let seconds = now.ms_since(at).min(step) / 1000;
        points.push(Point {
            utilization_percent: utilization(rollups, &wish.model, capacities, seconds),
            monitor_percent: monitored.mean(at, at.plus_ms(step)),
            alert_percent: monitored.alert(at, at.plus_ms(step)),
            ..point(at, rollups, &wish.model)
        });
        at = at.plus_ms(step);
    }
    History {
        reach: wish.reach,
        model: wish.model.clone(),
        step_s: step / 1000,
        lower_percent: None,
        upper_percent: None,
        points,
        deployments: deployments(counted, &wish.model),
    }
}

fn point(at: Timestamp, rollups: &[&Rollup], model: &str) -> Point {
    let mut total = Total::none(&Size::ALL);
    for rollup in rollups {
        let models = rollup.models.iter();
        let meant = models.filter(|one| model.is_empty() || *one.model == *model);
        meant.for_each(|one| total.add(&one.total()));
    }
    let model = (!model.is_empty()).then_some(model);
    let sum = |kind, count| -> u64 { rollups.iter().map(|one| one.sum(kind, model, count)).sum() };
    let tokens = |kind| sum(kind, Count::Input).saturating_add(sum(kind, Count::Output));
    Point {
        time: at.rfc3339(),
        calls: total.calls(),
        good: total.get(Count::Good),
        client_errors: total.get(Count::ClientError),
        throttled: total.get(Count::Throttled),
        server_errors: total.get(Count::ServerError),
        client_gone: total.get(Count::ClientGone),
        spilled: total.get(Count::Spilled),
        ptu_tokens: tokens(Kind::Ptu),
        payg_tokens: tokens(Kind::Payg),
        utilization_percent: None,
        monitor_percent: None,
        alert_percent: None,
        ptu_throttles: sum(Kind::Ptu, Count::AttemptThrottled),
        payg_throttles: sum(Kind::Payg, Count::AttemptThrottled),
        first_byte_p50_ms: total.quantile(Size::FirstByte, 50),
        first_byte_p99_ms: total.quantile(Size::FirstByte, 99),
    }
}

/// How full a model's PTUs were together, or all of them.
fn utilization(
    rollups: &[&Rollup],
    model: &str,
    capacities: &Capacities,
    seconds: u64,
) -> Option<f64> {
    let is_meant = |one: &Capacity| model.is_empty() || *one.model == *model;
    let all = capacities.iter().map(|(_, one)| one);
    let per_hour: u64 = all
        .filter(|one| is_meant(one))
        .map(|one| one.per_hour)
        .sum();
    let rolls = rollups.iter().flat_map(|one| &one.deployments);
    let weighted = rolls.filter_map(|roll| {
        let of = capacities.get(&roll.backend, &roll.deployment)?;
        is_meant(of).then(|| of.weighted(|count| roll.get(count)))
    });
    let could = u128::from(per_hour) * u128::from(seconds) / 3600;
    percent(weighted.sum(), u64::try_from(could).unwrap_or(u64::MAX))
}

fn deployments(counted: &[Counted], model: &str) -> Vec<DeploymentPast> {
    let mut sums = BTreeMap::new();
    for roll in counted.iter().flat_map(|one| &one.rollup.deployments) {
        if !model.is_empty() && *roll.model != *model {
            continue;
        }
        let name = (
            &*roll.model,
            roll.kind.as_str(),
            &*roll.backend,
            &*roll.deployment,
        );
        let sum = sums.entry(name).or_insert_with(|| Total::none(&Size::ALL));
        sum.add(&roll.total());
    }
    let pasts = sums
        .into_iter()
        .map(|((model, kind, backend, deployment), total)| {
            let failed = total.get(Count::AttemptFailed) + total.get(Count::AttemptRefused);
            DeploymentPast {
                backend: backend.to_owned(),
                deployment: deployment.to_owned(),
                model: model.to_owned(),
                kind,
                attempts: total.attempts(),
                throttled_percent: percent(total.get(Count::AttemptThrottled), total.attempts()),
                failed_percent: percent(failed, total.attempts()),
                tokens: total.tokens(),
                cached_percent: percent(total.get(Count::Cached), total.get(Count::Input)),
                first_byte_p50_ms: total.quantile(Size::FirstByte, 50),
                first_byte_p99_ms: total.quantile(Size::FirstByte, 99),
            }
        });
    // PTU first.
    let mut pasts: Vec<_> = pasts.collect();
    pasts.sort_by(|a, b| (&a.model, b.kind).cmp(&(&b.model, a.kind)));
    pasts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::console::MINUTE_MS;

    /// 2026-11-23T17:06:30.000Z.
    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    fn counted(minutes_ago: u64, instance: &str) -> Counted {
        let rollup = r#"{
            "d":[{"b":"ptu","d":"x","m":"gpt-4o","k":"ptu","c":[0,0,0,0,0,0,0,5,2,0,0,100,50]},
                 {"b":"payg","d":"y","m":"other","k":"payg","c":[0,0,0,0,0,0,0,1,0,0,0,10]}],
            "m":[{"m":"gpt-4o","c":[5,0,1],"f":[[9,6]]},{"m":"other","c":[1]}]}"#;
        let start = NOW.unix_ms() - NOW.unix_ms() % MINUTE_MS - minutes_ago * MINUTE_MS;
        Counted {
            start: Timestamp::from_unix_ms(start),
            instance: instance.to_owned(),
            rollup: serde_json::from_str(rollup).unwrap(),
        }
    }

    fn hour_of(model: &str) -> History {
        let wish = Wish {
            reach: Reach::Hour,
            model: model.to_owned(),
        };
        let counted = [counted(0, "a"), counted(59, "a"), counted(59, "b")];
        history(
            &wish,
            &counted,
            &Monitored::default(),
            start(NOW, Reach::Hour),
            NOW,
            &Capacities::default(),
        )
    }

    #[test]
    fn an_hour_has_sixty_points_and_sums_its_instances() {
        let history = hour_of("");
        assert_eq!(history.points.len(), 60);
        let (first, last) = (&history.points[0], &history.points[59]);
        assert_eq!(last.time, "2026-11-23T17:06:00.000Z");
        assert_eq!((first.calls, last.calls), (14, 7));
        assert_eq!((last.throttled, last.ptu_throttles), (1, 2));
        assert_eq!((first.ptu_tokens, first.payg_tokens), (300, 20));
        assert_eq!(last.first_byte_p50_ms, Some(19));
        assert_eq!(history.points[1].first_byte_p50_ms, None);
        let kinds = history.deployments.iter().map(|one| one.kind);
        assert_eq!(kinds.collect::<Vec<_>>(), ["ptu", "payg"]);
        assert_eq!(history.deployments[0].attempts, 21);
    }

    #[test]
    fn one_models_past_is_its_own() {
        let history = hour_of("other");
        assert_eq!(
            (history.points[59].calls, history.points[59].ptu_tokens),
            (1, 0)
        );
        assert_eq!(history.deployments.len(), 1);
    }

    #[test]
    fn a_day_and_a_week_go_by_the_hour() {
        for (reach, points) in [(Reach::Day, 24), (Reach::Week, 168)] {
            let wish = Wish {
                reach,
                model: String::new(),
            };
            let none = (Monitored::default(), Capacities::default());
            let history = history(&wish, &[], &none.0, start(NOW, reach), NOW, &none.1);
            assert_eq!(history.points.len(), points);
            assert!(history.points[0].time.ends_with(":00:00.000Z"));
        }
    }
}
