//! Traces and metrics over OTLP, as a collector gets them. It reads them by OpenTelemetry's own messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as Code};
use prost::Message;
use spillway::gateway::id::number_of;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::gateway::{OPEN, backend, chat_body, header};
use crate::scripted::{Act, Scripted, full, good, stream};
use crate::served::{Served, wait_for};

/// What a collector says to a request.
#[derive(Clone, Debug)]
enum Says {
    Taken,
    /// A status, and how many seconds to wait.
    No(u16, Option<u64>),
    /// That so many spans were rejected.
    Rejected(i64),
}

/// A collector.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    got: Arc<Mutex<Got>>,
}

#[derive(Default)]
struct Got {
    says: Option<Says>,
    headers: Vec<HeaderMap>,
    refused: usize,
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::default();
        let collector = Self { address, got };
        let router = Router::new()
            .route("/v1/traces", post(take_traces))
            .route("/v1/metrics", post(take_metrics))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    fn say(&self, says: Says) {
        self.got.lock().unwrap().says = Some(says);
    }

    /// What is said to a request that comes now. Its headers are kept.
    fn hear(&self, headers: HeaderMap) -> Result<Option<i64>, Box<Response>> {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let mut got = self.got.lock().unwrap();
        got.headers.push(headers);
        match got.says.clone() {
            None | Some(Says::Taken) => Ok(None),
            Some(Says::Rejected(spans)) => Ok(Some(spans)),
            Some(Says::No(status, seconds)) => {
                got.refused += 1;
                let status = StatusCode::from_u16(status).unwrap();
                let mut refusal = status.into_response();
                if let Some(seconds) = seconds {
                    refusal.headers_mut().insert("retry-after", seconds.into());
                }
                Err(Box::new(refusal))
            }
        }
    }

    fn refused(&self) -> usize {
        self.got.lock().unwrap().refused
    }

    /// All spans so far.
    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let resources = got.traces.iter().flat_map(|one| &one.resource_spans);
        let scopes = resources.flat_map(|one| &one.scope_spans);
        scopes.flat_map(|one| one.spans.clone()).collect()
    }

    /// The spans of one call, that of the call itself first, when all have come.
    async fn call(&self, id: &str) -> Vec<Span> {
        wait_for(|| {
            let all = self.spans();
            let server = all
                .iter()
                .find(|span| text(span, "spillway.request_id") == id)?;
            let children = all
                .iter()
                .filter(|one| one.parent_span_id == server.span_id);
            Some(std::iter::once(server).chain(children).cloned().collect())
        })
        .await
    }

    /// The newest metrics.
    fn metrics(&self) -> Vec<Metric> {
        let got = self.got.lock().unwrap();
        let resources = got
            .metrics
            .last()
            .into_iter()
            .flat_map(|one| &one.resource_metrics);
        let scopes = resources.flat_map(|one| &one.scope_metrics);
        scopes.flat_map(|one| one.metrics.clone()).collect()
    }
}

async fn take_traces(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let rejected_spans = match collector.hear(headers) {
        Ok(rejected) => rejected,
        Err(refusal) => return *refusal,
    };
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    collector.got.lock().unwrap().traces.push(request);
    let said = ExportTraceServiceResponse {
        partial_success: rejected_spans.map(|rejected_spans| ExportTracePartialSuccess {
            rejected_spans,
            error_message: "too many of them".into(),
        }),
    };
    said.encode_to_vec().into_response()
}

async fn take_metrics(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = collector.hear(headers) {
        return *refusal;
    }
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    collector.got.lock().unwrap().metrics.push(request);
    Vec::new().into_response()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let one = attributes.iter().find(|one| one.key == key)?;
    one.value.as_ref()?.value.as_ref()
}

