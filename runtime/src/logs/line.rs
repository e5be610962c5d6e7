//! One record of a log file. In: a line of text. Out: time, stream, whether the line ends, text.
//! Pure. Never: fails on text that is not UTF-8; a container may write anything.

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Not the container: a note that records are missing here.
    Lighter,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// RFC 3339 with nanoseconds, UTC, as in the file.
    pub time: String,
    /// The same in nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    pub stream: LogStream,
    /// A part of a line that goes on in the next record of this stream.
    pub partial: bool,
    /// Without the newline; any bytes.
    pub text: Vec<u8>,
}

impl LogLine {
    /// `None` for a line that is no record.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            b"lighter" => LogStream::Lighter,
            _ => return None,
        };
        let partial = match fields.next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        let text = fields.next().unwrap_or_default().to_vec();
        Some(Self { unix_ns: unix_ns(time)?, time: time.to_owned(), stream, partial, text })
    }
}

/// The number in a file's first line, `<time> lighter H <number>`: records of the container before it.
pub(super) fn header(line: &[u8]) -> Option<u64> {
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let time = unix_ns(fields.next()?);
    (time.is_some() && fields.next()? == "lighter" && fields.next()? == "H").then_some(())?;
    fields.next()?.parse().ok()
}

/// Nanoseconds since the Unix epoch of `2026-01-31T23:59:59.000000001Z`; `None` for anything else.
fn unix_ns(time: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> { time.get(from..to)?.parse().ok() };
    if time.len() != 30 || !time.ends_with('Z') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, nanos) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 29)?);
    // Days from civil: years begin in March, eras have 400 years.
    let shifted_year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::{LogLine, LogStream, header, unix_ns};

    #[test]
    fn records_are_read_back() {
        let line = LogLine::parse(b"2025-12-31T23:59:59.999999999Z stderr P a  b\xff").unwrap();
        assert_eq!(
            (line.stream, line.partial, line.text.as_slice()),
            (LogStream::Stderr, true, &b"a  b\xff"[..])
        );
        assert_eq!(line.unix_ns, 1_767_225_599_999_999_999);
        assert_eq!(LogLine::parse(b"1970-01-01T00:00:00.000000000Z stdout F ").unwrap().text, b"");
        assert_eq!(header(b"2026-01-01T00:00:00.000000000Z lighter H 17"), Some(17));
        assert_eq!(header(b"2026-01-01T00:00:00.000000000Z lighter F 17"), None);
        assert_eq!(LogLine::parse(b"2026-01-01T00:00:00.000000000Z lighter H 17"), None);
        assert_eq!(unix_ns("2000-02-29T00:00:00.000000001Z"), Some(951_782_400_000_000_001));
        for wrong in
            ["", "no record", "2025-12-31T23:59:59.999999999Z stdwhat F x", "2025-12-31T23:59:59Z stdout F x"]
        {
            assert_eq!(LogLine::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
