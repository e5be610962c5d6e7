//! The part of OTLP that carries spans: messages with their field numbers, and the one call.
//! In: spans. Out: an ExportTraceServiceRequest. Owns the channel.
//! Source: opentelemetry-proto, trace/v1/trace.proto, common/v1/common.proto, resource/v1,
//! collector/trace/v1/trace_service.proto. Never: what is not sent or read here.

use super::Span;
use tonic::transport::Channel;

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// SPAN_KIND_INTERNAL.
const KIND_INTERNAL: i32 = 1;
/// STATUS_CODE_ERROR.
const CODE_ERROR: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(crate) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(crate) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    pub(crate) spans: Vec<OtlpSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
    #[prost(int32, tag = "6")]
    pub(crate) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(crate) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(crate) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(crate) status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(int32, tag = "3")]
    pub(crate) code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnyValue {
    #[prost(string, optional, tag = "1")]
    pub(crate) string_value: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportTraceServiceResponse {}

fn attribute(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { string_value: Some(value) }) }
}

fn message(span: Span) -> OtlpSpan {
    let root = span.parent_span_id == [0; 8];
    OtlpSpan {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: if root { Vec::new() } else { span.parent_span_id.to_vec() },
        name: span.name,
        kind: KIND_INTERNAL,
        start_time_unix_nano: span.start_unix_ns,
        end_time_unix_nano: span.end_unix_ns,
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status: span.error.map(|message| Status { message, code: CODE_ERROR }),
    }
}

/// Makes the call.
pub(super) struct Exporter {
    client: tonic::client::Grpc<Channel>,
    resource: Resource,
}

impl Exporter {
    pub(super) fn new(channel: Channel, service: &str, instance: &str) -> Self {
        let attributes = vec![
            attribute("service.name", service.to_owned()),
            attribute("service.instance.id", instance.to_owned()),
            attribute("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        Self { client: tonic::client::Grpc::new(channel), resource: Resource { attributes } }
    }

    pub(super) async fn export(&mut self, spans: Vec<Span>) -> Result<(), tonic::Status> {
        let spans = spans.into_iter().map(message).collect();
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans { spans }],
            }],
        };
        self.client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<_, ExportTraceServiceResponse>::default();
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(METHOD);
        self.client.unary(tonic::Request::new(request), path, codec).await.map(drop)
    }
}
