//! Models that may serve in another's place.

use super::*;
use crate::gateway::fallback::Reason;

const OPEN: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:1\"\n[[backend.deployment]]\nname = \"m\"\nkind = \"payg\"\n[[backend.deployment]]\nname = \"n\"\nkind = \"payg\"\n[[model]]\nname = \"m\"\n";

#[test]
fn a_substitute_serves_after_exhaustion_unless_it_says_otherwise() {
    assert!(parse(OPEN).unwrap().fallbacks().is_empty());
    let config = parse(&format!("{OPEN}[[model.fallback]]\nmodel = \"n\"\n")).unwrap();
    let chains = config.fallbacks();
    assert_eq!(chains["m"].0[0].on, [Reason::Exhausted]);
    let on = "on = [\"context-length\", \"content-filter\"]";
    let config = parse(&format!("{OPEN}[[model.fallback]]\nmodel = \"n\"\n{on}\n")).unwrap();
    let chains = config.fallbacks();
    assert_eq!(
        chains["m"].0[0].on,
        [Reason::ContextLength, Reason::ContentFilter]
    );
}

#[test]
fn a_chain_that_makes_no_sense_is_said_with_its_place() {
    for (tables, place, says) in [
        ("model = \"o\"", "model[0].fallback[0].model", "is no model"),
        (
            "model = \"m\"",
            "model[0].fallback[0].model",
            "the model itself",
        ),
        (
            "model = \"n\"\non = []",
            "model[0].fallback[0].on",
            "is empty",
        ),
        (
            "model = \"n\"\non = [\"exhaused\"]",
            "fallback[0].on[0]",
            "did you mean `exhausted`",
        ),
        (
            "model = \"n\"\n[[model.fallback]]\nmodel = \"n\"",
            "model[0].fallback[1].model",
            "already",
        ),
    ] {
        let found = mistakes(&format!("{OPEN}[[model.fallback]]\n{tables}\n"));
        assert!(
            found
                .iter()
                .any(|text| text.contains(place) && text.contains(says)),
            "{tables}: {found:?}"
        );
    }
}

#[test]
fn a_chain_ends_at_no_model_whose_deployments_were_all_deleted() {
    let gone = "[[backend]]\nname = \"b\"\nendpoint = \"http://127.0.0.1:2\"\n\
                [[backend.deployment]]\nname = \"o\"\nkind = \"ptu\"\ndeleted = \"2026-11-20\"\n";
    let chain = format!("{OPEN}[[model.fallback]]\nmodel = \"o\"\n");
    let found = mistakes(&format!("{chain}{gone}"));
    let [one] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(
        one.contains("model[0].fallback[0].model: all deployments of this model were deleted"),
        "{one}"
    );
    let other = "[[backend.deployment]]\nname = \"other\"\nmodel = \"o\"\nkind = \"payg\"\n";
    assert!(parse(&format!("{chain}{gone}{other}")).is_ok());
}
