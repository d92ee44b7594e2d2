use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

fn tokens(prompt: u64, cached: u64, output: u64) -> CallTokens {
    CallTokens {
        prompt,
        cached,
        output,
    }
}

/// 2,400 input tokens a minute (40 a second); an output token counts as 4.
fn bucket() -> PtuBucket {
    let rate = ModelRate {
        input_tpm_per_ptu: 1_200,
        output_ratio: 4,
    };
    PtuBucket::new(2, rate, at(0))
}

#[test]
fn every_row_of_the_table_is_read_and_none_is_absurd() {
    let lines = TABLE
        .lines()
        .filter(|l| !l.starts_with('#') && !l.starts_with("model,"))
        .count();
    assert_eq!(rows().count(), lines);
    assert!(lines >= 20);
    for (name, rate) in rows() {
        assert!(rate.input_tpm_per_ptu >= 200, "{name}");
        assert!((1..=10).contains(&rate.output_ratio), "{name}");
    }
}

#[test]
fn a_model_with_a_version_has_the_rate_of_its_row_and_a_sibling_its_own() {
    assert_eq!(ModelRate::of("gpt-4o").unwrap().input_tpm_per_ptu, 2_500);
    assert_eq!(ModelRate::of("gpt-4o-2024-11-20"), ModelRate::of("gpt-4o"));
    assert_eq!(
        ModelRate::of("gpt-4o-mini-2024-07-18")
            .unwrap()
            .input_tpm_per_ptu,
        37_000
    );
    assert_eq!(ModelRate::of("gpt-4o-audio"), None);
    assert_eq!(ModelRate::of("text-embedding-3-small"), None);
}

#[test]
fn a_call_reserves_its_uncached_prompt_and_its_output_by_the_ratio() {
    let mut b = bucket();
    let reservation = b.admit(tokens(1_000, 400, 150), at(0)).unwrap();
    assert_eq!(b.utilization(at(0)).tenths(), 500);
    b.settle(reservation, tokens(1_000, 400, 0), at(0));
    assert_eq!(b.utilization(at(0)).to_string(), "25.0%");
}

#[test]
fn a_full_bucket_refuses_until_the_moment_it_named() {
    let mut b = bucket();
    let _held = b.admit(tokens(2_399, 0, 0), at(0)).unwrap();
    // Just below 100 %: one more is admitted, and lifts it above.
    let _over = b.admit(tokens(81, 0, 0), at(0)).unwrap();
    let full = b.admit(tokens(1, 0, 0), at(0)).unwrap_err();
    assert_eq!(full.utilization.to_string(), "103.3%");
    assert_eq!(full.retry_after_ms, 2_001);
    assert!(b.admit(tokens(1, 0, 0), at(2_000)).is_err());
    assert!(b.admit(tokens(1, 0, 0), at(2_001)).is_ok());
}

#[test]
fn a_clock_that_goes_back_drains_nothing_twice() {
    let mut b = bucket();
    let _held = b.admit(tokens(2_400, 0, 0), at(60_000)).unwrap();
    assert_eq!(b.utilization(at(30_000)).tenths(), 1000);
    assert_eq!(b.utilization(at(60_000)).tenths(), 1000);
    assert_eq!(b.utilization(at(90_000)).tenths(), 500);
}

#[test]
fn without_ptus_a_wait_can_still_be_stated() {
    let mut b = PtuBucket::new(0, ModelRate::ASSUMED, at(0));
    let _held = b.admit(tokens(1, 0, 0), at(0)).unwrap();
    assert_eq!(b.retry_after_ms(at(0)), 1);
    assert_eq!(b.retry_after_ms(at(1)), 0);
}

#[test]
fn absurd_numbers_saturate() {
    let rate = ModelRate {
        input_tpm_per_ptu: u64::MAX,
        output_ratio: u64::MAX,
    };
    let mut b = PtuBucket::new(u32::MAX, rate, at(0));
    let held = b.admit(tokens(u64::MAX, 0, u64::MAX), at(0)).unwrap();
    assert!(b.admit(tokens(1, 0, 1), at(1)).is_err());
    b.settle(held, tokens(0, 0, 0), at(u64::MAX));
    assert_eq!(b.utilization(at(u64::MAX)).tenths(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Admit(CallTokens),
    /// Settles the oldest call with this share of its estimate, in percent; it may be above 100.
    Settle(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..5_000).prop_map(Step::Wait),
        (0u64..3_000, 0u64..1_000, 0u64..400).prop_map(|(p, c, o)| Step::Admit(tokens(p, c, o))),
        (0u64..150).prop_map(Step::Settle),
    ]
}

proptest! {
    #[test]
    fn the_bucket_admits_below_full_only_and_its_wait_is_exact(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut b = bucket();
        let mut now = at(1_000);
        let mut open = std::collections::VecDeque::new();
        for step in steps {
            match step {
                Step::Wait(ms) => now = now.plus_ms(ms),
                Step::Admit(estimate) => {
                    let before = b.utilization(now).tenths();
                    match b.admit(estimate, now) {
                        Ok(reservation) => {
                            prop_assert!(before < 1000);
                            open.push_back((reservation, estimate));
                        }
                        Err(full) => {
                            prop_assert!(before >= 1000);
                            prop_assert!(full.retry_after_ms >= 1);
                            let ready = now.plus_ms(full.retry_after_ms);
                            let early = now.plus_ms(full.retry_after_ms - 1);
                            prop_assert!(b.retry_after_ms(early) >= 1);
                            now = ready;
                            prop_assert_eq!(b.retry_after_ms(now), 0);
                            prop_assert!(b.admit(tokens(0, 0, 0), now).is_ok());
                        }
                    }
                }
                Step::Settle(percent) => {
                    if let Some((reservation, estimate)) = open.pop_front() {
                        let part = |n: u64| n * percent / 100;
                        let actual =
                            tokens(part(estimate.prompt), part(estimate.cached), part(estimate.output));
                        b.settle(reservation, actual, now);
                    }
                }
            }
        }
    }

    /// What was put in and not taken back is there, or has drained: no more and no less.
    #[test]
    fn what_was_charged_is_in_the_bucket_or_has_drained(
        calls in proptest::collection::vec((0u64..500, 0u64..100, 0u64..100, 0u64..2_000), 1..40)
    ) {
        let mut b = bucket();
        let mut now = at(0);
        let mut expected: u128 = 0;
        for (prompt, output, generated, wait) in calls {
            let estimate = tokens(prompt, 0, output);
            let Ok(reservation) = b.admit(estimate, now) else { continue };
            let actual = tokens(prompt, 0, generated.min(output));
            b.settle(reservation, actual, now);
            expected += u128::from(prompt + 4 * generated.min(output)) * UNITS_PER_TOKEN;
            prop_assert_eq!(b.level, expected);
            now = now.plus_ms(wait);
            expected = expected.saturating_sub(u128::from(wait) * 2_400);
        }
    }
}
