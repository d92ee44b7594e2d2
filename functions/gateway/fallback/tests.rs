use proptest::prelude::*;

use super::*;

const ALL: [Reason; 3] = [
    Reason::Exhausted,
    Reason::ContextLength,
    Reason::ContentFilter,
];

fn chain(substitutes: &[(&str, &[Reason])]) -> Chain {
    let one = |(model, on): &(&str, &[Reason])| Substitute {
        model: Arc::from(*model),
        on: on.to_vec(),
    };
    Chain(substitutes.iter().map(one).collect())
}

#[test]
fn each_substitute_serves_after_its_reasons_only() {
    let chain = chain(&[
        ("long", &[Reason::ContextLength]),
        ("small", &[Reason::Exhausted]),
    ]);
    let next = |passed, reason| {
        let found = chain.next(passed, reason, |_| true);
        found.map(|(passed, model)| (passed, model.to_string()))
    };
    assert_eq!(next(0, Reason::ContextLength), Some((1, "long".into())));
    assert_eq!(next(0, Reason::Exhausted), Some((2, "small".into())));
    assert_eq!(next(0, Reason::ContentFilter), None);
    assert_eq!(next(1, Reason::ContextLength), None);
    assert_eq!(
        chain.next(0, Reason::Exhausted, |model| model != "small"),
        None
    );
}

#[test]
fn only_refusals_that_a_chain_goes_by_are_read() {
    assert!(!chain(&[("a", &[Reason::Exhausted])]).reads_refusals());
    assert!(chain(&[("a", &ALL)]).reads_refusals());
    assert!(!Chain::default().reads_refusals());
}

#[test]
fn a_refusal_is_known_by_its_code() {
    for (body, reason) in [
        (
            r#"{"error":{"message":"x","code":"context_length_exceeded","type":"invalid_request_error"}}"#,
            Some(Reason::ContextLength),
        ),
        (
            r#"{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            Some(Reason::ContentFilter),
        ),
        (r#"{"error":{"code":"invalid_value"}}"#, None),
        (r#"{"error":{"code":null}}"#, None),
        (r#"{"error":"context_length_exceeded"}"#, None),
        ("", None),
    ] {
        assert_eq!(refusal(body.as_bytes()), reason, "{body}");
    }
}

proptest! {
    #[test]
    fn a_chain_is_walked_forwards_and_ends(
        members in prop::collection::vec(prop::collection::vec(prop::sample::select(ALL.to_vec()), 0..3), 0..6),
        reasons in prop::collection::vec(prop::sample::select(ALL.to_vec()), 12),
    ) {
        let names: Vec<String> = (0..members.len()).map(|i| i.to_string()).collect();
        let of = |(name, on): (&String, &Vec<Reason>)| (name.clone(), on.clone());
        let chain = Chain(
            names.iter().zip(&members).map(of)
                .map(|(name, on)| Substitute { model: name.as_str().into(), on })
                .collect(),
        );
        let (mut passed, mut steps) = (0, 0);
        for reason in reasons {
            let Some((next, model)) = chain.next(passed, reason, |_| true) else {
                continue;
            };
            prop_assert!(next > passed && next <= members.len());
            prop_assert!(members[next - 1].contains(&reason));
            prop_assert_eq!(&**model, names[next - 1].as_str());
            (passed, steps) = (next, steps + 1);
        }
        prop_assert!(steps <= members.len());
    }
}
