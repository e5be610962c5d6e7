//! A collector within the process, and one that is not there.

use super::otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use super::*;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};

/// Answers the one call and passes on what it carried.
#[derive(Clone)]
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

impl tonic::server::NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tonic::server::UnaryService<ExportTraceServiceRequest> for Collector {
    type Response = ExportTraceServiceResponse;
    type Future = BoxFuture<tonic::Response<Self::Response>, tonic::Status>;
    fn call(&mut self, request: tonic::Request<ExportTraceServiceRequest>) -> Self::Future {
        self.0.send(request.into_inner()).unwrap();
        Box::pin(async { Ok(tonic::Response::new(ExportTraceServiceResponse {})) })
    }
}

impl Service<Request<tonic::body::Body>> for Collector {
    type Response = Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        assert!(request.uri().path().ends_with("/Export"));
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(service, request).await)
        })
    }
}

fn span(name: &str, number: u8) -> Span {
    Span {
        trace_id: [7; 16],
        span_id: [number; 8],
        name: name.to_owned(),
        start_unix_ns: 1,
        end_unix_ns: 5,
        ..Span::default()
    }
}

#[tokio::test]
async fn spans_reach_a_collector() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(Collector(sender));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let leaving = CancellationToken::new();
    let tracer = Tracer::start(&endpoint, "lighter-agent", "node-1", leaving.clone()).unwrap();
    tracer.finish(span("task", 1));
    let failed = Span { parent_span_id: [1; 8], error: Some("no such image".into()), ..span("pull", 2) };
    tracer.finish(Span { attributes: vec![("container", "web".into())], ..failed });
    // Leaving sends what is queued, without waiting for more.
    leaving.cancel();
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let request = tokio::time::timeout(Duration::from_secs(10), received.recv()).await.unwrap().unwrap();
        let resource = request.resource_spans[0].resource.clone().unwrap();
        let names: Vec<_> = resource.attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(names, ["service.name", "service.instance.id", "service.version"]);
        spans.extend(request.resource_spans[0].scope_spans[0].spans.clone());
    }
    assert_eq!((spans[0].name.as_str(), spans[0].trace_id.as_slice()), ("task", [7; 16].as_slice()));
    assert!(spans[0].parent_span_id.is_empty() && spans[0].status.is_none());
    assert_eq!(spans[1].parent_span_id, [1; 8]);
    assert_eq!(spans[1].status.as_ref().unwrap().message, "no such image");
    assert_eq!(spans[1].attributes[0].key, "container");
    assert_eq!(tracer.dropped(), 0);
}

#[tokio::test]
async fn a_dead_collector_costs_spans_and_no_time() {
    // Bound and never accepted from: connections succeed and nothing answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let tracer = Tracer::start(&endpoint, "lighter-agent", "n", CancellationToken::new()).unwrap();
    let begun = std::time::Instant::now();
    for number in 0..QUEUE + 100 {
        tracer.finish(span("task", number as u8));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(tracer.dropped() >= 99, "{}", tracer.dropped());
    assert!(!Tracer::off().is_on());
}
