//! `${NAME}` in a string: the environment's (on Azure: an app setting's) value.

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadReference {
    /// The environment has no such variable.
    Missing(String),
    /// `${` without a name and `}`.
    Malformed,
}

impl BadReference {
    pub(super) fn message(&self) -> String {
        match self {
            Self::Missing(name) => format!(
                "the environment variable {name} is not set (on Azure: the app setting {name})"
            ),
            Self::Malformed => "`${` must be followed by a variable's name (letters, digits, `_`, \
                 no digit first) and `}`; write `$${` where `${` itself is meant"
                .into(),
        }
    }
}

/// The text with each `${NAME}` replaced and each `$${` made `${`; or all that is wrong with it.
///
/// What the environment brings in is not looked at again: a value may hold `${`.
pub(super) fn expand(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Vec<BadReference>> {
    let mut out = String::with_capacity(text.len());
    let mut bad = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        let inside = reference.trim_start_matches("${");
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = reference.get(2..).unwrap_or_default();
            continue;
        }
        out.push_str(before);
        match inside.split_once('}') {
            Some((name, after)) if is_name(name) => {
                match env(name) {
                    Some(value) => out.push_str(&value),
                    None => bad.push(BadReference::Missing(name.to_owned())),
                }
                rest = after;
            }
            _ => {
                bad.push(BadReference::Malformed);
                rest = reference.get(2..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    if bad.is_empty() { Ok(out) } else { Err(bad) }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".into()),
            "NESTED" => Some("${A}".into()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        assert_eq!(expand("x${A}y${A}", &env).unwrap(), "x1y1");
        assert_eq!(
            expand("no reference: $A {A} $", &env).unwrap(),
            "no reference: $A {A} $"
        );
    }

    #[test]
    fn a_doubled_dollar_stands_for_a_literal_reference() {
        assert_eq!(expand("$${A} ${A}", &env).unwrap(), "${A} 1");
    }

    #[test]
    fn what_the_environment_brings_is_not_expanded_again() {
        assert_eq!(expand("${NESTED}", &env).unwrap(), "${A}");
    }

    #[test]
    fn every_bad_reference_is_named() {
        let bad = expand("${X} ${} ${A} ${1B} ${Y", &env).unwrap_err();
        let missing = |name: &str| BadReference::Missing(name.into());
        assert_eq!(
            bad,
            [
                missing("X"),
                BadReference::Malformed,
                BadReference::Malformed,
                BadReference::Malformed
            ]
        );
        assert_eq!(
            expand("${X}${Z}", &env).unwrap_err(),
            [missing("X"), missing("Z")]
        );
    }
}
