//! Finds the `model` field of a multipart form (RFC 7578): uploads of audio and images name it there.
//!
//! Only the parts' heads are looked at; the files between them are skipped.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::request::{BodyError, Edit};

/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// Most parts that are looked at. The API's forms have about ten.
const MAX_PARTS: usize = 256;

/// What a form says of itself.
#[derive(Debug)]
pub struct Form<'a> {
    body: &'a [u8],
    boundary: Cow<'a, str>,
    /// Where the first part's delimiter stands.
    start: usize,
    model: Option<Range<usize>>,
}

impl<'a> Form<'a> {
    /// Reads a form whose `Content-Type` is given.
    ///
    /// # Errors
    /// When the type has no usable boundary, or the body does not begin and end with it.
    pub fn parse(body: &'a [u8], content_type: &'a str) -> Result<Self, BodyError> {
        let boundary = boundary(content_type).ok_or_else(|| {
            BodyError::whole("the multipart Content-Type has no boundary of 1 to 70 characters")
        })?;
        let mut form = Form {
            body,
            boundary,
            start: 0,
            model: None,
        };
        form.scan()?;
        Ok(form)
    }

    /// The model asked for, if one is.
    ///
    /// # Errors
    /// When the field is no UTF-8.
    pub fn model(&self) -> Result<Option<&'a str>, BodyError> {
        let Some(range) = self.model.clone() else {
            return Ok(None);
        };
        let value = self.body.get(range).unwrap_or_default();
        let model = std::str::from_utf8(value)
            .map_err(|_| BodyError::whole("the form's field `model` is not UTF-8"))?;
        Ok(Some(model.trim()))
    }

    /// The edit that makes `model` be `deployment`; `None` where it is already.
    pub fn set_model(&self, deployment: &str) -> Option<Edit> {
        if let Some(range) = &self.model {
            let same = self.body.get(range.clone()) == Some(deployment.as_bytes());
            return (!same).then(|| Edit {
                range: range.clone(),
                text: deployment.to_owned().into(),
            });
        }
        let part = format!(
            "{}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{deployment}\r\n",
            self.delimiter()
        );
        Some(Edit {
            range: self.start..self.start,
            text: Bytes::from(part),
        })
    }

    fn delimiter(&self) -> String {
        format!("--{}", self.boundary)
    }

    fn scan(&mut self) -> Result<(), BodyError> {
        let delimiter = self.delimiter();
        let line = format!("\r\n{delimiter}");
        let finder = memmem::Finder::new(line.as_bytes());
        let body = self.body;
        let first = if body.starts_with(delimiter.as_bytes()) {
            Some(delimiter.len())
        } else {
            finder.find(body).map(|at| at + line.len())
        };
        let mut at = first.ok_or_else(|| {
            BodyError::whole("the form does not contain the boundary that its Content-Type names")
        })?;
        self.start = at - delimiter.len();
        for _ in 0..MAX_PARTS {
            let part = body.get(at..).unwrap_or_default();
            if part.starts_with(b"--") {
                return Ok(());
            }
            let end = finder.find(part).ok_or_else(|| {
                BodyError::whole("the form breaks off before its closing boundary")
            })?;
            self.note(at, part.get(..end).unwrap_or_default())?;
            at += end + line.len();
        }
        Err(BodyError::whole(format!(
            "the form has more than {MAX_PARTS} parts"
        )))
    }

    fn note(&mut self, at: usize, part: &[u8]) -> Result<(), BodyError> {
        let head_end = memmem::find(part, b"\r\n\r\n").ok_or_else(|| {
            BodyError::whole("a part of the form has no empty line after its headers")
        })?;
        let head = String::from_utf8_lossy(part.get(..head_end).unwrap_or_default());
        if !head.lines().any(is_model) {
            return Ok(());
        }
        if self.model.is_some() {
            return Err(BodyError::whole(
                "the field `model` stands twice in the form",
            ));
        }
        self.model = Some(at + head_end + 4..at + part.len());
        Ok(())
    }
}

/// Whether a part's header line says that it is the field `model`.
fn is_model(line: &str) -> bool {
    let Some((name, value)) = line.split_once(':') else {
        return false;
    };
    name.trim().eq_ignore_ascii_case("content-disposition")
        && value.split(';').any(|parameter| {
            let Some((key, value)) = parameter.split_once('=') else {
                return false;
            };
            key.trim().eq_ignore_ascii_case("name") && value.trim().trim_matches('"') == "model"
        })
}

