use proptest::prelude::*;

use super::*;

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const APP: &str = "AAAAAAAA-0000-0000-0000-000000000001";

fn rules() -> TokenRules {
    TokenRules {
        tenant: TENANT.into(),
        issuers: vec![
            format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
            format!("https://sts.windows.net/{TENANT}/"),
        ],
        audiences: vec!["api://spillway".into()],
        leeway_ms: 300_000,
    }
}

fn claims(more: &str) -> Claims {
    let text = format!(
        r#"{{"aud":"api://spillway","exp":2000,"nbf":1000,"oid":"o","sub":"s","tid":"{TENANT}",{more}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn v2() -> Claims {
    claims(&format!(
        r#""iss":"https://login.microsoftonline.com/{TENANT}/v2.0","azp":"{APP}","roles":["Reader"]"#
    ))
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(seconds * 1000)
}

#[test]
fn both_forms_of_token_name_their_app() {
    let v1 = claims(&format!(
        r#""iss":"https://sts.windows.net/{TENANT}/","appid":"{APP}""#
    ));
    for claims in [v2(), v1] {
        let principal = rules().judge(claims, at(1500)).unwrap();
        assert_eq!(&*principal.app_id, APP.to_ascii_lowercase());
        assert_eq!((&*principal.object_id, &*principal.subject), ("o", "s"));
    }
}

#[test]
fn a_token_holds_from_its_begin_to_its_end_give_or_take_the_leeway() {
    let judged = |seconds| rules().judge(v2(), at(seconds)).map(drop);
    assert_eq!(judged(699), Err(TokenFault::NotYetValid));
    assert_eq!(judged(700), Ok(()));
    assert_eq!(judged(2299), Ok(()));
    assert_eq!(judged(2300), Err(TokenFault::Expired));
    let principal = rules().judge(v2(), at(1500)).unwrap();
    assert!(principal.holds(at(2299)) && !principal.holds(at(2300)));
}

#[test]
fn each_rule_that_is_broken_is_named() {
    let judged = |change: fn(&mut Claims)| {
        let mut claims = v2();
        change(&mut claims);
        rules().judge(claims, at(1500)).unwrap_err()
    };
    assert_eq!(
        judged(|c| c.aud = Audiences::One("x".into())),
        TokenFault::Audience
    );
    assert_eq!(
        judged(|c| c.aud = Audiences::Many(Vec::new())),
        TokenFault::Audience
    );
    assert_eq!(
        judged(|c| c.iss = "https://example.com/".into()),
        TokenFault::Issuer
    );
    assert_eq!(judged(|c| c.tid = Some("x".into())), TokenFault::Tenant);
    assert_eq!(judged(|c| c.azp = None), TokenFault::NoApp);
}

#[test]
fn a_token_for_several_apis_is_taken_where_one_is_the_gateway() {
    let mut claims = v2();
    claims.aud = Audiences::Many(vec!["x".into(), "api://spillway".into()]);
    assert!(rules().judge(claims, at(1500)).is_ok());
}

#[test]
fn a_tenants_id_is_the_same_in_capitals_and_an_issuer_is_not() {
    let mut claims = v2();
    claims.tid = Some(TENANT.to_uppercase());
    assert!(rules().judge(claims.clone(), at(1500)).is_ok());
    claims.iss = claims.iss.to_uppercase();
    assert_eq!(
        rules().judge(claims, at(1500)).unwrap_err(),
        TokenFault::Issuer
    );
}

#[test]
fn a_role_is_had_by_its_whole_name() {
    let principal = rules().judge(v2(), at(1500)).unwrap();
    assert!(principal.has_role("Reader") && !principal.has_role("Read"));
}

proptest! {
    /// No claims of another issuer or for another API are ever taken, whatever else they say.
    #[test]
    fn strangers_are_never_taken(
        iss in ".{0,40}", aud in ".{0,40}", exp in any::<u64>(), nbf in any::<Option<u64>>(), now in any::<u64>(),
    ) {
        let mut claims = v2();
        (claims.exp, claims.nbf) = (exp, nbf);
        let now = Timestamp::from_unix_ms(now);
        let mut foreign = claims.clone();
        foreign.iss = iss;
        prop_assert!(rules().judge(foreign, now).is_err());
        claims.aud = Audiences::One(aud);
        prop_assert!(rules().judge(claims, now).is_err());
    }
}

#[test]
fn each_fault_of_a_token_is_told_in_words_of_its_own() {
    let faults = [
        TokenFault::TooLong,
        TokenFault::Malformed,
        TokenFault::Algorithm,
        TokenFault::UnknownKey,
        TokenFault::Signature,
        TokenFault::Expired,
        TokenFault::NotYetValid,
        TokenFault::Issuer,
        TokenFault::Tenant,
        TokenFault::Audience,
        TokenFault::NoApp,
    ];
    let mut told: Vec<&str> = faults.iter().map(|fault| fault.as_str()).collect();
    assert!(told.iter().all(|words| words.starts_with("the token")));
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), faults.len());
}
