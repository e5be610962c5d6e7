//! Times of the API (milliseconds since the Unix epoch) as people and programs read them, in UTC.
//! In: numbers and text. Out: RFC 3339 text and ages. Never: reads a time zone.

use crate::duration;
use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use ::time::macros::format_description;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock in milliseconds since the Unix epoch.
pub fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-01-02T15:04:05.123Z`; `None` for 0, which means "has not happened", and for what is not in
/// the years that four digits can write.
pub fn rfc3339(unix_ms: i64) -> Option<String> {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()?;
    (unix_ms != 0).then(|| moment.format(form).ok()).flatten()
}

/// How long ago, like `3m20s`; `-` when it has not happened.
pub fn age(unix_ms: i64, now_unix_ms: i64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let ago = u64::try_from(now_unix_ms.saturating_sub(unix_ms)).unwrap_or(0);
    duration::short(Duration::from_millis(ago))
}

/// Reads `2026-01-02T15:04:05Z` (RFC 3339), with or without a fraction, of which milliseconds count.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (ms, text) in [
            (1, "1970-01-01T00:00:00.001Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_366_245_123, "2026-01-02T15:04:05.123Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms).as_deref(), Some(text));
            assert_eq!(parse_rfc3339(text), Some(ms));
        }
        assert_eq!(rfc3339(0), None);
        assert_eq!(parse_rfc3339("2026-01-02T15:04:05Z"), Some(1_767_366_245_000));
        assert_eq!(parse_rfc3339("2026-01-02T17:04:05+02:00"), Some(1_767_366_245_000));
        assert_eq!(parse_rfc3339("2026-02-30T15:04:05Z"), None);
        assert_eq!(age(1_000, 201_000), "3m20s");
    }

    proptest::proptest! {
        #[test]
        fn every_moment_survives_the_round_trip(ms in 1i64..253_402_300_800_000) {
            let text = rfc3339(ms).unwrap();
            proptest::prop_assert_eq!(parse_rfc3339(&text), Some(ms));
        }

        #[test]
        fn never_panics(text in "[0-9TZ:.äö-]{0,30}", ms in proptest::num::i64::ANY) {
            let _ = parse_rfc3339(&text);
            let _ = rfc3339(ms / 2);
            let _ = age(ms, 0);
        }
    }
}
