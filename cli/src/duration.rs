//! Durations and moments as people type them: `90s`, `10m`, `1h30m`, `2026-01-02T15:04:05Z`.
//! In: text. Out: a `Duration`, or milliseconds since the Unix epoch. Never: reads a clock.

use crate::time;
use std::time::Duration;

/// `90`, `90s`, `500ms`, `10m`, `1h30m`, `2d`; a bare number is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration like 90s, 10m or 1h30m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_ms = match &rest[digits..digits + letters] {
            "ms" => 1,
            "s" => 1_000,
            "" if digits == text.trim().len() => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(unit_ms).ok_or_else(wrong)?;
        total_ms = total_ms.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[digits + letters..];
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a duration in whole seconds, at least one.
pub fn seconds(text: &str) -> Result<u32, String> {
    let duration = parse(text)?;
    let whole =
        u32::try_from(duration.as_secs()).ok().filter(|whole| *whole > 0 && duration.subsec_nanos() == 0);
    whole.ok_or_else(|| format!("{text:?} is not a number of whole seconds, at least one"))
}

/// A duration before `now_unix_ms`, or a UTC time; milliseconds since the Unix epoch.
pub fn parse_since(text: &str, now_unix_ms: i64) -> Result<i64, String> {
    if let Some(moment) = time::parse_rfc3339(text.trim()) {
        return Ok(moment);
    }
    let ago = parse(text).map_err(|_| {
        format!("{text:?} is neither a duration like 10m nor a time like 2026-01-02T15:04:05Z")
    })?;
    Ok(now_unix_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)).max(0))
}

/// The two largest units of a duration, like `5s`, `3m20s`, `2h5m`, `4d3h`.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m{}s", seconds % 60),
        (0, h, m) => format!("{h}h{m}m"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("1500ms"), Ok(Duration::from_millis(1500)));
        for text in ["", "m", "-5s", "1x", "1h30", "99999999999999999999s", "ä", "1ä"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(short(Duration::from_secs(200)), "3m20s");
        assert_eq!(short(Duration::from_secs(360_000)), "4d4h");
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert_eq!(parse_since("10s", 60_000), Ok(50_000));
        assert_eq!(parse_since("1h", 60_000), Ok(0));
        assert_eq!(parse_since("1970-01-01T00:01:00Z", 0), Ok(60_000));
        assert!(parse_since("yesterday", 0).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = parse(&text);
            let _ = parse_since(&text, 0);
        }
    }
}
