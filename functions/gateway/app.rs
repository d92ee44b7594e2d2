//! An app: who calls and pays, and what it may use.

use std::sync::Arc;

use super::cache;
use super::deployment::DeploymentSpec;
use super::priority::Priority;
use super::transform::Transform;

/// An app that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: Arc<str>,
    /// The models it may use; `None`: all.
    pub models: Option<Vec<Arc<str>>>,
    /// The backends it may use; `None`: all.
    pub backends: Option<Vec<Arc<str>>>,
    /// The tiers it may use.
    pub tiers: Tiers,
    /// How urgent its calls are unless they say that they are less.
    pub priority: Priority,
    /// Whether its requests and answers are kept.
    pub log_prompts: bool,
    /// Whether it may have responses made in the background, which nobody can count.
    pub allow_background: bool,
    /// What its requests are changed by; `None`: nothing.
    pub transform: Option<Arc<Transform>>,
    /// What is kept of the answers to its calls; `None`: nothing.
    pub cache: Option<cache::Rules>,
}

impl App {
    /// An app that may use everything that is no other app's own.
    pub fn unrestricted(name: &str) -> Self {
        Self {
            name: name.into(),
            models: None,
            backends: None,
            tiers: Tiers::ALL,
            priority: Priority::High,
            log_prompts: false,
            allow_background: true,
            transform: None,
            cache: None,
        }
    }

    /// Whether it may ask for the model.
    pub fn may_ask_for(&self, model: &str) -> bool {
        let models = self.models.as_ref();
        models.is_none_or(|all| all.iter().any(|one| &**one == model))
    }

    /// Whether it may tune the model, which is called as Azure calls it: that of one of its models, with a date
    /// where it has one (`gpt-4o-2024-08-06`, `gpt-4-0613`).
    pub fn may_tune(&self, model: &str) -> bool {
        self.may_ask_for(model) || without_date(model).is_some_and(|model| self.may_ask_for(model))
    }

    /// Whether it may use the deployment.
    pub fn may_use(&self, deployment: &DeploymentSpec) -> bool {
        let backends = self.backends.as_ref();
        backends.is_none_or(|all| all.contains(&deployment.backend))
            && self.tiers.contains(deployment.tier)
            && deployment.is_open_to(&self.name)
    }
}

/// The tier of what has no model and so no tier: every app may use it.
pub const NO_TIER: u8 = 0;

/// A set of tiers, of which there are nine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiers(u16);

impl Tiers {
    /// All of them.
    pub const ALL: Self = Self(u16::MAX);

    /// These tiers.
    pub fn only(tiers: &[u8]) -> Self {
        let any = Self::bit(NO_TIER);
        Self(tiers.iter().fold(any, |set, tier| set | Self::bit(*tier)))
    }

    /// Whether the tier is one of them.
    pub const fn contains(self, tier: u8) -> bool {
        self.0 & Self::bit(tier) != 0
    }

    const fn bit(tier: u8) -> u16 {
        // Configuration has tiers from 1 to 9; what is beyond shares the last bit.
        1 << if tier < 15 { tier } else { 15 }
    }
}

/// A model's name without the date at its end.
fn without_date(model: &str) -> Option<&str> {
    ["-dddd-dd-dd", "-dddd"].into_iter().find_map(|form| {
        let (name, end) = model.split_at_checked(model.len().checked_sub(form.len())?)?;
        let mut pairs = form.bytes().zip(end.bytes());
        let is_date = pairs.all(|(form, byte)| match form {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
        is_date.then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::event::Kind;
    use super::*;

    fn deployment(backend: &str, tier: u8, apps: &[&str]) -> DeploymentSpec {
        DeploymentSpec {
            backend: backend.into(),
            name: "gpt-4o".into(),
            kind: Kind::Payg,
            tier,
            weight: 1,
            region: None,
            apps: apps.iter().map(|app| Arc::from(*app)).collect(),
        }
    }

    #[test]
    fn an_app_uses_its_backends_and_tiers_only() {
        let mut app = App::unrestricted("portal");
        assert!(app.may_use(&deployment("a", 1, &[])));
        app.tiers = Tiers::only(&[2, 9]);
        assert!(!app.may_use(&deployment("a", 1, &[])));
        for tier in [NO_TIER, 2, 9] {
            assert!(app.may_use(&deployment("a", tier, &[])), "{tier}");
        }
        app.backends = Some(vec!["b".into()]);
        assert!(!app.may_use(&deployment("a", 2, &[])));
        assert!(app.may_use(&deployment("b", 2, &[])));
    }

    #[test]
    fn a_deployment_of_other_apps_is_out_of_reach() {
        let app = App::unrestricted("portal");
        assert!(app.may_use(&deployment("a", 1, &["batch", "portal"])));
        assert!(!app.may_use(&deployment("a", 1, &["batch"])));
    }

    #[test]
    fn an_app_asks_for_its_models_only() {
        let mut app = App::unrestricted("portal");
        assert!(app.may_ask_for("gpt-4o"));
        app.models = Some(vec!["gpt-4.1".into()]);
        assert!(!app.may_ask_for("gpt-4o") && app.may_ask_for("gpt-4.1"));
    }

    #[test]
    fn an_app_tunes_its_models_by_their_names_with_a_date() {
        let mut app = App::unrestricted("portal");
        assert!(app.may_tune("gpt-4o-2024-08-06"));
        app.models = Some(vec!["gpt-4o".into(), "gpt-35-turbo".into()]);
        for model in ["gpt-4o", "gpt-4o-2024-08-06", "gpt-35-turbo-0125"] {
            assert!(app.may_tune(model), "{model}");
        }
        for model in [
            "gpt-4o-mini-2024-07-18",
            "gpt-4.1-2025-04-14",
            "gpt-4o-2024",
            "-0125",
            "\u{65e5}-0125",
            "",
        ] {
            assert_eq!(app.may_tune(model), model == "gpt-4o-2024", "{model}");
        }
    }
}
