//! The tower layer before every service: finds the method, applies the permission table, and hands
//! the `Caller` on to the handler.
//! In: requests with the `Peer` of their connection. Out: the same, or a refusal.
//! A standby refuses here, a leader whose lease is in doubt, and who is asked too often.
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
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Extensions, Status};
use tower::Service;

/// Wraps a service with the check.
#[derive(Debug, Clone)]
pub struct AccessLayer(pub Arc<Leadership>, pub Arc<Limiter>);

impl<S> tower::Layer<S> for AccessLayer {
    type Service = Access<S>;
    fn layer(&self, inner: S) -> Access<S> {
        Access { inner, leadership: self.0.clone(), limiter: self.1.clone() }
    }
}

/// A service behind the check.
#[derive(Debug, Clone)]
pub struct Access<S> {
    inner: S,
    leadership: Arc<Leadership>,
    limiter: Arc<Limiter>,
}

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
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
            return Either::Left(self.inner.call(request).boxed());
        };
        let refused = check(method, caller).and_then(|()| self.limiter.check(method, peer)).err();
        if let Some(refused) = refused {
            return Either::Right(ready(Ok(Status::from(refused).into_http())));
        }
        let (leadership, call) = (self.leadership.clone(), self.inner.call(request));
        let answering = async move { leadership.answering(call).await };
        let said = |answer: Result<_, ApiError>| {
            answer.unwrap_or_else(|refused| Ok(Status::from(refused).into_http()))
        };
        Either::Left(answering.map(said).boxed())
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