fn text(span: &Span, key: &str) -> String {
    match value(&span.attributes, key) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// What an attribute says, whatever it is.
fn said(span: &Span, key: &str) -> String {
    match value(&span.attributes, key) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn assert_says(span: &Span, expected: &[(&str, &str)]) {
    for (key, expected) in expected {
        assert_eq!(said(span, key), *expected, "{key} of {span:?}");
    }
}

fn has_failed(span: &Span) -> bool {
    span.status
        .as_ref()
        .is_some_and(|status| status.code() == Code::Error)
}

/// A `[telemetry]` section.
fn section(collector: &Collector, more: &str) -> String {
    let address = collector.address;
    format!("[telemetry]\nendpoint = \"http://{address}\"\n{more}\n")
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
}

/// A gateway over a PTU deployment that plays `script` and a good pay-as-you-go one.
async fn over(script: Vec<Act>, collector: &Collector, more: &str) -> (Served, [Scripted; 2]) {
    let a = Scripted::start(script).await;
    let b = Scripted::start(vec![good()]).await;
    let config = [
        OPEN,
        &section(collector, more),
        &backend("a", a.address, "ptu", ""),
        &backend("b", b.address, "payg", "tier = 2"),
    ];
    (Served::serve(&config.concat(), &[]).await, [a, b])
}

/// A call that is answered; its id.
async fn called(gateway: &Served) -> String {
    let answer = gateway.chat().send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let id = header(&answer, "x-spillway-request-id");
    answer.bytes().await.unwrap();
    id
}

#[tokio::test]
async fn a_call_is_a_span_and_its_attempt_one_below_it() {
    let collector = Collector::start().await;
    let more =
        "service_name = \"gate\"\nresource_attributes = \"deployment.environment.name=a%20b\"";
    let (gateway, [a, _]) = over(vec![good()], &collector, more).await;
    let call = gateway.chat().header("traceparent", traceparent("01"));
    let answer = call.send().await.unwrap();
    let id = header(&answer, "x-spillway-request-id");
    answer.bytes().await.unwrap();
    let spans = collector.call(&id).await;
    let [server, client] = &spans[..] else {
        panic!("{spans:?}")
    };
    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    assert!(spans.iter().all(|span| span.trace_id == trace));
    assert_eq!(
        server.parent_span_id,
        0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()
    );
    assert_eq!(
        (server.kind(), client.kind()),
        (SpanKind::Server, SpanKind::Client)
    );
    assert_eq!((server.flags, client.flags), (0x301, 0x101));
    assert_eq!(
        (&*server.name, &*client.name),
        ("chat/completions", "chat gpt-4o")
    );
    assert!(!has_failed(server) && !has_failed(client));
    assert_says(
        server,
        &[
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.request.model", "gpt-4o"),
            ("http.response.status_code", "200"),
            ("spillway.app", "anonymous"),
            ("spillway.outcome", "completed"),
            ("spillway.spilled", "false"),
            ("error.type", ""),
        ],
    );
    assert_says(
        client,
        &[
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "azure.ai.openai"),
            ("gen_ai.request.model", "gpt-4o"),
            ("gen_ai.usage.input_tokens", "5"),
            ("gen_ai.usage.output_tokens", "2"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
            ("server.port", &a.address.port().to_string()),
            ("spillway.backend", "a"),
            ("spillway.deployment", "gpt-4o"),
            ("spillway.kind", "ptu"),
            ("spillway.tier", "1"),
            ("spillway.usage.estimated", "false"),
            ("gen_ai.request.stream", ""),
            ("error.type", ""),
        ],
    );
    let [start, end] = [server.start_time_unix_nano, server.end_time_unix_nano];
    assert!(start > 0 && start <= client.start_time_unix_nano);
    assert_eq!(
        end, client.end_time_unix_nano,
        "it goes on until the call ends"
    );
    let printed = format!("{spans:?}");
    assert!(
        !printed.contains("Hello") && !printed.contains("Hi"),
        "{printed}"
    );

    let got = collector.got.lock().unwrap();
    let resource = got.traces[0].resource_spans[0].resource.as_ref().unwrap();
    let of = |key| value(&resource.attributes, key).cloned();
    let is = |text: &str| Some(Value::StringValue(text.into()));
    assert_eq!(of("service.name"), is("gate"));
    assert_eq!(of("deployment.environment.name"), is("a b"));
    assert!(of("service.instance.id").is_some() && of("service.version").is_some());
}

#[tokio::test]
async fn a_spilled_call_has_a_span_for_each_attempt() {
    let collector = Collector::start().await;
    let (gateway, _backends) = over(vec![full(60_000)], &collector, "").await;
    let id = called(&gateway).await;
    let spans = collector.call(&id).await;
    let [server, refused, served] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(server.trace_id, number_of(&id).unwrap().to_be_bytes());
    assert_eq!(server.parent_span_id, [0; 0], "it begins the trace");
    assert_says(server, &[("spillway.spilled", "true"), ("error.type", "")]);
    assert_says(
        refused,
        &[
            ("spillway.backend", "a"),
            ("spillway.tier", "1"),
            ("http.response.status_code", "429"),
            ("error.type", "429"),
            ("gen_ai.usage.input_tokens", ""),
        ],
    );
    assert_says(
        served,
        &[
            ("spillway.backend", "b"),
            ("spillway.kind", "payg"),
            ("spillway.tier", "2"),
            ("gen_ai.usage.input_tokens", "5"),
        ],
    );
    assert!(has_failed(refused) && !has_failed(served) && !has_failed(server));
    assert!(server.start_time_unix_nano <= refused.start_time_unix_nano);
    assert!(refused.end_time_unix_nano <= served.start_time_unix_nano);
    assert_ne!(refused.span_id, served.span_id);
}

#[tokio::test]
async fn a_streams_span_goes_on_until_its_end() {
    let collector = Collector::start().await;
    let chunk = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let usage = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
    let parts = stream(&[chunk, usage, "data: [DONE]\n\n"], true);
    let gate = Arc::new(Semaphore::new(2));
    let script = vec![Act::Gated(parts, Arc::clone(&gate))];
    let (gateway, _backends) = over(script, &collector, "").await;
    let post = gateway.post("/v1/chat/completions").json(&chat_body(true));
    let mut answer = post.send().await.unwrap();
    let id = header(&answer, "x-spillway-request-id");
    answer.chunk().await.unwrap();
    // So that the end is told from the first chunk.
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.add_permits(10);
    answer.bytes().await.unwrap();
    let spans = collector.call(&id).await;
    let [server, client] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_says(
        client,
        &[
            ("gen_ai.request.stream", "true"),
            ("gen_ai.usage.output_tokens", "2"),
        ],
    );
    let first = said(client, "gen_ai.response.time_to_first_chunk");
    let first: f64 = first.parse().unwrap();
    let whole = client.end_time_unix_nano - client.start_time_unix_nano;
    let whole = Duration::from_nanos(whole).as_secs_f64();
    assert!(first + 0.04 < whole, "{first} s of {whole} s");
    assert_eq!(server.end_time_unix_nano, client.end_time_unix_nano);
}

#[tokio::test]
async fn a_call_that_fails_says_why() {
    let collector = Collector::start().await;
    let cut = Act::SayAndReset(
        stream(
            &["data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n"],
            false,
        )
        .concat(),
    );
    let (gateway, _backends) = over(vec![cut], &collector, "").await;
    let post = gateway.post("/v1/chat/completions").json(&chat_body(true));
    let answer = post.send().await.unwrap();
    let id = header(&answer, "x-spillway-request-id");
    let _ = answer.bytes().await;
    let spans = collector.call(&id).await;
    assert_eq!(spans.len(), 2, "{spans:?}");
    for span in &spans {
        assert!(has_failed(span));
        assert_says(span, &[("error.type", "cut")]);
    }
    let wrong = gateway
        .post("/v1/chat/completions")
        .body("{\"model\":\"no-such\"}");
    let wrong = wrong.send().await.unwrap();
    let spans = collector
        .call(&header(&wrong, "x-spillway-request-id"))
        .await;
    assert_eq!(spans.len(), 1, "nobody was asked");
    assert_says(
        &spans[0],
        &[("http.response.status_code", "404"), ("error.type", "")],
    );
    assert!(!has_failed(&spans[0]), "it is the client's fault");
}

#[tokio::test]
async fn only_traces_that_are_recorded_are_sent() {
    let collector = Collector::start().await;
    let (gateway, _backends) = over(vec![good()], &collector, "sample_percent = 0").await;
    called(&gateway).await;
    for flags in ["00", "01"] {
        let call = gateway.chat().header("traceparent", traceparent(flags));
        assert_eq!(call.send().await.unwrap().status(), 200);
    }
    assert!(gateway.terminated().await.success(), "all is sent");
    assert_eq!(collector.spans().len(), 2, "{:?}", collector.spans());
}

#[tokio::test]
async fn below_the_functions_host_its_own_traceparent_decides_nothing() {
    let collector = Collector::start().await;
    let a = Scripted::start(vec![good()]).await;
    let config = [
        OPEN,
        &section(&collector, ""),
        &backend("a", a.address, "payg", ""),
    ];
    let env = [("FUNCTIONS_CUSTOMHANDLER_PORT", "1")];
    let gateway = Served::serve(&config.concat(), &env).await;
    let call = gateway.chat().header("traceparent", traceparent("00"));
    let answer = call.send().await.unwrap();
    let id = header(&answer, "x-spillway-request-id");
    let spans = collector.call(&id).await;
    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    assert_eq!(spans[0].trace_id, trace, "it names the trace all the same");
}

/// A metric's name in Prometheus text: written down once more, to check the gateway's.
fn prometheus_name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    name += match &*metric.unit {
        "s" => "_seconds",
        "1" => "_ratio",
        "%" => "_percent",
        _ => "",
    };
    if matches!(&metric.data, Some(Data::Sum(_))) {
        name += "_total";
    }
    name
}

fn labels(attributes: &[KeyValue], le: Option<String>) -> String {
    let pairs = attributes.iter().map(|one| {
        let Some(Value::StringValue(text)) = value(attributes, &one.key) else {
            panic!("{one:?}")
        };
        let label = one.key.trim_start_matches("spillway.").replace('.', "_");
        format!("{label}=\"{text}\"")
    });
    let le = le.map(|le| format!("le=\"{le}\""));
    let all: Vec<String> = pairs.chain(le).collect();
    if all.is_empty() {
        return String::new();
    }
    format!("{{{}}}", all.join(","))
}

/// Metrics as the samples that Prometheus text would have.
fn as_samples(metrics: &[Metric]) -> BTreeMap<String, String> {
    let mut samples = BTreeMap::new();
    let number = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsInt(number)) => number.to_string(),
        Some(number_data_point::Value::AsDouble(number)) => number.to_string(),
        None => panic!("a point without a value"),
    };
    for metric in metrics {
        let name = prometheus_name(metric);
        match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => {
                for point in &gauge.data_points {
                    samples.insert(
                        name.clone() + &labels(&point.attributes, None),
                        number(&point.value),
                    );
                }
            }
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                for point in &sum.data_points {
                    assert!(point.start_time_unix_nano > 0);
                    samples.insert(
                        name.clone() + &labels(&point.attributes, None),
                        number(&point.value),
                    );
                }
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, 2);
                for point in &histogram.data_points {
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    let bounds = point.explicit_bounds.iter().map(f64::to_string);
                    let mut below = 0;
                    for (le, count) in bounds.chain(["+Inf".into()]).zip(&point.bucket_counts) {
                        below += count;
                        let labels = labels(&point.attributes, Some(le));
                        samples.insert(format!("{name}_bucket{labels}"), below.to_string());
                    }
                    assert_eq!(below, point.count);
                    let labels = labels(&point.attributes, None);
                    let sum = point.sum.unwrap().to_string();
                    samples.insert(format!("{name}_sum{labels}"), sum);
                    samples.insert(format!("{name}_count{labels}"), point.count.to_string());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    samples
}

