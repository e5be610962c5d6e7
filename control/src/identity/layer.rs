//! The tower layer before every service: finds the method, applies the permission table, and hands
//! the `Caller` on to the handler.
//! In: requests with the `Peer` of their connection. Out: the same, or a refusal.
//! A standby refuses here, a leader whose lease is in doubt, and who is asked too often. What a caller
//! without an identity says is short and comes at once, or is not waited for: it would be held in memory.
//! Never: lets a request through whose method has a rule that its caller does not meet.

use super::caller::Caller;
use super::permission::{check, method_of};
use crate::error::{ApiError, SocketAddrText};
use crate::leadership::Leadership;
use crate::listen::Peer;
use crate::rate_limit::Limiter;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use http_body_util::Limited;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::{Extensions, Status};
use tower::Service;

/// Of everything that a stranger says in one call: a token with a certificate request has 2 KiB, a
/// question of reflection some hundred bytes.
const STRANGER_BYTES_MAX: usize = 16 << 10;

/// Wraps a service with the check.
#[derive(Debug, Clone)]
pub struct AccessLayer {
    pub leadership: Arc<Leadership>,
    pub limiter: Arc<Limiter>,
    /// How long a stranger's request may take to be here, and answered.
    pub stranger: Duration,
}

impl<S> tower::Layer<S> for AccessLayer {
    type Service = Access<S>;
    fn layer(&self, inner: S) -> Access<S> {
        let Self { leadership, limiter, stranger } = self.clone();
        Access { inner, leadership, limiter, stranger }
    }
}

/// A service behind the check.
#[derive(Debug, Clone)]
pub struct Access<S> {
    inner: S,
    leadership: Arc<Leadership>,
    limiter: Arc<Limiter>,
    stranger: Duration,
}

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future =
        Either<BoxFuture<'static, Result<Response<Body>, S::Error>>, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let caller = peer.map_or(&Caller::Anonymous, |peer| &peer.caller);
        let Some(method) = method_of(request.uri().path()) else {
            // Health and reflection: the same wherever they are asked.
            return match caller {
                Caller::Anonymous => Either::Left(self.of_stranger(request)),
                _ => Either::Left(self.inner.call(request).boxed()),
            };
        };
        let refused = check(method, caller).and_then(|()| self.limiter.check(method, peer)).err();
        if let Some(refused) = refused {
            return Either::Right(ready(Ok(Status::from(refused).into_http())));
        }
        let call = match caller {
            Caller::Anonymous => Either::Left(self.of_stranger(request)),
            _ => Either::Right(self.inner.call(request)),
        };
        let leadership = self.leadership.clone();
        let answering = async move { leadership.answering(call).await };
        let said = |answer: Result<_, ApiError>| {
            answer.unwrap_or_else(|refused| Ok(Status::from(refused).into_http()))
        };
        Either::Left(answering.map(said).boxed())
    }
}

impl<S> Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    /// The answer begins when a unary request is here as a whole; a stream's at once.
    fn of_stranger(
        &mut self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, S::Error>> {
        let request = request.map(|body| Body::new(Limited::new(body, STRANGER_BYTES_MAX)));
        let answer = tokio::time::timeout(self.stranger, self.inner.call(request));
        let late = || Ok(Status::from(ApiError::StrangerTooSlow).into_http());
        answer.map(move |answer| answer.unwrap_or_else(|_| late())).boxed()
    }
}

/// The caller of a request that has passed the layer.
pub fn caller(extensions: &Extensions) -> Caller {
    extensions.get::<Peer>().map_or(Caller::Anonymous, |peer| peer.caller.clone())
}

/// The name of the calling user; the permission table has let nobody else through.
pub fn asker(extensions: &Extensions) -> String {
    match caller(extensions) {
        Caller::User { name } => name,
        other => other.to_string(),
    }
}

/// Where a request came from.
pub fn address(extensions: &Extensions) -> SocketAddrText {
    SocketAddrText(extensions.get::<Peer>().and_then(|peer| peer.address))
}

/// The calling container instance; the permission table has let nobody else through.
pub fn node(
    extensions: &Extensions,
) -> Result<(lighter_model::ids::ClusterName, lighter_model::ids::ContainerInstanceId), ApiError> {
    match caller(extensions) {
        Caller::Node { cluster, id } => Ok((cluster, id)),
        _ => Err(ApiError::Unauthenticated),
    }
}
