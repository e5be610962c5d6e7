//! Several containers' lines as one stream, in the order of their times. In: opened logs. Out: lines;
//! the first failure after everything else. What is there is merged exactly, because a log that has a
//! line has it at once; what is written later comes as it comes.
//! Owns one line of each log. Never: waits for a log that has nothing while another has.

use crate::errors::Cause;
use crate::facilities::LogLine;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, Stream};
use std::task::{Context, Poll};

/// A log, or why it cannot be read.
pub(super) type Opened = Result<BoxStream<'static, Result<LogLine, Cause>>, Cause>;

struct Input {
    lines: BoxStream<'static, Result<LogLine, Cause>>,
    head: Option<LogLine>,
}

#[derive(Default)]
struct Merge {
    inputs: Vec<Input>,
    failure: Option<Cause>,
}

pub(super) fn merged(opened: Vec<Opened>) -> impl Stream<Item = Result<LogLine, Cause>> + Unpin {
    let mut merge = Merge::default();
    for log in opened {
        match log {
            Ok(lines) => merge.inputs.push(Input { lines, head: None }),
            Err(cause) => merge.fail(cause),
        }
    }
    stream::poll_fn(move |context| merge.poll_next(context))
}

impl Merge {
    fn fail(&mut self, cause: Cause) {
        self.failure.get_or_insert(cause);
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<LogLine, Cause>>> {
        for mut input in std::mem::take(&mut self.inputs) {
            if input.head.is_none() {
                match input.lines.poll_next_unpin(context) {
                    Poll::Pending => {}
                    Poll::Ready(Some(Ok(line))) => input.head = Some(line),
                    Poll::Ready(Some(Err(cause))) => {
                        self.fail(cause);
                        continue;
                    }
                    Poll::Ready(None) => continue,
                }
            }
            self.inputs.push(input);
        }
        let heads = self.inputs.iter_mut().filter(|input| input.head.is_some());
        let oldest = heads.min_by_key(|input| input.head.as_ref().map(|line| line.time_unix_ns));
        match oldest.and_then(|input| input.head.take()) {
            Some(line) => Poll::Ready(Some(Ok(line))),
            None if self.inputs.is_empty() => Poll::Ready(self.failure.take().map(Err)),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::words;
    use crate::facilities::LogOrigin;

    fn line(time_unix_ns: i64) -> Result<LogLine, Cause> {
        let container = "c".to_owned();
        Ok(LogLine { container, time_unix_ns, origin: LogOrigin::Stdout, line: Vec::new(), partial: false })
    }

    #[tokio::test]
    async fn lines_come_by_time_and_a_failure_comes_last() {
        let first = stream::iter([line(1), line(4), line(5)]).boxed();
        let second = stream::iter([line(2), Err(words("broken")), line(9)]).boxed();
        let third = stream::iter([line(3), line(6)]).boxed();
        let all: Vec<_> =
            merged(vec![Ok(first), Err(words("missing")), Ok(second), Ok(third)]).collect().await;
        let times: Vec<_> =
            all.iter().filter_map(|item| item.as_ref().ok()).map(|line| line.time_unix_ns).collect();
        assert_eq!(times, [1, 2, 3, 4, 5, 6]);
        assert_eq!(all.last().unwrap().as_ref().unwrap_err().to_string(), "missing");
    }

    #[tokio::test]
    async fn a_log_without_a_line_holds_up_no_other() {
        let silent = stream::pending().boxed();
        let mut both = merged(vec![Ok(silent), Ok(stream::iter([line(7)]).boxed())]);
        assert_eq!(both.next().await.unwrap().unwrap().time_unix_ns, 7);
    }
}