/// The samples of `/spillway/metrics`.
async fn page(gateway: &Served) -> BTreeMap<String, String> {
    let text = gateway.get("/spillway/metrics").send().await.unwrap();
    let text = text.text().await.unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| line.rsplit_once(' ').unwrap());
    samples
        .map(|(sample, value)| (sample.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn metrics_are_those_of_the_page() {
    let collector = Collector::start().await;
    let (gateway, _backends) = over(
        vec![good(), full(60_000)],
        &collector,
        "metrics_interval_seconds = 1",
    )
    .await;
    for _ in 0..3 {
        called(&gateway).await;
    }
    let all_is_counted = |samples: &BTreeMap<String, String>| {
        let calls = "spillway_calls_total{gen_ai_request_model=\"gpt-4o\",class=\"good\"}";
        samples.get(calls).is_some_and(|count| count == "3")
    };
    // Until one is of the same moment as the other.
    let (mut sent, mut shown) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..200 {
        sent = as_samples(&collector.metrics());
        shown = page(&gateway).await;
        // How old it is differs from look to look.
        for samples in [&mut sent, &mut shown] {
            samples.retain(|name, _| !name.starts_with("spillway_ptu_utilization_age"));
        }
        if all_is_counted(&sent) && sent == shown {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sent, shown);
    assert!(all_is_counted(&sent) && sent.len() > 50, "{}", sent.len());
    let start = |metrics: &[Metric]| {
        let calls = metrics
            .iter()
            .find(|metric| metric.name == "spillway.calls");
        let Some(Data::Sum(sum)) = calls.unwrap().data.clone() else {
            panic!()
        };
        let point = &sum.data_points[0];
        assert!(point.start_time_unix_nano < point.time_unix_nano);
        (point.start_time_unix_nano, point.time_unix_nano)
    };
    let (started, then) = start(&collector.metrics());
    let later = wait_for(|| Some(start(&collector.metrics())).filter(|(_, now)| *now > then));
    assert_eq!(later.await.0, started, "they are of the whole time");
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up_and_gets_the_spans_later() {
    let collector = Collector::start().await;
    collector.say(Says::No(503, Some(1)));
    let (gateway, _backends) = over(vec![good()], &collector, "").await;
    let id = called(&gateway).await;
    wait_for(|| (collector.refused() > 0).then_some(())).await;
    let meanwhile = called(&gateway).await;
    gateway.writes("telemetry is not taken").await;
    collector.say(Says::Taken);
    for id in [id, meanwhile] {
        assert_eq!(collector.call(&id).await.len(), 2);
    }
    assert_eq!(page(&gateway).await["spillway_dropped_spans_total"], "0");
}

#[tokio::test]
async fn spans_that_are_not_taken_are_counted() {
    let collector = Collector::start().await;
    collector.say(Says::No(400, None));
    let (gateway, _backends) = over(vec![good()], &collector, "").await;
    called(&gateway).await;
    gateway.writes("\"why\":\"the collector says 400\"").await;
    collector.say(Says::Rejected(1));
    let id = called(&gateway).await;
    collector.call(&id).await;
    for _ in 0..1000 {
        if page(&gateway).await["spillway_dropped_spans_total"] == "3" {
            assert_eq!(collector.refused(), 1, "a refusal is not tried again");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", page(&gateway).await["spillway_dropped_spans_total"]);
}

#[tokio::test]
async fn at_its_end_it_sends_what_there_is() {
    let collector = Collector::start().await;
    let (gateway, _backends) =
        over(vec![good()], &collector, "metrics_interval_seconds = 3600").await;
    let id = called(&gateway).await;
    assert!(gateway.terminated().await.success());
    assert_eq!(collector.call(&id).await.len(), 2);
    let sent = as_samples(&collector.metrics());
    assert_eq!(
        sent["spillway_app_calls_total{app=\"anonymous\",class=\"good\"}"],
        "1"
    );
}

#[tokio::test]
async fn without_the_section_nothing_is_sent() {
    let collector = Collector::start().await;
    let a = Scripted::start(vec![good()]).await;
    let config = OPEN.to_owned() + &backend("a", a.address, "payg", "");
    let url = format!("http://{}", collector.address);
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let gateway = Served::serve(&config, &env).await;
    called(&gateway).await;
    assert!(
        !page(&gateway)
            .await
            .contains_key("spillway_dropped_spans_total")
    );
    assert!(gateway.terminated().await.success());
    assert_eq!(collector.got.lock().unwrap().headers.len(), 0);
}

#[tokio::test]
async fn headers_go_to_the_collector_and_nowhere_else() {
    let collector = Collector::start().await;
    collector.say(Says::No(401, None));
    let a = Scripted::start(vec![full(60_000)]).await;
    let config = [
        OPEN,
        &section(
            &collector,
            "headers = \"${OTLP_HEADERS}\"\nmetrics_interval_seconds = 1",
        ),
        &backend("a", a.address, "payg", ""),
    ];
    let env = [
        ("OTLP_HEADERS", "x-key=canary%20key"),
        ("RUST_LOG", "trace"),
    ];
    let gateway = Served::serve(&config.concat(), &env).await;
    assert_eq!(gateway.chat().send().await.unwrap().status(), 429);
    wait_for(|| (collector.refused() > 1).then_some(())).await;
    gateway.writes("the collector says 401").await;
    let page = gateway.get("/spillway/metrics").send().await.unwrap();
    let written = gateway.written() + &page.text().await.unwrap();
    let found = written.lines().find(|line| line.contains("canary"));
    assert_eq!(found, None);
    let got = collector.got.lock().unwrap();
    assert!(
        got.headers
            .iter()
            .all(|headers| headers["x-key"] == "canary key")
    );
}

#[tokio::test]
async fn a_calls_lines_in_the_log_name_its_request_and_its_trace() {
    let collector = Collector::start().await;
    let a = Scripted::start(vec![full(60_000)]).await;
    let config = [
        OPEN,
        &section(&collector, ""),
        &backend("a", a.address, "payg", ""),
    ];
    let env = [("RUST_LOG", "spillway=debug")];
    let gateway = Served::serve(&config.concat(), &env).await;
    for trace in [Some(traceparent("01")), None] {
        let call = gateway.chat();
        let call = match &trace {
            Some(trace) => call.header("traceparent", trace),
            None => call,
        };
        let answer = call.send().await.unwrap();
        let id = header(&answer, "x-spillway-request-id");
        let spans = collector.call(&id).await;
        let digits: String = spans[0]
            .trace_id
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let lines = gateway.written();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let own: Vec<_> = lines.filter(|line| line["request_id"] == id).collect();
        assert!(own.iter().any(|line| line["message"] == "call"), "{own:?}");
        assert_eq!(
            own.iter().any(|line| line["message"] == "marked"),
            trace.is_some()
        );
        assert!(own.iter().all(|line| line["trace_id"] == digits), "{own:?}");
    }
}
