//! The two ways in which the metadata service writes times. In: text. Out: milliseconds since the
//! Unix epoch. Pure. Never: a time zone but UTC.

use ::time::format_description::well_known::Rfc3339;
use ::time::macros::format_description;
use ::time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// `2017-09-18T08:22:00Z`
pub(super) fn rfc3339(text: &str) -> Option<u64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (moment.offset() == UtcOffset::UTC).then(|| unix_ms(moment)).flatten()
}

/// `21 Jan 2019 09:00:43 GMT`
pub(super) fn day_first(text: &str) -> Option<u64> {
    let form =
        format_description!("[day padding:none] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    unix_ms(PrimitiveDateTime::parse(text, form).ok()?.assume_utc())
}

/// Whole seconds; nothing before the epoch.
fn unix_ms(moment: OffsetDateTime) -> Option<u64> {
    u64::try_from(moment.unix_timestamp()).ok()?.checked_mul(1000)
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
        assert_eq!(day_first("1 Jan 1970 00:00:01 GMT"), Some(1000));
        assert_eq!(day_first("01 Jan 1970 00:00:01 GMT"), Some(1000));
        assert_eq!(rfc3339("2017-09-18T08:22:00+01:00"), None);
        assert_eq!(day_first("21 Foo 2019 09:00:43 GMT"), None);
    }
}
