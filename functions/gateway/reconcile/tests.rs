use super::*;
use crate::gateway::time::Timestamp;

/// 2026-11-28T00:00:00Z.
fn day() -> Timestamp {
    Timestamp::parse("2026-11-28T00:00:00Z").unwrap()
}

fn figure(ours: u64, metered: u64) -> Figure {
    Figure {
        ours,
        metered: Some(metered),
    }
}

fn series(dimensions: &[(&str, &str)], buckets: &[(u8, Option<f64>)]) -> String {
    let dimensions = dimensions
        .iter()
        .map(|(name, value)| format!(r#"{{"name":{{"value":"{name}"}},"value":"{value}"}}"#));
    let buckets = buckets.iter().map(|(hour, total)| {
        let total = total.map_or(String::new(), |total| format!(r#","total":{total}"#));
        format!(r#"{{"timeStamp":"2026-11-28T{hour:02}:00:00Z"{total}}}"#)
    });
    let (dimensions, buckets): (Vec<_>, Vec<_>) = (dimensions.collect(), buckets.collect());
    format!(
        r#"{{"metadatavalues":[{}],"data":[{}]}}"#,
        dimensions.join(","),
        buckets.join(",")
    )
}

fn answer(metrics: &[(&str, &[String])]) -> Vec<u8> {
    let metrics = metrics.iter().map(|(name, series)| {
        format!(
            r#"{{"name":{{"value":"{name}"}},"errorCode":"Success","timeseries":[{}]}}"#,
            series.join(",")
        )
    });
    let metrics: Vec<String> = metrics.collect();
    format!(r#"{{"value":[{}]}}"#, metrics.join(",")).into_bytes()
}

/// Of a deployment called `Chat-PTU` with calls in two hours, and another one.
fn metered() -> MeteredDay {
    let mut all = MeteredDay::new(day());
    let of = |name| [("modeldeploymentname", name)];
    let tokens = answer(&[
        (
            PROMPT,
            &[
                series(
                    &of("Chat-PTU"),
                    &[(9, Some(700.0)), (10, None), (11, Some(300.0))],
                ),
                series(&of("embed"), &[(9, Some(0.0))]),
            ],
        ),
        (GENERATED, &[series(&of("Chat-PTU"), &[(9, Some(200.0))])]),
        (
            "TokenTransaction",
            &[series(&of("Chat-PTU"), &[(9, Some(1.0))])],
        ),
    ]);
    all.add(&tokens, 100).unwrap();
    let status = |code| [("modeldeploymentname", "Chat-PTU"), ("statuscode", code)];
    let requests = answer(&[(
        REQUESTS,
        &[
            series(&status("200"), &[(9, Some(7.0)), (11, Some(2.0))]),
            series(&status("201"), &[(9, Some(1.0))]),
            series(&status("429"), &[(12, Some(50.0))]),
        ],
    )]);
    all.add(&requests, 100).unwrap();
    all
}

fn reconciled(counted: Counted) -> Reconciled {
    let names: [Arc<str>; 2] = ["sweden".into(), "chat-ptu".into()];
    let metered = metered().of("chat-ptu");
    let name = (&names[0], &names[1]);
    Reconciled::of(&"2026-11-28".into(), name, false, &counted, &metered).unwrap()
}

const EQUAL: Counted = Counted {
    requests: 10,
    prompt: 1000,
    generated: 200,
    estimated: 0,
};

#[test]
fn a_day_is_the_sum_of_its_hours_and_good_answers_alone_are_calls() {
    let found = metered().of("chat-ptu");
    assert_eq!(
        (found.prompt, found.generated, found.requests),
        (Some(1000), Some(200), Some(10))
    );
    assert_eq!(found.hours(), 3, "9, 11 and 12 o'clock");
}

#[test]
fn no_figure_is_not_a_zero() {
    let embed = metered().of("embed");
    assert_eq!((embed.prompt, embed.generated), (Some(0), None));
    assert_eq!(metered().of("other"), Metered::default());
    let unknown = Figure {
        ours: 5,
        metered: None,
    };
    assert_eq!((unknown.drift(), unknown.percent()), (None, None));
    assert!(!unknown.is_beyond(0));
    assert_eq!(figure(5, 0).drift(), Some(5));
    assert!(figure(5, 0).is_beyond(50));
    assert_eq!(figure(5, 0).percent(), None, "of nothing");
    assert_eq!(figure(0, 0).percent(), Some(0.0));
}

#[test]
fn a_figure_of_another_day_is_left_out() {
    let mut all = MeteredDay::new(day().plus_ms(86_400_000));
    let name = [("ModelDeploymentName", "chat")];
    let body = answer(&[(PROMPT, &[series(&name, &[(9, Some(7.0))])])]);
    all.add(&body, 100).unwrap();
    assert_eq!(all.of("chat").prompt, None);
}

#[test]
fn what_may_be_cut_off_or_is_wrong_is_an_error() {
    let mut all = MeteredDay::new(day());
    let name = [("ModelDeploymentName", "chat")];
    let one = series(&name, &[(9, Some(7.0))]);
    let body = answer(&[(PROMPT, &[one.clone(), one])]);
    let error = all.add(&body, 2).unwrap_err();
    assert!(
        error.contains("2 series of ProcessedPromptTokens"),
        "{error}"
    );
    assert!(all.add(b"<html>", 2).is_err());
    let failed = String::from_utf8(body).unwrap().replace("Success", "Busy");
    assert!(all.add(failed.as_bytes(), 9).unwrap_err().contains("Busy"));
}

#[test]
fn a_drift_is_a_part_of_what_is_metered() {
    assert_eq!(figure(1_020, 1_000).percent(), Some(2.0));
    assert_eq!(figure(957, 1_000).percent(), Some(-4.3));
    assert_eq!(figure(2, 3).percent(), Some(-33.33));
    assert_eq!(figure(3, 2).percent(), Some(50.0));
    assert_eq!(
        figure(199_995, 200_000).percent(),
        Some(0.0),
        "a quarter of a hundredth"
    );
    assert_eq!(
        figure(u64::MAX, 1).percent(),
        Some(f64::from(i32::MAX) / 100.0)
    );
    assert!(!figure(1_020, 1_000).is_beyond(2));
    assert!(figure(1_021, 1_000).is_beyond(2) && figure(979, 1_000).is_beyond(2));
}

#[test]
fn the_larger_drift_of_its_tokens_is_a_days() {
    let day = reconciled(Counted {
        prompt: 1_010,
        generated: 190,
        ..EQUAL
    });
    assert_eq!(day.percent(), Some(-5.0));
    assert!(day.is_beyond(4) && !day.is_beyond(5));
    assert_eq!(reconciled(EQUAL).percent(), Some(0.0));
}

#[test]
fn notes_say_why_a_drift_may_be_none_of_the_gateways() {
    assert_eq!(reconciled(EQUAL).notes(), []);
    let fewer = Counted {
        requests: 7,
        prompt: 600,
        ..EQUAL
    };
    assert_eq!(reconciled(fewer).notes(), [Note::NotOurs(3)]);
    let more = Counted {
        requests: 11,
        prompt: 1_100,
        estimated: 100,
        ..EQUAL
    };
    let notes = [Note::Hours(3), Note::OnlyOurs(1), Note::Estimated(100)];
    assert_eq!(reconciled(more).notes(), notes);
    let shared = Reconciled {
        is_shared: true,
        ..reconciled(fewer)
    };
    assert_eq!(
        shared.note(),
        "shared with callers past the gateway; 3 calls more at Azure: others call it, or events are missing"
    );
    let unknown = Reconciled {
        prompt: Figure::default(),
        generated: Figure::default(),
        ..reconciled(EQUAL)
    };
    assert_eq!(unknown.notes(), [Note::Unmetered]);
}

#[test]
fn a_deployment_that_nobody_called_is_no_line() {
    let (backend, deployment): (Arc<str>, Arc<str>) = ("sweden".into(), "embed".into());
    let of = |counted: Counted, metered: &Metered| {
        let name = (&backend, &deployment);
        Reconciled::of(&"2026-11-28".into(), name, false, &counted, metered)
    };
    assert_eq!(of(Counted::default(), &metered().of("embed")), None);
    assert_eq!(of(Counted::default(), &Metered::default()), None);
    assert!(of(EQUAL, &Metered::default()).is_some());
    assert!(of(Counted::default(), &metered().of("chat-ptu")).is_some());
}

#[test]
fn days_that_are_not_metered_are_in_no_sum() {
    let first = reconciled(Counted {
        prompt: 1_100,
        ..EQUAL
    });
    let unknown = Reconciled {
        requests: Figure::default(),
        prompt: Figure {
            ours: 900,
            metered: None,
        },
        generated: Figure::default(),
        ..first.clone()
    };
    let all = summaries(&[first.clone(), unknown, first]);
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.days, one.unmetered_days), (3, 1));
    assert_eq!(one.prompt, figure(2_200, 2_000));
    assert_eq!(one.percent(), Some(10.0));
}
