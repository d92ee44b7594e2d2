//! What a client says of kept answers: the request's `Cache-Control` (RFC 9111, section 5.2.1).

/// A request's `Cache-Control`. `max-stale` and `no-transform` need nothing: no stale answer is ever given,
/// and none is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Nothing of the call may be kept.
    pub no_store: bool,
    /// No kept answer will do.
    pub no_cache: bool,
    /// Nothing but a kept answer will do.
    pub only_if_cached: bool,
    /// The oldest answer that will do, seconds.
    pub max_age: Option<u64>,
    /// How long the answer has to be good for yet, seconds.
    pub min_fresh: Option<u64>,
}

impl Control {
    /// Reads the header's values. What is unknown is passed over; a number that is none is the one that
    /// asks for most.
    pub fn read<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut control = Self::default();
        for directive in values.flat_map(|value| value.split(',')) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let number = || value.trim().trim_matches('"').parse::<u64>().ok();
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" => control.no_store = true,
                "no-cache" => control.no_cache = true,
                "only-if-cached" => control.only_if_cached = true,
                "max-age" => control.max_age = Some(number().unwrap_or(0)),
                "min-fresh" => control.min_fresh = Some(number().unwrap_or(u64::MAX)),
                _ => {}
            }
        }
        control
    }

    /// Whether an answer of this age will do that may be given for `ttl_ms`.
    pub fn takes(&self, age_ms: u64, ttl_ms: u64) -> bool {
        let ms = |seconds: u64| seconds.saturating_mul(1000);
        let left_ms = ttl_ms.saturating_sub(age_ms);
        !self.no_cache
            && !self.no_store
            && left_ms > 0
            && self.max_age.is_none_or(|most| age_ms <= ms(most))
            && self.min_fresh.is_none_or(|least| left_ms >= ms(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Control {
        Control::read([value].into_iter())
    }

    #[test]
    fn directives_are_read_in_any_case_and_beside_unknown_ones() {
        let control = read("Max-Age=\"60\", private , NO-STORE,min-fresh = 5");
        assert_eq!(
            control,
            Control {
                no_store: true,
                max_age: Some(60),
                min_fresh: Some(5),
                ..Control::default()
            }
        );
        assert_eq!(read(""), Control::default());
        assert_eq!(read("no-storage, x=no-cache"), Control::default());
        assert_eq!(read("max-age=soon").max_age, Some(0));
    }

    #[test]
    fn an_answer_will_do_while_it_is_fresh_and_as_young_as_asked() {
        let takes = |value: &str, age_ms| read(value).takes(age_ms, 60_000);
        assert!(takes("", 59_999) && !takes("", 60_000));
        assert!(takes("max-age=5", 5000) && !takes("max-age=5", 5001));
        assert!(takes("min-fresh=10", 50_000) && !takes("min-fresh=10", 50_001));
        assert!(!takes("no-cache", 0) && !takes("no-store", 0));
        assert!(takes("only-if-cached, max-stale", 1));
    }
}
