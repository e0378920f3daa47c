//! Content lines: unfolded, taken apart.

use super::IcsError;

/// Longest line after unfolding, bytes.
const LONGEST: usize = 256 * 1024;

/// `NAME;PARAMETER=VALUE:VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// The first of its lines in the file, from 1.
    pub number: usize,
    /// In capitals.
    pub name: String,
    /// Names in capitals.
    pub parameters: Vec<(String, String)>,
    /// As it stands there.
    pub value: String,
}

impl Line {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub fn error(&self, why: impl Into<String>) -> IcsError {
        IcsError {
            line: self.number,
            why: why.into(),
        }
    }

    /// The value as text, without its escapes.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(self.value.len());
        let mut chars = self.value.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some('n' | 'N') => out.push(' '),
                    Some(c) => out.push(c),
                    None => {}
                },
                c if c.is_control() => out.push(' '),
                c => out.push(c),
            }
        }
        out.trim().to_owned()
    }
}

/// A file's content lines.
pub(super) fn lines(text: &str) -> Result<Vec<Line>, IcsError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut unfolded: Vec<(usize, String)> = Vec::new();
    for (number, raw) in (1..).zip(text.split('\n')) {
        let raw = raw.strip_suffix('\r').unwrap_or(raw);
        if let Some(more) = raw.strip_prefix([' ', '\t']) {
            match unfolded.last_mut() {
                Some((first, line)) if line.len() + more.len() > LONGEST => {
                    return Err(IcsError {
                        line: *first,
                        why: format!("the line is longer than {LONGEST} bytes"),
                    });
                }
                Some((_, line)) => line.push_str(more),
                None => {
                    return Err(IcsError {
                        line: number,
                        why: "the file begins with the continuation of a line: is it a calendar (.ics)?"
                            .into(),
                    });
                }
            }
        } else if !raw.trim().is_empty() {
            unfolded.push((number, raw.to_owned()));
        }
    }
    unfolded
        .into_iter()
        .map(|(n, l)| take_apart(n, &l))
        .collect()
}

fn take_apart(number: usize, text: &str) -> Result<Line, IcsError> {
    let wrong = |why: &str| IcsError {
        line: number,
        why: format!("{why}, in {:?}", text.chars().take(60).collect::<String>()),
    };
    let end = text
        .find([';', ':'])
        .ok_or_else(|| wrong("there is no colon, so this is no line of a calendar"))?;
    let name = &text[..end];
    let plain = |n: &str| {
        !n.is_empty()
            && n.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !plain(name) {
        return Err(wrong("the name before the colon is none of a calendar's"));
    }
    let mut parameters = Vec::new();
    let mut rest = &text[end..];
    while let Some(after) = rest.strip_prefix(';') {
        let (key, after) = after
            .split_once('=')
            .ok_or_else(|| wrong("a parameter has no value"))?;
        if !plain(key) {
            return Err(wrong("a parameter's name is none of a calendar's"));
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted
                    .find('"')
                    .ok_or_else(|| wrong("a quotation mark is not closed"))?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => {
                let end = after
                    .find([';', ':'])
                    .ok_or_else(|| wrong("there is no colon after the parameters"))?;
                (&after[..end], &after[end..])
            }
        };
        // A list of values: none of those that are read here has one, so it is kept as it is.
        let (value, after) = match after.find([';', ':']) {
            Some(0) => (value.to_owned(), after),
            Some(more) => (format!("{value}{}", &after[..more]), &after[more..]),
            None => return Err(wrong("there is no colon after the parameters")),
        };
        parameters.push((key.to_ascii_uppercase(), value));
        rest = after;
    }
    Ok(Line {
        number,
        name: name.to_ascii_uppercase(),
        parameters,
        value: rest.strip_prefix(':').unwrap_or(rest).to_owned(),
    })
}
