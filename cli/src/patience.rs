//! Asks again when the control plane says that it is asked too often, as long as it says, and longer
//! each time. In: calls whose request is one message. Out: the answer, or the last refusal.
//! Owns: nothing beyond the call. Never: repeats a call that was accepted, or one that streams upwards.
//! Source: Amazon ECS API reference, "Request throttling": exponential backoff with jitter.

use http_body_util::{BodyExt, Full};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::transport::{Channel, Error};
use tonic_types::StatusExt;

/// With the waits below, half a minute at most.
const TRIES_MAX: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Methods whose requests come while they run; their first word cannot be said twice.
const STREAMING: [&str; 3] = ["/Exec", "/Attach", "/Copy"];

/// A channel that waits when it is told to.
#[derive(Debug, Clone)]
pub struct Patient(Channel);

impl Patient {
    pub fn new(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Service<Request<Body>> for Patient {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was asked whether it is ready.
        let other = self.0.clone();
        let mut channel = std::mem::replace(&mut self.0, other);
        Box::pin(async move {
            if STREAMING.iter().any(|name| request.uri().path().ends_with(name)) {
                return channel.call(request).await;
            }
            let (parts, body) = request.into_parts();
            let message = match body.collect().await {
                Ok(message) => message.to_bytes(),
                Err(status) => return Ok(status.into_http()),
            };
            let mut tries = 0;
            loop {
                let request = Request::from_parts(parts.clone(), Body::new(Full::new(message.clone())));
                let answer = channel.call(request).await?;
                tries += 1;
                match wait(answer.headers(), tries) {
                    Some(wait) if tries < TRIES_MAX => tokio::time::sleep(wait).await,
                    _ => return Ok(answer),
                }
                std::future::poll_fn(|context| channel.poll_ready(context)).await?;
            }
        })
    }
}

/// How long to wait before asking again; `None`: it was no refusal of this kind.
fn wait(headers: &HeaderMap, tries: u32) -> Option<Duration> {
    let refusal = Status::from_header_map(headers)?;
    let told = refusal.get_error_details().retry_info()?.retry_delay?;
    // Up to half as long again, so that those refused together do not come back together.
    let jitter = RandomState::new().hash_one(tries) % 512;
    Some(pause(told, tries, jitter))
}

/// As long as told, and at least twice as long as the last time. Pure; `jitter` in 1024ths.
fn pause(told: Duration, tries: u32, jitter: u64) -> Duration {
    let backoff = FIRST_WAIT.saturating_mul(1 << tries.min(16));
    let pause = told.max(backoff).min(LONGEST_WAIT);
    pause + pause.mul_f64(jitter as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic::Code;
    use tonic_types::ErrorDetails;

    #[test]
    fn only_a_refusal_that_says_when_is_waited_for() {
        let headers = |details: ErrorDetails| {
            let status = Status::with_error_details(Code::ResourceExhausted, "x", details);
            status.into_http::<()>().headers().clone()
        };
        let mut throttled = ErrorDetails::with_error_info("THROTTLED", "lighter", HashMap::new());
        assert_eq!(wait(&headers(throttled.clone()), 1), None, "a quota is not a matter of time");
        throttled.set_retry_info(Some(Duration::from_secs(1)));
        let waited = wait(&headers(throttled), 1).unwrap();
        assert!((Duration::from_secs(1)..=Duration::from_millis(1500)).contains(&waited), "{waited:?}");
        assert_eq!(wait(&HeaderMap::new(), 1), None);
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let short = Duration::from_millis(1);
        let waits: Vec<_> = (1..=TRIES_MAX).map(|tries| pause(short, tries, 0)).collect();
        assert!(waits.is_sorted() && waits[0] == Duration::from_millis(100));
        assert_eq!(pause(Duration::from_secs(3_600), 1, 0), LONGEST_WAIT);
        assert!(pause(short, u32::MAX, 511) < LONGEST_WAIT * 2);
    }
}
