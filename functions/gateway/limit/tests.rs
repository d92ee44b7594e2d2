use proptest::prelude::*;

use super::*;

mod properties;

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000_000 + ms)
}

pub(super) fn tokens(tokens_per_minute: u64) -> Allowance {
    Allowance {
        tokens_per_minute: Some(tokens_per_minute),
        ..Allowance::default()
    }
}

pub(super) fn requests(requests_per_minute: u64) -> Allowance {
    Allowance {
        requests_per_minute: Some(requests_per_minute),
        ..Allowance::default()
    }
}

pub(super) fn limits(allowance: Allowance) -> Arc<AppLimits> {
    Arc::new(AppLimits::new("portal".into(), allowance, [], at(0)).unwrap())
}

/// Admits a call and settles it as estimated.
pub(super) fn call(limits: &Arc<AppLimits>, estimate: u64, now: Timestamp) -> Result<(), Refused> {
    let admitted = limits.admit("gpt-4o", estimate, now)?;
    admitted.reservation.settle(estimate, now);
    Ok(())
}

fn remaining_tokens(limits: &Arc<AppLimits>, now: Timestamp) -> u64 {
    let standing = match limits.admit("gpt-4o", 0, now) {
        Ok(admitted) => admitted.standing,
        Err(refused) => refused.standing,
    };
    standing.tokens.unwrap().remaining
}

#[test]
fn a_quiet_app_may_use_its_whole_minute_at_once_and_no_more() {
    let limits = limits(tokens(100));
    for _ in 0..10 {
        call(&limits, 10, at(500)).unwrap();
    }
    let refused = call(&limits, 10, at(900)).unwrap_err();
    let limit = Limit {
        sort: Sort::Tokens,
        is_models: false,
        allowed: 100,
    };
    assert_eq!(refused.limit, limit);
    assert_eq!(limit.sort.as_str(), "tokens a minute");
    // The second 0 leaves the window when the second 61 begins.
    assert_eq!(refused.retry_after_ms, 60_100);
    assert!(call(&limits, 10, at(60_999)).is_err());
    assert!(call(&limits, 10, at(61_000)).is_ok());
}

#[test]
fn an_app_at_its_limit_is_spread_over_the_minute_after_its_first_burst() {
    let limits = limits(requests(600));
    let mut by_second = [0u64; 300];
    for ms in 0..300_000 {
        if call(&limits, 0, at(ms)).is_ok() {
            by_second[usize::try_from(ms / 1000).unwrap()] += 1;
        }
    }
    assert_eq!(by_second[0], 600);
    assert_eq!(by_second[1..61].iter().sum::<u64>(), 0);
    // A window alone would have 600 at 61 s and at 122 s again. Here 10 a second, and the first
    // time the 6 more that leaked while the burst came.
    assert!(by_second[61] <= 17, "{}", by_second[61]);
    assert!(by_second[62..].iter().all(|calls| *calls <= 11));
    let rest: u64 = by_second[61..].iter().sum();
    assert!(rest >= 239 * 10 * 98 / 100, "{rest} in 239 s");
}

#[test]
fn the_last_call_may_go_beyond_the_limit_and_later_ones_wait_for_it() {
    let limits = limits(tokens(60));
    call(&limits, 59, at(0)).unwrap();
    call(&limits, 61, at(0)).unwrap();
    // 120 used; after 61 s the window is empty, but the bucket has to leak 60 and a bit.
    let refused = call(&limits, 1, at(0)).unwrap_err();
    assert_eq!(refused.retry_after_ms, 61_000);
    let limits = self::limits(tokens(60));
    let admitted = limits.admit("gpt-4o", 1, at(0)).unwrap();
    admitted.reservation.settle(300, at(2_000));
    let refused = call(&limits, 1, at(2_000)).unwrap_err();
    // Five minutes' tokens, of which one has leaked: four minutes' worth is too much.
    assert_eq!(refused.retry_after_ms, 239_001);
}

#[test]
fn what_was_estimated_too_high_is_given_back() {
    let limits = limits(tokens(1_000));
    let admitted = limits.admit("gpt-4o", 900, at(0)).unwrap();
    assert_eq!(admitted.standing.tokens.unwrap().remaining, 100);
    assert_eq!(admitted.reservation.estimate(), 900);
    admitted.reservation.settle(150, at(4_000));
    assert_eq!(remaining_tokens(&limits, at(4_000)), 850);
}

