//! What holds for any sequence of calls.

use std::collections::VecDeque;

use super::super::meter::Meter;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Call(u64),
    /// Settles the oldest call with this share of its estimate, in percent; it may be above 100.
    Settle(u64),
    Share(u32),
}

fn step(most_percent: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u64..20_000).prop_map(Step::Wait),
        4 => (0u64..60).prop_map(Step::Call),
        3 => (0..=most_percent).prop_map(Step::Settle),
    ]
}

fn step_with_shares() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => step(300),
        1 => (0u32..=1_000_000).prop_map(Step::Share),
    ]
}

/// A call as it was admitted: when, at what estimate, and what it used.
#[derive(Clone, Copy, Debug)]
struct Past {
    at: Timestamp,
    estimate: u64,
    used: u64,
}

/// Plays the steps against a limit of 100 tokens a minute. Calls that are never settled used their
/// estimate.
fn play(steps: Vec<Step>) -> (Vec<Past>, Timestamp) {
    let limits = limits(tokens(100));
    let id = LimitId::app(&"portal".into());
    let mut now = at(0);
    let mut past: Vec<Past> = Vec::new();
    let mut open = VecDeque::new();
    for step in steps {
        match step {
            Step::Wait(ms) => now = now.plus_ms(ms),
            Step::Share(share) => limits.set_share(&id, share.into(), now),
            Step::Call(estimate) => {
                if let Ok(admitted) = limits.admit("gpt-4o", estimate, now) {
                    open.push_back((past.len(), admitted.reservation));
                    past.push(Past {
                        at: now,
                        estimate,
                        used: estimate,
                    });
                }
            }
            Step::Settle(percent) => {
                if let Some((index, reservation)) = open.pop_front() {
                    past[index].used = past[index].estimate * percent / 100;
                    reservation.settle(past[index].used, now);
                }
            }
        }
    }
    (past, now)
}

proptest! {
    /// The bound that the module states: the limit, and the last call's size less one.
    #[test]
    fn no_minute_has_more_than_the_limit_and_the_last_call(
        steps in proptest::collection::vec(step(100), 1..200)
    ) {
        let (past, _) = play(steps);
        for (first, start) in past.iter().enumerate() {
            let minute: Vec<_> = past[first..]
                .iter()
                .take_while(|call| call.at.ms_since(start.at) < 60_000)
                .collect();
            let before_last: u64 = minute[..minute.len() - 1].iter().map(|call| call.used).sum();
            prop_assert!(before_last < 100 || minute.len() == 1, "{before_last}");
        }
    }

    /// However far off the estimates are, and however late that is known: what is over is paid
    /// before more is admitted.
    #[test]
    fn in_the_long_run_no_more_is_used_than_the_limit(
        steps in proptest::collection::vec(step(1_000), 1..300)
    ) {
        let limits = limits(tokens(100));
        let mut now = at(0);
        let mut used = 0;
        let mut open = VecDeque::new();
        for step in steps {
            match step {
                Step::Wait(ms) => now = now.plus_ms(ms),
                Step::Share(_) => {}
                Step::Call(estimate) => {
                    if let Ok(admitted) = limits.admit("gpt-4o", estimate, now) {
                        let since_start = 100 + now.ms_since(at(0)) * 100 / 60_000;
                        prop_assert!(used <= since_start, "{used} of {since_start}");
                        used += estimate;
                        open.push_back(admitted.reservation);
                    }
                }
                Step::Settle(percent) => {
                    if let Some(reservation) = open.pop_front() {
                        let actual = reservation.estimate() * percent / 100;
                        used = used - reservation.estimate() + actual;
                        reservation.settle(actual, now);
                    }
                }
            }
        }
    }

    #[test]
    fn a_retry_is_admitted_when_it_was_told_and_not_a_millisecond_earlier(
        steps in proptest::collection::vec(step_with_shares(), 1..100),
        model_limit in 1u64..20,
    ) {
        let allowance = Allowance { requests_per_minute: Some(15), ..tokens(100) };
        let models = [("gpt-4o".into(), requests(model_limit))];
        let limits = AppLimits::new("portal".into(), allowance, models, at(0)).unwrap();
        let limits = Arc::new(limits);
        let id = LimitId::app(&"portal".into());
        let mut now = at(0);
        let mut open = VecDeque::new();
        for step in steps {
            match step {
                Step::Wait(ms) => now = now.plus_ms(ms),
                Step::Share(share) => limits.set_share(&id, share.into(), now),
                Step::Call(estimate) => match limits.admit("gpt-4o", estimate, now) {
                    Ok(admitted) => open.push_back(admitted.reservation),
                    Err(refused) => {
                        prop_assert!(refused.retry_after_ms >= 1);
                        let early = now.plus_ms(refused.retry_after_ms - 1);
                        prop_assert!(limits.admit("gpt-4o", estimate, early).is_err());
                        now = now.plus_ms(refused.retry_after_ms);
                        let retried = limits.admit("gpt-4o", estimate, now);
                        prop_assert!(retried.is_ok());
                        open.extend(retried.map(|admitted| admitted.reservation));
                    }
                },
                Step::Settle(percent) => {
                    if let Some(reservation) = open.pop_front() {
                        let used = reservation.estimate() * percent / 100;
                        reservation.settle(used, now);
                    }
                }
            }
        }
    }

    /// A client that is told of room is admitted, one that is told of none is not.
    #[test]
    fn there_is_room_as_long_as_any_remains(
        steps in proptest::collection::vec(step_with_shares(), 1..100)
    ) {
        let limits = limits(tokens(100));
        let id = LimitId::app(&"portal".into());
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Wait(ms) => now = now.plus_ms(ms),
                Step::Share(share) => limits.set_share(&id, share.into(), now),
                Step::Call(estimate) | Step::Settle(estimate) => {
                    let standing = match limits.admit("gpt-4o", estimate, now) {
                        Ok(admitted) => admitted.standing,
                        Err(refused) => refused.standing,
                    };
                    let remaining = standing.tokens.unwrap().remaining;
                    prop_assert!(remaining <= 100);
                    let next = limits.admit("gpt-4o", 0, now);
                    prop_assert_eq!(next.is_ok(), remaining > 0);
                }
            }
        }
    }

    #[test]
    fn a_limit_is_whole_again_when_its_reset_says(
        charges in proptest::collection::vec((0u64..30_000, 0u64..80), 1..12),
        share in 1u32..=1_000_000,
    ) {
        let mut now = at(0);
        let mut meter = Meter::new(100, now);
        meter.set_share(share.into());
        for (wait, amount) in charges {
            now = now.plus_ms(wait);
            meter.advance(now);
            meter.charge(amount);
            let whole = now.plus_ms(meter.reading(now).reset_ms);
            let mut later = meter.clone();
            later.advance(whole);
            prop_assert_eq!(later.reading(whole), Reading { limit: 100, remaining: 100, reset_ms: 0 });
        }
    }

    #[test]
    fn time_that_passes_in_steps_is_the_same_as_at_once(
        charges in proptest::collection::vec((0u64..40_000, 0u64..80), 1..12),
        steps in proptest::collection::vec(0u64..30_000, 1..12),
    ) {
        let mut now = at(0);
        let mut meter = Meter::new(100, now);
        for (wait, amount) in charges {
            now = now.plus_ms(wait);
            meter.advance(now);
            meter.charge(amount);
        }
        let mut stepwise = meter.clone();
        for ms in steps {
            now = now.plus_ms(ms);
            stepwise.advance(now);
        }
        meter.advance(now);
        prop_assert_eq!(meter, stepwise);
    }
}
