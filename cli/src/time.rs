//! Times of the API (milliseconds since the Unix epoch) as people and programs read them, in UTC.
//! In: numbers and text. Out: RFC 3339 text and ages. Never: reads a time zone.

use crate::duration;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock in milliseconds since the Unix epoch.
pub fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-01-02T15:04:05.123Z`; `None` for 0, which means "has not happened".
pub fn rfc3339(unix_ms: i64) -> Option<String> {
    (unix_ms != 0).then(|| {
        let (year, month, day) = civil_from_days(unix_ms.div_euclid(86_400_000));
        let ms = unix_ms.rem_euclid(86_400_000);
        let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    })
}

/// How long ago, like `3m20s`; `-` when it has not happened.
pub fn age(unix_ms: i64, now_unix_ms: i64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let ago = u64::try_from(now_unix_ms.saturating_sub(unix_ms)).unwrap_or(0);
    duration::short(Duration::from_millis(ago))
}

/// Reads `2026-01-02T15:04:05Z`, with or without a fraction.
pub fn parse_utc(text: &str) -> Option<i64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| number(part, 9));
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| number(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let ms = number(format!("{fraction:0<3}").get(..3)?, 3)?;
    let valid = year <= 9999
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    let seconds = ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    valid.then(|| seconds * 1000 + ms)
}

fn number(digits: &str, length_max: usize) -> Option<i64> {
    let plain =
        !digits.is_empty() && digits.len() <= length_max && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Days since the Unix epoch of a date of the Gregorian calendar. The year is taken to begin in March,
/// so that the leap day is its last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

/// The date of a day since the Unix epoch; 400 years are 146,097 days.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
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
            assert_eq!(parse_utc(text), Some(ms));
        }
        assert_eq!(rfc3339(0), None);
        assert_eq!(parse_utc("2026-01-02T15:04:05Z"), Some(1_767_366_245_000));
        assert_eq!(age(1_000, 201_000), "3m20s");
    }

    proptest::proptest! {
        #[test]
        fn every_moment_survives_the_round_trip(ms in 1i64..253_402_300_800_000) {
            let text = rfc3339(ms).unwrap();
            proptest::prop_assert_eq!(parse_utc(&text), Some(ms));
        }

        #[test]
        fn never_panics(text in "[0-9TZ:.äö-]{0,30}", ms in proptest::num::i64::ANY) {
            let _ = parse_utc(&text);
            let _ = rfc3339(ms / 2);
            let _ = age(ms, 0);
        }
    }
}