#[test]
fn what_has_left_the_minute_is_not_given_back_from_a_later_call() {
    let limits = limits(tokens(100));
    let admitted = limits.admit("gpt-4o", 50, at(0)).unwrap();
    call(&limits, 60, at(61_000)).unwrap();
    admitted.reservation.settle(0, at(61_500));
    assert_eq!(remaining_tokens(&limits, at(61_500)), 40);
}

#[test]
fn a_debt_stays_when_the_share_becomes_smaller() {
    let limits = limits(tokens(60));
    let admitted = limits.admit("gpt-4o", 1, at(0)).unwrap();
    admitted.reservation.settle(300, at(0));
    limits.set_share(&LimitId::app(&"portal".into()), Share::from(500_000), at(0));
    // 240 too much, at 30 a minute.
    let refused = call(&limits, 1, at(0)).unwrap_err();
    assert_eq!(refused.retry_after_ms, 480_001);
}

#[test]
fn a_released_call_counts_as_a_request_only() {
    let both = Allowance {
        requests_per_minute: Some(10),
        ..tokens(1_000)
    };
    let limits = limits(both);
    let admitted = limits.admit("gpt-4o", 400, at(0)).unwrap();
    admitted.reservation.release(at(10));
    let standing = limits.admit("gpt-4o", 0, at(20)).unwrap().standing;
    assert_eq!(standing.tokens.unwrap().remaining, 1_000);
    assert_eq!(standing.requests.unwrap().remaining, 8);
}

#[test]
fn a_refused_call_is_charged_nothing() {
    let limits = limits(requests(1));
    call(&limits, 0, at(0)).unwrap();
    for ms in 1..1000 {
        assert!(call(&limits, 0, at(ms)).is_err());
    }
    assert!(call(&limits, 0, at(61_000)).is_ok());
}

#[test]
fn a_call_that_is_dropped_leaves_and_stays_at_its_estimate() {
    let allowance = Allowance {
        in_flight: Some(1),
        ..tokens(100)
    };
    let limits = limits(allowance);
    let admitted = limits.admit("gpt-4o", 40, at(0)).unwrap();
    let refused = limits.admit("gpt-4o", 1, at(0)).unwrap_err();
    assert_eq!(refused.limit.sort, Sort::InFlight);
    assert_eq!(refused.retry_after_ms, IN_FLIGHT_RETRY_MS);
    drop(admitted);
    assert_eq!(remaining_tokens(&limits, at(0)), 60);
}

#[test]
fn a_model_has_its_own_limits_beside_the_apps() {
    let models = [
        ("gpt-4o".into(), requests(2)),
        ("free".into(), Allowance::default()),
    ];
    let limits = AppLimits::new("portal".into(), requests(3), models, at(0)).unwrap();
    let limits = Arc::new(limits);
    let standing = limits.admit("gpt-4o", 0, at(0)).unwrap().standing;
    assert_eq!(standing.requests.unwrap().limit, 2);
    call(&limits, 0, at(0)).unwrap();
    let refused = call(&limits, 0, at(0)).unwrap_err();
    assert!(refused.limit.is_models);
    // What the model refused is not charged to the app.
    assert!(limits.admit("gpt-4.1", 0, at(0)).is_ok());
    let refused = limits.admit("gpt-4.1", 0, at(0)).unwrap_err();
    assert_eq!((refused.limit.is_models, refused.limit.allowed), (false, 3));
}

#[test]
fn an_app_without_limits_has_none_to_keep() {
    let none = Allowance::default();
    let models = [("gpt-4o".into(), none)];
    assert!(AppLimits::new("portal".into(), none, models, at(0)).is_none());
}

#[test]
fn headers_have_the_names_that_clients_know() {
    let both = Allowance {
        requests_per_minute: Some(100),
        ..tokens(100_000)
    };
    let standing = limits(both).admit("gpt-4o", 2, at(0)).unwrap().standing;
    let headers: Vec<_> = standing.headers().collect();
    assert_eq!(
        headers,
        [
            ("x-ratelimit-limit-requests", 100),
            ("x-ratelimit-remaining-requests", 99),
            ("x-ratelimit-reset-requests", 61),
            ("x-ratelimit-limit-tokens", 100_000),
            ("x-ratelimit-remaining-tokens", 99_998),
            ("x-ratelimit-reset-tokens", 61),
        ]
    );
    assert_eq!(Standing::default().headers().count(), 0);
}

