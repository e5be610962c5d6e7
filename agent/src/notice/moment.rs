//! The two ways in which the metadata service writes times. In: text. Out: milliseconds since the
//! Unix epoch. Pure. Never: a time zone but UTC.

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `2017-09-18T08:22:00Z`
pub(super) fn rfc3339(text: &str) -> Option<u64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.splitn(3, '-').map(str::parse);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    at(year, month, day, clock)
}

/// `21 Jan 2019 09:00:43 GMT`
pub(super) fn day_first(text: &str) -> Option<u64> {
    let mut words = text.strip_suffix(" GMT")?.split_whitespace();
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    at(year.parse().ok()?, month, day.parse().ok()?, words.next()?)
}

fn at(year: i64, month: i64, day: i64, clock: &str) -> Option<u64> {
    let mut parts = clock.split('.').next()?.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let valid = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let valid = valid && (0..24).contains(&hour) && (0..60).contains(&minute) && (0..61).contains(&second);
    // The year is taken to begin in March, so that the leap day is its last.
    let from_march = (month + 9) % 12;
    let year = if month <= 2 { year - 1 } else { year };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    u64::try_from(seconds).ok().filter(|_| valid)?.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_what_date_says() {
        // date -u -d '…' +%s
        assert_eq!(rfc3339("2017-09-18T08:22:00Z"), Some(1_505_722_920_000));
        assert_eq!(rfc3339("2024-02-29T23:59:59.5Z"), Some(1_709_251_199_000));
        assert_eq!(day_first("21 Jan 2019 09:00:43 GMT"), Some(1_548_061_243_000));
        for wrong in ["", "2017-09-18", "2017-13-18T08:22:00Z", "2017-09-18T25:22:00Z", "x-y-zT1:2:3Z"] {
            assert_eq!(rfc3339(wrong), None, "{wrong}");
        }
        assert_eq!(day_first("21 Foo 2019 09:00:43 GMT"), None);
    }
}
