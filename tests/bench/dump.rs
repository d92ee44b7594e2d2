//! Callgrind's files (the valgrind manual, "Callgrind Format Specification").
//!
//! `fn=(12) name` opens a function, whose number alone stands for it from then on. Each line
//! `POSITION COST` is its own cost. After `cfn=` and `calls=` comes one line with what those calls
//! cost, with all that they called in turn.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

/// What a program did between two moments.
pub(crate) struct Dump {
    pub(crate) instructions: f64,
    functions: Vec<Function>,
}

#[derive(Clone, Debug, Default)]
struct Function {
    name: String,
    own: f64,
    with_called: f64,
    calls: f64,
}

impl Dump {
    pub(crate) fn read(text: &str) -> io::Result<Self> {
        let mut functions: BTreeMap<&str, Function> = BTreeMap::new();
        let (mut current, mut called) = ("", "");
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                current = named(&mut functions, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = named(&mut functions, name);
            } else if let Some(rest) = line.strip_prefix("calls=") {
                let count = rest.split(' ').next().and_then(|count| count.parse().ok());
                functions.entry(called).or_default().calls += count.unwrap_or(0.0);
                is_call = true;
            } else if let Some(cost) = cost(line) {
                let function = functions.entry(current).or_default();
                function.with_called += cost;
                if !std::mem::take(&mut is_call) {
                    function.own += cost;
                }
            }
        }
        let totals = text.lines().find_map(|line| line.strip_prefix("totals:"));
        let total: Option<f64> = totals.and_then(|line| line.trim().parse().ok());
        let instructions = total.ok_or_else(|| io::Error::other("a dump without totals"))?;
        // What was running when counting began was never called since then: its whole cost looks
        // like its own. Those are the threads' outermost functions.
        let is_real = |function: &Function| function.own < instructions / 2.0;
        let functions = functions.into_values().filter(is_real).collect();
        Ok(Self {
            instructions,
            functions,
        })
    }

    /// How often these functions were called.
    pub(crate) fn calls_of(&self, names: &[&str]) -> f64 {
        let named = self.functions.iter();
        let named = named.filter(|function| names.contains(&function.name.as_str()));
        // Not `sum`, whose nothing is -0.
        named.fold(0.0, |calls, function| calls + function.calls)
    }

    /// The functions that cost most themselves, a line each, divided by `times`.
    pub(crate) fn list(&self, count: usize, times: f64) -> String {
        let mut functions: Vec<&Function> = self.functions.iter().collect();
        functions.sort_unstable_by(|a, b| b.own.total_cmp(&a.own));
        let mut text = String::new();
        for function in functions.into_iter().take(count) {
            let name: String = function.name.chars().take(100).collect();
            let _ = writeln!(
                text,
                "{:>8.0} {:>8.0} {:>6.1}  {name}",
                function.own / times,
                function.with_called / times,
                function.calls / times
            );
        }
        text
    }
}

/// The number of a function, which is now known by its name too.
fn named<'a>(functions: &mut BTreeMap<&'a str, Function>, text: &'a str) -> &'a str {
    let (number, name) = text.split_once(' ').unwrap_or((text, ""));
    let function = functions.entry(number).or_default();
    if !name.is_empty() {
        name.clone_into(&mut function.name);
    }
    number
}

/// The cost on a line: `12 345`, `+3 345`, `-3 345` or `* 345`.
fn cost(line: &str) -> Option<f64> {
    let (position, cost) = line.split_once(' ')?;
    let digits = position.strip_prefix(['+', '-']).unwrap_or(position);
    let is_position = digits == "*" || digits.bytes().all(|b| b.is_ascii_digit());
    if !is_position || digits.is_empty() {
        return None;
    }
    cost.parse().ok()
}
