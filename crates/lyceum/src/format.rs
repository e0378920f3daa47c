//! Numbers and times as people read them.

/// Bytes with a binary unit and three digits, for example `1.21 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// MiB as bytes are written.
pub fn mib(n: u64) -> String {
    bytes(n.saturating_mul(1024 * 1024))
}

/// A moment in the local time zone, to the second.
pub fn moment(unix_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms) {
        Ok(at) => at
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => unix_ms.to_string(),
    }
}

/// Milliseconds as seconds, or minutes when they are many.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

/// The word that serde writes for a value of an enum without content.
pub fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        _ => "?".into(),
    }
}

/// The text, or a dash.
pub fn dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".into(), |text| text.to_string())
}

/// The last twelve characters of a long id: the random part, enough to tell ids apart and short enough to type.
pub fn short(id: impl AsRef<str>) -> String {
    let id = id.as_ref();
    match id.char_indices().nth_back(11) {
        Some((at, _)) => id[at..].to_owned(),
        None => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        for (n, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1 << 20, "1.00 MiB"),
            (46 << 30, "46.0 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(n), want);
        }
    }

    #[test]
    fn any_time_can_be_shown() {
        for ms in [0, -1, i64::MAX, i64::MIN, 1_790_000_000_000] {
            assert!(!moment(ms).is_empty());
        }
        assert_eq!(duration(950), "950 ms");
        assert_eq!(duration(45_300), "45.3 s");
        assert_eq!(duration(125_000), "2 min 5 s");
    }

    #[test]
    fn short_ids_keep_what_differs() {
        assert_eq!(
            short("0197b3a2-0000-7000-8000-1234567890ab"),
            "1234567890ab"
        );
        assert_eq!(short("abc"), "abc");
    }
}