#[test]
fn a_share_bounds_this_instance_and_the_headers_tell_of_the_whole() {
    let allowance = Allowance {
        in_flight: Some(10),
        ..tokens(1_000)
    };
    let limits = limits(allowance);
    let id = LimitId::app(&"portal".into());
    limits.set_share(&id, Share::from(250_000), at(0));
    let first = limits.admit("gpt-4o", 125, at(0)).unwrap();
    let reading = first.standing.tokens.unwrap();
    assert_eq!((reading.limit, reading.remaining), (1_000, 500));
    let second = limits.admit("gpt-4o", 125, at(0)).unwrap();
    let refused = limits.admit("gpt-4o", 1, at(0)).unwrap_err();
    assert_eq!(refused.standing.tokens.unwrap().remaining, 0);
    assert_eq!(refused.limit.allowed, 1_000);
    // More of a share is room at once; less is as full as it was.
    limits.set_share(&id, Share::from(500_000), at(0));
    let reading = limits.admit("gpt-4o", 1, at(0)).unwrap().standing;
    assert_eq!(reading.tokens.unwrap().remaining, 498);
    limits.set_share(&id, Share::from(100_000), at(0));
    assert!(limits.admit("gpt-4o", 1, at(0)).is_err());
    // What is another app's, or a model's without limits, changes nothing.
    limits.set_share(&LimitId::app(&"other".into()), Share::WHOLE, at(0));
    let model = LimitId::model(&"portal".into(), &"gpt-4o".into());
    limits.set_share(&model, Share::WHOLE, at(0));
    let refused = limits.admit("gpt-4o", 1, at(0)).unwrap_err();
    assert_eq!(refused.limit.sort, Sort::Tokens);
    drop((first, second));
}

#[test]
fn a_share_of_calls_in_flight_is_at_least_one() {
    let allowance = Allowance {
        in_flight: Some(10),
        ..Allowance::default()
    };
    let limits = limits(allowance);
    let id = LimitId::app(&"portal".into());
    for (share, calls) in [(250_000, 2), (10_000, 1), (1_000_000, 10)] {
        limits.set_share(&id, Share::from(share), at(0));
        let admitted: Vec<_> =
            std::iter::from_fn(|| limits.admit("gpt-4o", 0, at(0)).ok()).collect();
        assert_eq!(admitted.len(), calls);
    }
}

#[test]
fn a_share_below_one_call_admits_one_every_so_often() {
    let limits = limits(requests(6));
    let id = LimitId::app(&"portal".into());
    limits.set_share(&id, Share::from(100_000), at(0));
    let mut now = at(0);
    for _ in 0..10 {
        while let Err(refused) = call(&limits, 0, now) {
            now = now.plus_ms(refused.retry_after_ms);
        }
    }
    // 0.6 a minute: nine waits of 100 s.
    assert!(now.ms_since(at(900_000)) < 1_000, "{now:?}");
}

#[test]
fn what_was_used_and_wanted_is_measured() {
    let models = [("gpt-4o".into(), requests(10))];
    let limits = AppLimits::new("portal".into(), tokens(1_000), models, at(0)).unwrap();
    let limits = Arc::new(limits);
    for _ in 0..12 {
        let _ = call(&limits, 50, at(0));
    }
    let measured = limits.measure(at(10_000));
    let names: Vec<String> = measured.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(names, ["portal", "portal/gpt-4o"]);
    let figures = |index: usize, now| {
        let measured = limits.measure(now)[index].1;
        (measured.used[0].millionths(), measured.wanted.millionths())
    };
    assert_eq!(measured[0].1.wanted, Share::from(600_000));
    assert_eq!(measured[1].1.wanted, Share::WHOLE);
    // The tenth call to the model was its last; what was refused fades, what was used stays.
    assert_eq!(figures(0, at(20_000)), (500_000, 550_000));
    assert_eq!(figures(0, at(60_999)).0, 500_000);
    assert_eq!(figures(0, at(61_000)).0, 0);
}

#[test]
fn what_is_used_is_told_by_when_it_leaves_the_minute() {
    let limits = limits(tokens(100));
    call(&limits, 30, at(0)).unwrap();
    call(&limits, 20, at(29_500)).unwrap();
    // Of 50, 30 leave at 61 s, 31 s from now, and 20 at 90 s.
    let used = limits.measure(at(30_000))[0].1.used;
    let after = |slice: usize| used[slice].millionths() / 10_000;
    assert_eq!([after(0), after(6), after(7), after(11)], [50, 50, 20, 20]);
}

