//! How urgent a call is: as its app's calls are, unless it says that it is less.

use http::HeaderMap;

use super::error::RelayError;
use crate::gateway::app::App;
use crate::gateway::priority::Priority;
use crate::gateway::route::Route;

/// The header by which a call lowers its priority.
const HEADER: &str = "x-spillway-priority";

/// The call's priority.
///
/// # Errors
/// When the header says neither `high` nor `low`.
pub(super) fn priority(
    app: &App,
    headers: &HeaderMap,
    route: &Route<'_>,
) -> Result<Priority, RelayError> {
    let wish = match headers.get(HEADER) {
        None => Priority::High,
        Some(value) => {
            let read = value.to_str().ok().and_then(Priority::parse);
            read.ok_or(RelayError::NoSuchPriority)?
        }
    };
    Ok(app.priority.lowered_to(wish).lowered_to(route.priority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(own: Priority, header: Option<&str>, path: &str) -> Option<Priority> {
        let mut app = App::unrestricted("a");
        app.priority = own;
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(HEADER, value.parse().unwrap());
        }
        let route = Route::parse(path, "").unwrap();
        priority(&app, &headers, &route).ok()
    }

    #[test]
    fn a_call_can_lower_its_priority_and_not_raise_it() {
        use Priority::{High, Low};
        let path = "/v1/chat/completions";
        assert_eq!(of(High, None, path), Some(High));
        assert_eq!(of(High, Some("Low"), path), Some(Low));
        assert_eq!(of(Low, Some("high"), path), Some(Low));
        assert_eq!(of(High, None, "/low/v1/chat/completions"), Some(Low));
        assert_eq!(
            of(High, Some("high"), "/low/openai/v1/responses"),
            Some(Low)
        );
        assert_eq!(of(High, Some("urgent"), path), None);
    }
}
