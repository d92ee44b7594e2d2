//! What Azure said in the past of how full provisioned deployments were: Monitor's figures and alerts.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::Console;
use super::now::{as_f64, rounded};
use crate::gateway::pacing::window::{DeploymentId, Minute};
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;
use crate::store::utilization::{self, Alert, hours};
use crate::store::{Store, StoreError};

/// What is known of some deployments.
#[derive(Debug, Default)]
pub(super) struct Monitored(Vec<One>);

/// What is known of one.
#[derive(Debug, Default)]
struct One {
    /// How much it counts beside the others: its PTUs; 1 where their number is not known.
    weight: u64,
    /// In order.
    minutes: Vec<(Minute, Utilization)>,
    alerts: Vec<Alert>,
}

impl Monitored {
    /// Reads what is known from `from` on of a model's deployments; of all for an empty name.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn read(
        console: &Console,
        store: &dyn Store,
        model: &str,
        from: Timestamp,
    ) -> Result<Self, StoreError> {
        let all = console.capacities.iter();
        let meant = all.filter(|(_, one)| model.is_empty() || *one.model == *model);
        let reads = meant.map(|((backend, deployment), capacity)| {
            let id = DeploymentId {
                backend: Arc::clone(backend),
                deployment: Arc::clone(deployment),
            };
            let weight = u64::from(capacity.ptus.max(1));
            async move {
                Ok::<_, StoreError>(One {
                    weight,
                    minutes: hours::read(store, &id, from).await?,
                    alerts: utilization::alerts(store, &id).await?,
                })
            }
        });
        Ok(Self(try_join_all(reads).await?))
    }

    /// The mean of what Monitor said of a time, by PTUs, percent; `None` where it said nothing.
    pub(super) fn mean(&self, from: Timestamp, until: Timestamp) -> Option<f64> {
        let (mut sum, mut weights) = (0, 0);
        for one in &self.0 {
            let begin = one
                .minutes
                .partition_point(|(minute, _)| minute.start() < from);
            let known = one.minutes.iter().skip(begin);
            let known = known.take_while(|(minute, _)| minute.start() < until);
            let (tenths, count) = known.fold((0, 0), |(tenths, count), (_, of)| {
                (tenths + of.tenths(), count + 1)
            });
            if let Some(mean) = (tenths * one.weight).checked_div(count) {
                sum += mean;
                weights += one.weight;
            }
        }
        (weights > 0).then(|| rounded(as_f64(sum) / as_f64(weights) / 10.0))
    }

    /// The highest that an alert said which was in force in a time, percent.
    pub(super) fn alert(&self, from: Timestamp, until: Timestamp) -> Option<f64> {
        let alerts = self.0.iter().flat_map(|one| &one.alerts);
        let in_force = alerts.filter(|alert| alert.fired < until && alert.expires > from);
        let highest = in_force.map(|alert| alert.utilization).max();
        highest.map(super::pacing::percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T17:00:00.000Z.
    const START: Timestamp = Timestamp::from_unix_ms(1_795_453_200_000);

    fn at(minutes: u64) -> Timestamp {
        START.plus_ms(minutes * 60_000)
    }

    fn one(weight: u64, percents: &[(u64, u64)]) -> One {
        let minutes = percents.iter();
        One {
            weight,
            minutes: minutes
                .map(|(minute, percent)| {
                    (Minute::of(at(*minute)), Utilization::of_percent(*percent))
                })
                .collect(),
            alerts: Vec::new(),
        }
    }

    #[test]
    fn larger_deployments_count_for_more_and_what_is_not_known_for_nothing() {
        let all = Monitored(vec![
            one(300, &[(0, 40), (1, 60), (5, 99)]),
            one(100, &[(0, 90)]),
            one(500, &[]),
        ]);
        assert_eq!(all.mean(at(0), at(2)), Some(60.0));
        assert_eq!(all.mean(at(1), at(2)), Some(60.0));
        assert_eq!(all.mean(at(0), at(1)), Some(52.5));
        assert_eq!(all.mean(at(2), at(5)), None);
    }

    #[test]
    fn an_alert_is_in_force_from_when_it_fired_to_its_end() {
        let alert = |percent, fired, expires| Alert {
            id: String::new(),
            utilization: Utilization::of_percent(percent),
            fired: at(fired),
            expires: at(expires),
            is_over: true,
        };
        let mut of = one(1, &[]);
        of.alerts = vec![alert(91, 10, 20), alert(97, 15, 18)];
        let all = Monitored(vec![of]);
        let told = |from, until| all.alert(at(from), at(until));
        assert_eq!((told(0, 10), told(9, 11)), (None, Some(91.0)));
        assert_eq!((told(0, 60), told(18, 19)), (Some(97.0), Some(91.0)));
        assert_eq!(told(20, 30), None);
    }
}
