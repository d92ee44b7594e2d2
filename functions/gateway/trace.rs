//! Which trace a call belongs to: the header `traceparent` (W3C Trace Context, level 1).

/// A `traceparent`, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The trace-id: 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// The span that the call was made in.
    pub parent: Parent,
}

/// The span of the client's that a call was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its id; never 0.
    pub span_id: u64,
    /// Whether the client records its trace.
    pub is_sampled: bool,
}

impl<'a> TraceParent<'a> {
    /// Reads the header. `None` where it is none: whoever gets such a one starts a trace of their own.
    pub fn parse(header: &'a str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = parts.next()?;
        let span_id = hex(parts.next()?, 16)?;
        let flags = hex(parts.next()?, 2)?;
        // Later versions may go on; 255 is none.
        let ends = parts.next().is_none();
        let is_trace = is_hex(trace_id, 32) && trace_id.bytes().any(|digit| digit != b'0');
        let is_one = version != 255 && (version > 0 || ends) && is_trace && span_id != 0;
        is_one.then_some(Self {
            trace_id,
            parent: Parent {
                span_id,
                is_sampled: flags & 1 == 1,
            },
        })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(is_digit)
}

fn hex(text: &str, digits: usize) -> Option<u64> {
    // The number's reader would take a sign.
    is_hex(text, digits).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_names_trace_and_span_and_whether_it_is_sampled() {
        for (flags, is_sampled) in [("01", true), ("00", false), ("03", true), ("02", false)] {
            let header = format!("00-{TRACE}-{SPAN}-{flags}");
            let read = TraceParent::parse(&header).unwrap();
            assert_eq!(read.trace_id, TRACE);
            let span_id = 0x00f0_67aa_0ba9_02b7;
            let parent = Parent {
                span_id,
                is_sampled,
            };
            assert_eq!(read.parent, parent, "{header}");
        }
    }

    #[test]
    fn a_later_version_may_have_more() {
        let more = format!("01-{TRACE}-{SPAN}-01-more");
        assert!(TraceParent::parse(&more).is_some());
        assert_eq!(TraceParent::parse(&more.replacen("01", "00", 1)), None);
        assert_eq!(TraceParent::parse(&more.replacen("01", "ff", 1)), None);
    }

    #[test]
    fn what_is_none_is_not_taken() {
        let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
        for header in [
            String::new(),
            "00-xyz-1-01".into(),
            format!("00-{TRACE}"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{no_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{no_span}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-+0f067aa0ba902b7-01"),
            format!("00-{TRACE}é-{SPAN}-01"),
        ] {
            assert_eq!(TraceParent::parse(&header), None, "{header}");
        }
    }
}
