//! Lines from somebody who isn't trusted to end them.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// Longer than allowed; it was skipped up to its end.
    TooLong,
}

/// Reads the next line of at most `max` bytes. `None`: the end; what is left
/// without an end of line is dropped.
pub(crate) async fn next_line(
    from: &mut (impl AsyncBufRead + Unpin),
    max: usize,
) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let chunk = from.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        if line.len() + part.len() > max {
            too_long = true;
            line = Vec::new();
        } else if !too_long {
            line.extend_from_slice(part);
        }
        let used = end.map_or(chunk.len(), |e| e + 1);
        from.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(if too_long {
                Line::TooLong
            } else {
                Line::Whole(line)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_lines_are_skipped_whole_and_cost_no_memory() {
        let text = [
            b"one\r\n".to_vec(),
            vec![b'x'; 100_000],
            b"\ntwo\nrest".to_vec(),
        ]
        .concat();
        let mut from = tokio::io::BufReader::with_capacity(512, &text[..]);
        let mut got = Vec::new();
        while let Some(line) = next_line(&mut from, 1000).await.expect("read") {
            got.push(line);
        }
        assert_eq!(
            got,
            [
                Line::Whole(b"one".to_vec()),
                Line::TooLong,
                Line::Whole(b"two".to_vec())
            ]
        );
    }
}