fn boundary(content_type: &str) -> Option<Cow<'_, str>> {
    let value = content_type.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim())
    })?;
    let boundary = match value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) {
        Some(quoted) => Cow::Owned(quoted.replace('\\', "")),
        None => Cow::Borrowed(value),
    };
    (1..=MAX_BOUNDARY)
        .contains(&boundary.len())
        .then_some(boundary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::segments;
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xyz";

    fn form(parts: &[(&str, &str)]) -> String {
        let mut body = String::new();
        for (disposition, value) in parts {
            body += &format!(
                "--xyz\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n"
            );
        }
        body + "--xyz--\r\n"
    }

    fn with_model(body: &str, deployment: &str) -> String {
        let read = Form::parse(body.as_bytes(), TYPE).unwrap();
        let edits: Vec<Edit> = read.set_model(deployment).into_iter().collect();
        String::from_utf8(segments(&Bytes::from(body.to_owned()), &edits).concat()).unwrap()
    }

    #[test]
    fn the_model_is_read_and_only_it_changes() {
        let file = r#"name="file"; filename="model""#;
        let body = form(&[
            (file, "--xy\r\nname=\"model\""),
            (r#"name="model""#, "whisper"),
        ]);
        let read = Form::parse(body.as_bytes(), TYPE).unwrap();
        assert_eq!(read.model().unwrap(), Some("whisper"));
        assert_eq!(read.set_model("whisper"), None);
        assert_eq!(with_model(&body, "w-2"), body.replace("whisper", "w-2"));
    }

    #[test]
    fn a_missing_model_is_put_in() {
        let body = form(&[(r#"name="file"; filename="a.wav""#, "RIFF")]);
        let after = with_model(&body, "whisper");
        let read = Form::parse(after.as_bytes(), TYPE).unwrap();
        assert_eq!(read.model().unwrap(), Some("whisper"));
        assert!(after.ends_with(&body));
        // The boundary within a line before the first part is none.
        let preamble = format!("see --xyz here\r\n{body}");
        let after = with_model(&preamble, "whisper");
        assert_eq!(
            Form::parse(after.as_bytes(), TYPE)
                .unwrap()
                .model()
                .unwrap(),
            Some("whisper")
        );
    }

    #[test]
    fn the_boundary_may_be_quoted_and_follow_other_parameters() {
        let body = form(&[("name=model", "m")]);
        let quoted = "Multipart/Form-Data; charset=utf-8; Boundary=\"xyz\"";
        let read = Form::parse(body.as_bytes(), quoted).unwrap();
        assert_eq!(read.model().unwrap(), Some("m"));
    }

    #[test]
    fn broken_forms_say_what_is_wrong() {
        let error =
            |body: &str, kind: &str| Form::parse(body.as_bytes(), kind).unwrap_err().message;
        let whole = form(&[(r#"name="model""#, "m")]);
        assert!(error(&whole, "multipart/form-data").contains("no boundary"));
        assert!(error(&whole, "multipart/form-data; boundary=").contains("no boundary"));
        assert!(error("", TYPE).contains("does not contain the boundary"));
        assert!(error(&whole[..whole.len() - 9], TYPE).contains("breaks off"));
        assert!(error("--xyz\r\nno head\r\n--xyz--", TYPE).contains("no empty line"));
        let twice = form(&[(r#"name="model""#, "a"), (r#"name="model""#, "b")]);
        assert!(error(&twice, TYPE).contains("twice"));
        let many = form(&vec![(r#"name="x""#, ""); MAX_PARTS + 1]);
        assert!(error(&many, TYPE).contains("more than"));
        let latin =
            b"--xyz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n\xff\r\n--xyz--";
        assert!(Form::parse(latin, TYPE).unwrap().model().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(
            bytes in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'\r'), Just(b'\n'), Just(b'x'), any::<u8>()], 0..200),
        ) {
            let body = [b"--x\r\n".as_slice(), &bytes].concat();
            if let Ok(read) = Form::parse(&body, "multipart/form-data; boundary=x") {
                let _ = (read.model(), read.set_model("m"));
            }
        }
    }
}
