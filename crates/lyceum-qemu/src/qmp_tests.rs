use super::*;
use tokio::io::AsyncBufReadExt;

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

/// A QEMU that answers each command with what `answer` makes of it.
async fn qemu(answer: impl Fn(Value) -> String + Send + 'static) -> Qmp {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    tokio::spawn(async move {
        let (reader, mut writer) = theirs.into_split();
        writer.write_all(GREETING.as_bytes()).await.expect("greet");
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let request: Value = serde_json::from_str(&line).expect("JSON");
            let id = &request["id"];
            let text = match request["execute"].as_str() {
                Some("qmp_capabilities") => format!("{{\"return\":{{}},\"id\":{id}}}\n"),
                Some("bye") => return,
                _ => answer(request),
            };
            if writer.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    Qmp::greet(ours).await.expect("greeted")
}

#[tokio::test]
async fn unknown_events_garbage_and_late_replies_do_not_disturb() {
    let qmp = qemu(|request| {
        let id = &request["id"];
        format!(
            "{{\"event\":\"NEVER_HEARD_OF\",\"data\":{{\"a\":1}}}}\nnot json\n[1]\n{{\"return\":1,\"id\":99999}}\n{{\"return\":1}}\n{{\"return\":\"yes\",\"id\":{id}}}\n"
        )
    })
    .await;
    let mut events = qmp.events();
    assert_eq!(
        qmp.execute("ask", Value::Null).await.expect("answer"),
        "yes"
    );
    let unknown = events
        .wait_for("event", Duration::from_secs(5), |e| match e {
            Event::Unknown { name, data } => Some((name.clone(), data.clone())),
            _ => None,
        })
        .await
        .expect("event");
    assert_eq!(unknown, ("NEVER_HEARD_OF".into(), json!({"a": 1})));
}

#[tokio::test]
async fn a_refusal_carries_qemus_words() {
    let qmp = qemu(|r| {
        format!(
            "{{\"error\":{{\"class\":\"GenericError\",\"desc\":\"no\"}},\"id\":{}}}\n",
            r["id"]
        )
    })
    .await;
    let error = qmp
        .execute("device_add", Value::Null)
        .await
        .expect_err("refused");
    assert_eq!(error.to_string(), "QEMU refused device_add: no");
}

#[tokio::test]
async fn silence_is_a_timeout_and_the_next_command_works() {
    let qmp = qemu(|r| match r["execute"].as_str() {
        Some("silent") => String::new(),
        _ => format!("{{\"return\":{{}},\"id\":{}}}\n", r["id"]),
    })
    .await;
    let slow = qmp
        .execute_within("silent", Value::Null, Duration::from_millis(20))
        .await;
    assert!(
        matches!(slow, Err(HypervisorError::Timeout { .. })),
        "{slow:?}"
    );
    qmp.execute("other", Value::Null).await.expect("answer");
}

#[tokio::test]
async fn a_lost_connection_wakes_everybody() {
    let qmp = qemu(|_| String::new()).await;
    let (waiting, ()) = tokio::join!(qmp.execute("silent", Value::Null), async {
        let _ = qmp.execute("bye", Value::Null).await;
    });
    assert!(waiting.expect_err("lost").to_string().contains("closed"));
    assert!(qmp.execute("more", Value::Null).await.is_err());
}

#[tokio::test]
async fn somebody_else_on_the_socket_is_not_qemu() {
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    theirs.write_all(b"SSH-2.0-x\n").await.expect("write");
    assert!(Qmp::greet(ours).await.is_err());
}
