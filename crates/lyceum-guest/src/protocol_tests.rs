use super::*;
use proptest::prelude::*;

fn op(line: &str) -> Result<Op, String> {
    Request::parse(line.as_bytes())
        .expect("a request with an id")
        .op
}

#[test]
fn reads_every_request() {
    assert_eq!(op(r#"{"id":1,"op":"ping"}"#), Ok(Op::Ping));
    assert_eq!(op(r#"{"id":1,"op":"prepare_seal"}"#), Ok(Op::PrepareSeal));
    assert_eq!(op(r#"{"id":1,"op":"sync","new_field":[]}"#), Ok(Op::Sync));
    assert_eq!(op(r#"{"id":1,"op":"shutdown"}"#), Ok(Op::Shutdown));
    assert_eq!(
        op(r#"{"id":1,"op":"set_time","time_unix_ms":5}"#),
        Ok(Op::SetTime(5))
    );
    assert_eq!(
        op(r#"{"id":1,"op":"clipboard_set","text":"早\n"}"#),
        Ok(Op::ClipboardSet("早\n".into()))
    );
    assert_eq!(op(r#"{"id":1,"op":"clipboard_get"}"#), Ok(Op::ClipboardGet));
    let mac = Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
    let network = op(r#"{"id":1,"op":"network","mac":"52:54:00:AB:cd:ef","timeout_ms":900}"#);
    assert_eq!(
        network,
        Ok(Op::Network {
            mac,
            timeout_ms: 900
        })
    );
    let seed = BASE64.encode([7; SEED_LEN]);
    let id = "0123456789abcdef0123456789abcdef";
    let line = format!(
        r#"{{"id":9,"op":"identity","hostname":"seat-01","machine_id":"{id}","time_unix_ms":12,"seed_b64":"{seed}"}}"#
    );
    let Ok(Op::Identity(identity)) = op(&line) else {
        panic!("{:?}", op(&line))
    };
    assert_eq!(
        (
            identity.hostname.as_str(),
            identity.time_unix_ms,
            identity.seed
        ),
        ("seat-01", 12, [7; SEED_LEN])
    );
    assert!(
        !format!("{identity:?}").contains("7, 7"),
        "the seed is secret"
    );
}

#[test]
fn says_what_is_wrong_with_a_request() {
    for (line, word) in [
        (r#"{"id":1}"#, "\"op\""),
        (r#"{"id":1,"op":"reboot"}"#, "reboot"),
        (
            r#"{"id":1,"op":"network","mac":"52:54:00:12:34","timeout_ms":1}"#,
            "mac",
        ),
        (
            r#"{"id":1,"op":"network","mac":"52:54:00:12:34:+6","timeout_ms":1}"#,
            "mac",
        ),
        (
            r#"{"id":1,"op":"network","mac":"52:54:00:12:34:56:78","timeout_ms":1}"#,
            "mac",
        ),
        (
            r#"{"id":1,"op":"network","mac":"52:54:00:12:34:56","timeout_ms":-1}"#,
            "timeout_ms",
        ),
        (r#"{"id":1,"op":"identity","hostname":"a b"}"#, "hostname"),
        (r#"{"id":1,"op":"identity","hostname":"-a"}"#, "hostname"),
        (
            r#"{"id":1,"op":"identity","hostname":"a","machine_id":"../../etc"}"#,
            "machine_id",
        ),
    ] {
        let error = op(line).expect_err(line);
        assert!(error.contains(word), "{line}: {error}");
    }
}

#[test]
fn skips_what_is_no_request() {
    for line in [
        "",
        "garbage",
        "[]",
        "7",
        r#"{"op":"ping"}"#,
        r#"{"id":"7","op":"ping"}"#,
        "{\"id\":1,\"op\":\"pi",
    ] {
        assert_eq!(Request::parse(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn answers_fit_in_a_line() {
    assert_eq!(answer(3, Ok(Value::Null)), b"{\"id\":3,\"ok\":true}\n");
    let long = answer(3, Ok(json!({ "text": "x".repeat(MAX_LINE) })));
    let text = String::from_utf8(long).expect("UTF-8");
    assert!(text.contains("\"ok\":false") && text.len() < 200, "{text}");
    let newline = answer(4, Err("two\nlines".into()));
    assert_eq!(newline.iter().filter(|&&b| b == b'\n').count(), 1);
}

fn lines_of(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut lines = Lines::default();
    let mut out = Vec::new();
    for chunk in chunks {
        lines.feed(chunk, |line| out.push(line.to_vec()));
    }
    out
}

#[test]
fn a_line_too_long_is_dropped_as_a_whole() {
    let long = vec![b'x'; MAX_LINE];
    assert_eq!(
        lines_of(&[&long, b"\nnext\n"]),
        [long.clone(), b"next".to_vec()]
    );
    assert_eq!(lines_of(&[&long, b"y", b"\nnext\n"]), [b"next".to_vec()]);
    assert_eq!(lines_of(&[&long, b"y\nnext\n"]), [b"next".to_vec()]);
    assert_eq!(
        lines_of(&[&long, b"y", &long, b"{\"id\":1}\nnext\n"]),
        [b"next".to_vec()]
    );
}

#[test]
fn a_new_host_does_not_continue_the_old_hosts_line() {
    let mut lines = Lines::default();
    lines.feed(b"{\"id\":1,\"op\":", |_| panic!("no line yet"));
    lines.reset();
    let mut out = Vec::new();
    lines.feed(b"{\"id\":2}\n", |line| out.push(line.to_vec()));
    assert_eq!(out, [b"{\"id\":2}".to_vec()]);
}

proptest! {
    /// However a stream is cut into reads, the same lines come out.
    #[test]
    fn cuts_do_not_matter(text in "[a-z\n]{0,200}", cuts in prop::collection::vec(0usize..200, 0..12)) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(lines_of(&chunks), lines_of(&[bytes]));
    }

    /// No input makes the parser fail in any other way than by saying no.
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::parse(&bytes);
        let _ = Mac::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_mac_reads_back(bytes in any::<[u8; 6]>()) {
        prop_assert_eq!(Mac::parse(&Mac(bytes).to_string()), Some(Mac(bytes)));
    }
}
