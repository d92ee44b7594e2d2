//! `multipart/form-data` (RFC 7578), as far as uploads use it. The body is in memory already; parts are
//! slices of it.

use bytes::Bytes;
use memchr::memmem;

use super::errors::WireError;

/// More parts than any upload has: 16 images to edit, and their fields.
const MAX_PARTS: usize = 64;

/// The fields of a form.
#[derive(Debug, Default)]
pub(super) struct Form {
    parts: Vec<Part>,
}

/// One field.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) data: Bytes,
}

impl Form {
    /// Reads `body` by the boundary in `content_type`.
    ///
    /// # Errors
    /// 400 when it is no form, has no end or too many parts.
    pub(super) fn parse(content_type: &str, body: &Bytes) -> Result<Self, WireError> {
        let boundary = boundary(content_type).ok_or_else(|| bad("no boundary in Content-Type"))?;
        let delimiter = format!("\r\n--{boundary}");
        // The first delimiter has no line end before it.
        let opening = delimiter.get(2..).unwrap_or_default();
        let mut at = memmem::find(body, opening.as_bytes()).ok_or_else(|| bad("no parts"))?;
        at += opening.len();
        let finder = memmem::Finder::new(delimiter.as_bytes());
        let mut form = Self::default();
        loop {
            let rest = body.get(at..).unwrap_or_default();
            if rest.starts_with(b"--") {
                return Ok(form);
            }
            let headers_len = memmem::find(rest, b"\r\n\r\n").ok_or_else(|| bad("no headers"))?;
            let start = headers_len + 4;
            let content = rest.get(start..).unwrap_or_default();
            let length = finder.find(content).ok_or_else(|| bad("no end"))?;
            let headers = String::from_utf8_lossy(rest.get(..headers_len).unwrap_or_default());
            let data = body.slice_ref(content.get(..length).unwrap_or_default());
            if form.parts.len() >= MAX_PARTS {
                return Err(bad("too many parts"));
            }
            form.parts.push(part(&headers, data)?);
            at += start + length + delimiter.len();
        }
    }

    /// The text of a field; `None` when it is absent or no UTF-8.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.part(name)
            .and_then(|part| std::str::from_utf8(&part.data).ok())
    }

    /// The first field called `name`, or `name[]` as lists are.
    pub(super) fn part(&self, name: &str) -> Option<&Part> {
        self.parts
            .iter()
            .find(|part| part.name.strip_suffix("[]").unwrap_or(&part.name) == name)
    }

    /// How many fields are called `name` or `name[]`.
    pub(super) fn count(&self, name: &str) -> usize {
        let called = |part: &&Part| part.name.strip_suffix("[]").unwrap_or(&part.name) == name;
        self.parts.iter().filter(called).count()
    }
}

fn bad(what: &str) -> WireError {
    WireError::invalid("body", &format!("Could not parse multipart form: {what}."))
}

fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    let is_form = kind.trim().eq_ignore_ascii_case("multipart/form-data");
    let mut parameters = parameters.split(';').map(str::trim);
    let value = parameters
        .find_map(|p| p.strip_prefix("boundary="))?
        .trim_matches('"');
    // RFC 2046: 1 to 70 characters.
    (is_form && (1..=70).contains(&value.len())).then_some(value)
}

fn part(headers: &str, data: Bytes) -> Result<Part, WireError> {
    let is_disposition = |line: &&str| {
        line.get(..20)
            .is_some_and(|name| name.eq_ignore_ascii_case("content-disposition:"))
    };
    let disposition = headers.lines().find(is_disposition).unwrap_or_default();
    let name = quoted(disposition, "; name=\"").ok_or_else(|| bad("a part without a name"))?;
    Ok(Part {
        name,
        filename: quoted(disposition, "; filename=\""),
        data,
    })
}

fn quoted(header: &str, key: &str) -> Option<String> {
    let (_, after) = header.split_once(key)?;
    after.split_once('"').map(|(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &str = "--xyz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n\
        --xyz\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
        Content-Type: audio/wav\r\n\r\n\r\n--xy\r\n--xyz--\r\n";

    #[test]
    fn fields_and_files_are_found_and_kept_to_the_byte() {
        let body = Bytes::from_static(BODY.as_bytes());
        let form = Form::parse("multipart/form-data; boundary=\"xyz\"", &body).unwrap();
        assert_eq!(form.text("model"), Some("whisper"));
        let file = form.part("file").unwrap();
        assert_eq!(file.filename.as_deref(), Some("a.wav"));
        assert_eq!(&file.data[..], b"\r\n--xy");
        assert_eq!((form.count("file"), form.count("other")), (1, 0));
    }

    proptest! {
        #[test]
        fn a_broken_form_is_an_error_and_never_a_panic(cut in 0usize..200, byte: u8, at in 0usize..200) {
            let mut body = BODY.as_bytes().to_vec();
            if let Some(b) = body.get_mut(at) { *b = byte; }
            body.truncate(cut);
            let complete = cut >= BODY.len() - 2;
            let parsed = Form::parse("multipart/form-data; boundary=xyz", &body.into());
            prop_assert!(complete || parsed.is_err());
        }
    }
}
