//! The responses of a session that have begun and not ended.

use serde_json::Value;

use crate::gateway::time::Timestamp;

/// Most that are kept of a session at once. Those beyond are passed on as any, but neither cancelled nor
/// charged for unless their end says what they used.
const MOST: usize = 256;

/// A response that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Response {
    /// `None`: the backend did not name it.
    id: Option<Box<str>>,
    begun: Timestamp,
}

/// The responses of a session that have begun and not ended, in their order. There may be several: those
/// outside the conversation run beside each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderWay(Vec<Response>);

impl UnderWay {
    /// Notes that a response begins.
    pub fn begin(&mut self, id: Option<Box<str>>, now: Timestamp) {
        if self.0.len() < MOST {
            self.0.push(Response { id, begun: now });
        }
    }

    /// Notes that a response has ended: when it began, where that is known. Where one of a response's two
    /// events does not name it, the oldest that it may be is taken for it.
    pub fn end(&mut self, id: Option<&str>) -> Option<Timestamp> {
        let place = |of: Option<&str>| self.0.iter().position(|one| one.id.as_deref() == of);
        let at = place(id).or_else(|| place(None));
        let at = at.or_else(|| (id.is_none() && !self.0.is_empty()).then_some(0));
        at.map(|at| self.0.remove(at).begun)
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When each of them began.
    pub fn begun(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().map(|one| one.begun)
    }

    /// The events that ask a backend to end them; it then says what each has used. Without a response's id
    /// the event means the one in the conversation (OpenAI's API reference, `response.cancel`).
    pub fn cancels(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for one in &self.0 {
            let cancel = match &one.id {
                Some(id) => {
                    let id = Value::from(&**id);
                    format!(r#"{{"type":"response.cancel","response_id":{id}}}"#)
                }
                None => r#"{"type":"response.cancel"}"#.to_owned(),
            };
            let cancel = cancel.into_bytes();
            if !all.contains(&cancel) {
                all.push(cancel);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn begun(ids: &[Option<&str>]) -> UnderWay {
        let mut all = UnderWay::default();
        for (ms, id) in (1..).zip(ids) {
            all.begin(id.map(Box::from), at(ms));
        }
        all
    }

    fn texts(all: &UnderWay) -> Vec<String> {
        let cancels = all.cancels().into_iter();
        cancels.map(|one| String::from_utf8(one).unwrap()).collect()
    }

    #[test]
    fn each_is_cancelled_by_its_name_until_it_has_ended() {
        let mut all = begun(&[Some("resp_1"), Some("resp_2"), Some("resp_3")]);
        assert_eq!(all.end(Some("resp_2")), Some(at(2)));
        assert_eq!(all.end(Some("resp_2")), None, "it has ended");
        assert_eq!(
            texts(&all),
            [
                r#"{"type":"response.cancel","response_id":"resp_1"}"#,
                r#"{"type":"response.cancel","response_id":"resp_3"}"#
            ]
        );
        assert!(all.begun().eq([at(1), at(3)]));
        assert_eq!(all.end(Some("resp_3")), Some(at(3)));
        assert_eq!(all.end(Some("resp_1")), Some(at(1)));
        assert!(all.is_empty() && texts(&all).is_empty());
    }

    #[test]
    fn those_without_a_name_are_cancelled_by_one_event_and_end_in_their_order() {
        let mut all = begun(&[None, Some("a"), None]);
        assert_eq!(
            texts(&all),
            [
                r#"{"type":"response.cancel"}"#,
                r#"{"type":"response.cancel","response_id":"a"}"#
            ]
        );
        assert_eq!(all.end(Some("b")), Some(at(1)), "its begin had no name");
        assert_eq!(all.end(None), Some(at(3)));
        assert_eq!(all.end(None), Some(at(2)), "its end has none");
        assert_eq!(all.end(None), None);
    }

    #[test]
    fn a_name_can_say_nothing_but_itself() {
        let odd = begun(&[Some(r#"a","type":"x"#)]);
        let event: Value = serde_json::from_slice(&odd.cancels()[0]).unwrap();
        assert_eq!(event["type"], "response.cancel");
        assert_eq!(event["response_id"], r#"a","type":"x"#);
    }

    #[test]
    fn no_session_holds_more_than_so_many() {
        let mut all = UnderWay::default();
        for ms in 0..1000 {
            all.begin(Some(format!("resp_{ms}").into()), at(ms));
        }
        assert_eq!(all.begun().count(), MOST);
    }
}