#[test]
fn calls_in_flight_are_measured_too() {
    let allowance = Allowance {
        in_flight: Some(2),
        ..Allowance::default()
    };
    let limits = limits(allowance);
    let _call = limits.admit("gpt-4o", 0, at(0)).unwrap();
    let _other = limits.admit("gpt-4o", 0, at(0)).unwrap();
    assert!(limits.admit("gpt-4o", 0, at(0)).is_err());
    let measured = limits.measure(at(1_000))[0].1;
    assert_eq!(
        (measured.used[0], measured.used[1]),
        (Share::WHOLE, Share::NONE)
    );
    assert_eq!(measured.wanted, Share::WHOLE);
}

#[test]
fn a_clock_that_goes_back_gives_nothing_back() {
    let limits = limits(requests(2));
    call(&limits, 0, at(120_000)).unwrap();
    call(&limits, 0, at(100_000)).unwrap();
    let refused = call(&limits, 0, at(0)).unwrap_err();
    assert_eq!(refused.retry_after_ms, 181_000);
}

#[test]
fn absurd_numbers_saturate() {
    let limits = limits(tokens(u64::MAX));
    let admitted = limits.admit("gpt-4o", u64::MAX, at(0)).unwrap();
    assert!(limits.admit("gpt-4o", 1, at(0)).is_err());
    admitted.reservation.settle(u64::MAX, at(1));
    let refused = limits.admit("gpt-4o", u64::MAX, at(2)).unwrap_err();
    assert!(refused.retry_after_ms > 0);
    assert!(
        limits
            .admit("gpt-4o", 1, Timestamp::from_unix_ms(u64::MAX))
            .is_ok()
    );
}

#[test]
fn an_estimate_counts_no_more_than_a_minute() {
    let limits = limits(tokens(100));
    let admitted = limits.admit("gpt-4o", 1_000_000, at(0)).unwrap();
    let refused = limits.admit("gpt-4o", 1, at(0)).unwrap_err();
    assert_eq!(refused.retry_after_ms, 61_000);
    admitted.reservation.settle(30, at(1));
    assert_eq!(remaining_tokens(&limits, at(1)), 70);
}

#[test]
fn an_estimate_is_the_prompt_and_what_may_be_generated() {
    assert_eq!(call_estimate(2, Some(100), true), 102);
    assert_eq!(call_estimate(2, None, true), 2 + ASSUMED_OUTPUT);
    assert_eq!(call_estimate(2, Some(100), false), 2);
    assert_eq!(call_estimate(2, Some(u64::MAX), true), u64::MAX);
}

#[test]
fn threads_together_are_admitted_no_more_than_the_limit() {
    let limits = limits(requests(1_000));
    let admitted: usize = std::thread::scope(|scope| {
        let thread = |limits: Arc<AppLimits>| {
            scope.spawn(move || {
                (0..1_000)
                    .filter(|_| call(&limits, 0, at(0)).is_ok())
                    .count()
            })
        };
        let threads: Vec<_> = (0..4).map(|_| thread(Arc::clone(&limits))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1_000);
}

#[test]
fn what_was_used_counts_against_another_allowance() {
    let limits = limits(tokens(100));
    call(&limits, 60, at(0)).unwrap();
    let held = limits.admit("gpt-4o", 20, at(0)).unwrap();
    limits.allow(tokens(200), [], at(1));
    assert_eq!(remaining_tokens(&limits, at(1)), 120);
    held.reservation.settle(50, at(2));
    assert_eq!(remaining_tokens(&limits, at(2)), 90, "the call is settled");
    limits.allow(tokens(100), [("gpt-4o".into(), requests(1))], at(3));
    assert!(call(&limits, 1, at(3)).is_err(), "more is used than that");
    limits.allow(requests(10), [("gpt-4o".into(), requests(1))], at(4));
    call(&limits, 1_000_000, at(4)).unwrap();
    let refused = call(&limits, 1, at(4)).unwrap_err();
    assert!(refused.limit.is_models);
    limits.allow(requests(10), [], at(5));
    call(&limits, 1, at(5)).unwrap();
}
