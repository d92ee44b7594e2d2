//! CSV that spreadsheets open as what it is: RFC 4180, and no cell that one would compute.

/// What a cell begins with that a spreadsheet takes for a formula (OWASP, "CSV Injection"), the wide
/// forms included, which some convert.
const FORMULA: [char; 11] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
];

/// Appends a line of these cells.
pub fn line<'a>(out: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    let mut is_first = true;
    for text in cells {
        if !is_first {
            out.push(',');
        }
        is_first = false;
        cell(out, text);
    }
    out.push_str("\r\n");
}

/// A cell that could be a formula begins with `'`, which spreadsheets take for "this is text". Names
/// and ids come from outside: an app's user can be called `=HYPERLINK(...)`.
fn cell(out: &mut String, text: &str) {
    let guard = if text.starts_with(FORMULA) { "'" } else { "" };
    let is_plain = !text.contains(['"', ',', '\r', '\n']) && guard.is_empty();
    if is_plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    out.push_str(guard);
    for part in text.split_inclusive('"') {
        out.push_str(part);
        if part.ends_with('"') {
            out.push('"');
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(cells: &[&str]) -> String {
        let mut out = String::new();
        line(&mut out, cells.iter().copied());
        out
    }

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        assert_eq!(of(&["a", "b c", ""]), "a,b c,\r\n");
        assert_eq!(
            of(&["a,b", "say \"hi\"", "1\n2"]),
            "\"a,b\",\"say \"\"hi\"\"\",\"1\n2\"\r\n"
        );
    }

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\u{ff1d}1"] {
            assert!(of(&[text]).starts_with("\"'"), "{text:?}");
        }
    }

    /// Reads a line as RFC 4180 says.
    fn read(text: &str) -> Vec<String> {
        let mut cells = vec![String::new()];
        let mut quoted = false;
        let mut chars = text.strip_suffix("\r\n").unwrap().chars().peekable();
        while let Some(c) = chars.next() {
            let cell = cells.last_mut().unwrap();
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    cell.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                c => cell.push(c),
            }
        }
        cells
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(cells in prop::collection::vec("(?s)[a=,\"'\r\n ü-]{0,8}", 1..6)) {
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            let read = read(&of(&cells));
            prop_assert_eq!(read.len(), cells.len());
            for (read, cell) in read.iter().zip(cells) {
                let guarded = cell.starts_with(FORMULA);
                let expected = if guarded { format!("'{cell}") } else { cell.to_owned() };
                prop_assert_eq!(read, &expected);
            }
        }
    }
}
