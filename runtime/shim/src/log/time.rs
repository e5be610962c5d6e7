//! The date of a record: RFC 3339, UTC, nanoseconds. In: the wall clock. Out: text of 30 letters.
//! Days become dates by the civil-from-days algorithm (proleptic Gregorian calendar).
//! Never: knows a time zone.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn stamp_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    stamp(since.as_secs(), since.subsec_nanos())
}

/// `2026-01-31T23:59:59.000000001Z`.
pub(crate) fn stamp(unix_s: u64, nanos: u32) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Eras of 400 years that begin on the first of March of year 0.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}
