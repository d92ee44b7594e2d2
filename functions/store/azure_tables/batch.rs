//! The text of entity group transactions: what the crate writes is put right, and what it does not
//! read is read.
//!
//! The crate ends lines with LF only, leaves the last delimiter open and takes an answer for a
//! success whatever stands in it. RFC 2046 wants CRLF and a closed delimiter; the service answers
//! 202 with the refusal of one write inside.

use http::StatusCode;

/// Most bytes of a transaction (Azure's storage-tables-scale-targets).
pub(super) const MAX_BYTES: usize = 4 << 20;

/// What a transaction's media type begins with.
pub(super) const MEDIA_TYPE: &str = "multipart/mixed";

/// A transaction as the service documents it. Each insert also asks not to be sent back what it
/// inserted.
///
/// Lines can be told apart by their ends: JSON writes line ends within texts as `\n`.
pub(super) fn put_right(text: &str) -> String {
    let mut batch = String::with_capacity(text.len() + text.len() / 16);
    let mut lines = text.trim_end_matches('\n').split('\n').peekable();
    while let Some(line) = lines.next() {
        batch.push_str(line.trim_end_matches('\r'));
        if lines.peek().is_none() && !line.ends_with("--") {
            batch.push_str("--");
        }
        batch.push_str("\r\n");
        if line.starts_with("POST ") && line.ends_with(" HTTP/1.1") {
            batch.push_str("Prefer: return-no-content\r\n");
        }
    }
    batch
}

/// The refusal inside an answer: its status and body.
pub(super) fn refusal(answer: &str) -> Option<(StatusCode, &str)> {
    let mut rest = answer;
    while let Some(at) = rest.find("HTTP/1.1 ") {
        let starts_a_line = at == 0 || rest.get(..at).is_some_and(|before| before.ends_with('\n'));
        let part = rest.get(at + "HTTP/1.1 ".len()..).unwrap_or_default();
        rest = part;
        if !starts_a_line {
            continue;
        }
        let status = part.split_ascii_whitespace().next()?;
        let status: StatusCode = status.parse().ok()?;
        if status.as_u16() >= 400 {
            return Some((status, body(part)));
        }
    }
    None
}

/// The body of a part: after its headers, before the next delimiter.
fn body(part: &str) -> &str {
    let after = |end: &str| part.split_once(end).map(|(_, body)| body);
    let body = after("\r\n\r\n").or_else(|| after("\n\n"));
    let body = body.unwrap_or_default();
    let end = body.find("\n--").unwrap_or(body.len());
    body.get(..end).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the crate writes them.
    const WRITTEN: &str = "--batch_a\nContent-Type: multipart/mixed; boundary=changeset_b\n\n--changeset_b\nContent-Type: application/http\nContent-Transfer-Encoding: binary\n\nPOST http://h/t HTTP/1.1\naccept: x\n\n{\"a\":\"POST x HTTP/1.1\\n\"}\n--changeset_b--\n--batch_a\n";

    #[test]
    fn a_transaction_has_the_line_ends_and_the_end_that_the_standard_wants() {
        let text = put_right(WRITTEN);
        assert!(
            text.ends_with("--changeset_b--\r\n--batch_a--\r\n"),
            "{text}"
        );
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    }

    #[test]
    fn only_inserts_ask_for_no_content() {
        let text = put_right(WRITTEN);
        assert_eq!(text.matches("Prefer: return-no-content").count(), 1);
        assert!(text.contains(
            "POST http://h/t HTTP/1.1\r\nPrefer: return-no-content\r\naccept: x\r\n\r\n{"
        ));
        let merge = put_right("PUT http://h/t HTTP/1.1\n\n{}\n--batch_a\n");
        assert!(!merge.contains("Prefer"));
    }

    #[test]
    fn the_refusal_in_an_answer_is_found() {
        let answer = "--batchresponse_x\r\nContent-Type: multipart/mixed; boundary=changesetresponse_y\r\n\r\n--changesetresponse_y\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\nHTTP/1.1 409 Conflict\r\nContent-Type: application/json;odata=minimalmetadata\r\n\r\n{\"odata.error\":{\"code\":\"EntityAlreadyExists\"}}\r\n--changesetresponse_y--\r\n--batchresponse_x--\r\n";
        let (status, body) = refusal(answer).unwrap();
        assert_eq!(status, 409);
        assert_eq!(body, "{\"odata.error\":{\"code\":\"EntityAlreadyExists\"}}");
    }

    #[test]
    fn an_answer_without_a_refusal_has_none() {
        let answer = "--x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n{\"text\":\"HTTP/1.1 409 Conflict\"}\r\n--x--\r\n";
        assert_eq!(refusal(answer), None);
        assert_eq!(refusal(""), None);
        assert_eq!(refusal("HTTP/1.1 x"), None);
    }
}
