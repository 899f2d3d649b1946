//! The Open Inference Protocol over gRPC, over a socket, answered by PEFT's own adapters.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::time::Duration;

use graft_serve::grpc::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use graft_serve::grpc::wire::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use graft_serve::grpc::wire::{self, InferTensorContents, ModelInferRequest};
use graft_serve::http::Settings;
use graft_serve::{App, grpc};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use support::{ADMIN, BASE, House, bytes, int64s};

/// A server, its client, and what stops it.
struct Served {
    house: House,
    app: App,
    at: std::net::SocketAddr,
    client: GrpcInferenceServiceClient<Channel>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn served() -> Option<Served> {
    served_with(|_| {}).await
}

async fn served_with(change: impl FnOnce(&mut Settings)) -> Option<Served> {
    let house = House::new()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut settings = house.app().settings().clone();
    change(&mut settings);
    let app = App::new(std::sync::Arc::clone(&house.engine), settings);
    let of_server = app.clone();
    let server = tokio::spawn(async move {
        grpc::serve(listener, of_server, async { drop(stopped.await) }).await.unwrap();
    });
    let channel = Endpoint::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap();
    Some(Served { at, house, app, client: GrpcInferenceServiceClient::new(channel), stop, server })
}

/// A request with the administrator's key.
fn keyed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-api-key", ADMIN.parse().unwrap());
    request
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}

/// A call with texts and the adapters of its rows, as bytes.
fn call(model: &str, texts: &[&str], adapters: &[&str]) -> ModelInferRequest {
    let rows = [texts.len() as i64];
    let mut inputs = vec![tensor("text", "BYTES", &rows)];
    let mut raw_input_contents = vec![bytes(texts)];
    if !adapters.is_empty() {
        inputs.push(tensor("adapter", "BYTES", &[adapters.len() as i64]));
        raw_input_contents.push(bytes(adapters));
    }
    ModelInferRequest { model_name: model.into(), inputs, raw_input_contents, ..Default::default() }
}

/// The call of the rows that PEFT answered.
fn golden(house: &House, raw: bool) -> ModelInferRequest {
    let tokens = house.tokens();
    let mut inputs = ["input_ids", "attention_mask"].map(|name| tensor(name, "INT64", &[3, 9])).to_vec();
    let mut raw_input_contents = Vec::new();
    for (input, values) in inputs.iter_mut().zip(tokens) {
        match raw {
            true => raw_input_contents.push(int64s(&values)),
            false => {
                input.contents = Some(InferTensorContents { int64_contents: values, ..Default::default() })
            }
        }
    }
    ModelInferRequest {
        model_name: "lora".into(),
        id: "a call".into(),
        inputs,
        raw_input_contents,
        ..Default::default()
    }
}

#[tokio::test]
async fn tokens_are_answered_as_peft_answers_them() {
    let Some(mut served) = served().await else { return };
    let expected = served.house.expected("lora");
    for raw in [true, false] {
        let answer = served.client.model_infer(golden(&served.house, raw)).await.unwrap();
        let header = |name: &str| answer.metadata().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!((header("x-adapter"), header("x-adapter-revision")), ("lora".into(), "1".into()));
        assert_eq!(header("x-adapter-digest"), &*served.house.engine.store.find("lora").unwrap().by.digest);
        let answer = answer.into_inner();
        assert_eq!(
            (answer.model_name.as_str(), answer.model_version.as_str(), answer.id.as_str()),
            ("lora", "1", "a call")
        );
        let names: Vec<&str> = answer.outputs.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["label", "score", "json", "revision"]);
        assert!(answer.outputs.iter().all(|o| o.shape == [3]));
        let labels: Vec<&str> = expected.iter().map(|(l, _)| l.as_str()).collect();
        assert_eq!(answer.raw_output_contents[0], bytes(&labels));
        let scores = answer.raw_output_contents[1].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        for (score, (_, wanted)) in scores.zip(&expected) {
            assert!((f64::from(score) - wanted).abs() < 1e-5, "{score} instead of {wanted}");
        }
    }
}

#[tokio::test]
async fn rows_name_their_adapters_and_outputs_are_chosen() {
    let Some(mut served) = served().await else { return };
    let mut mixed = call("lora", &["owl", "owl", "owl"], &["", "ia3", BASE]);
    mixed.outputs = vec![InferRequestedOutputTensor { name: "revision".into(), parameters: HashMap::new() }];
    let answer = served.client.model_infer(mixed).await.unwrap();
    assert!(answer.metadata().get("x-adapter").is_none());
    assert_eq!(answer.get_ref().raw_output_contents, [bytes(&["1", "1", "0"])]);
}

#[tokio::test]
async fn faults_have_their_codes() {
    let Some(mut served) = served().await else { return };
    let mut code = async |call: ModelInferRequest| served.client.model_infer(call).await.unwrap_err().code();
    assert_eq!(code(call("nobody", &["a"], &[])).await, Code::NotFound);
    assert_eq!(code(call("lora", &["a"], &["nobody"])).await, Code::NotFound);
    let old = ModelInferRequest { model_version: "2".into(), ..call("lora", &["a"], &[]) };
    assert_eq!(code(old).await, Code::NotFound);
    assert_eq!(code(call("lora", &[], &[])).await, Code::InvalidArgument);
    let cut = ModelInferRequest { raw_input_contents: vec![vec![9, 0, 0, 0]], ..call("lora", &["a"], &[]) };
    assert_eq!(code(cut).await, Code::InvalidArgument);
    let large = "a".repeat(Settings::default().body_bytes + 1);
    assert_eq!(code(call("lora", &[large.as_str()], &[])).await, Code::OutOfRange);
    let mut packed = served.client.clone().send_compressed(CompressionEncoding::Gzip);
    assert!(packed.model_infer(call("lora", &["a"], &[])).await.is_ok());
    let bomb = packed.model_infer(call("lora", &[large.as_str()], &[])).await.unwrap_err();
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb}");
}

#[tokio::test]
async fn the_server_its_models_and_its_repository_say_what_they_are() {
    let Some(mut served) = served().await else { return };
    let client = &mut served.client;
    assert!(client.server_live(wire::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(wire::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let named = |name: &str| (name.to_owned(), String::new());
    for (name, there) in [("lora", true), (BASE, true), ("nobody", false)] {
        let (name, version) = named(name);
        let reply = client.model_ready(wire::ModelReadyRequest { name, version }).await.unwrap().into_inner();
        assert_eq!(reply.ready, there);
    }
    let server = client.server_metadata(wire::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server.name, "graft");
    let (name, version) = named("lora");
    let model =
        client.model_metadata(wire::ModelMetadataRequest { name, version }).await.unwrap().into_inner();
    assert_eq!((model.versions, model.inputs.len(), model.outputs.len()), (vec!["1".into()], 5, 4));
    assert_eq!(model.properties["digest"], *served.house.engine.store.find("lora").unwrap().by.digest);
    let (name, version) = named("lora");
    let config = client.model_config(wire::ModelConfigRequest { name, version }).await.unwrap().into_inner();
    assert_eq!(config.config.unwrap().input[0].data_type(), wire::DataType::TypeString);

    let index = wire::RepositoryIndexRequest { ready: true, ..Default::default() };
    let models = client.repository_index(index.clone()).await.unwrap().into_inner().models;
    assert_eq!(models.len(), 5);
    let unload = wire::RepositoryModelUnloadRequest { model_name: "lora".into(), ..Default::default() };
    client.repository_model_unload(keyed(unload.clone())).await.unwrap();
    assert_eq!(client.repository_index(index).await.unwrap().into_inner().models.len(), 4);
    assert_eq!(client.repository_model_unload(keyed(unload)).await.unwrap_err().code(), Code::NotFound);
    let load = wire::RepositoryModelLoadRequest { model_name: "lora".into(), ..Default::default() };
    client.repository_model_load(keyed(load)).await.unwrap();
    client.model_infer(call("lora", &["a", "b"], &[])).await.unwrap();
    let (name, version) = named("lora");
    let stats = client.model_statistics(wire::ModelStatisticsRequest { name, version }).await.unwrap();
    assert_eq!(stats.into_inner().model_stats[0].inference_count, 2);
}

#[tokio::test]
async fn a_server_that_will_stop_is_not_ready_and_still_answers() {
    let Some(mut served) = served().await else { return };
    served.app.drain(Duration::ZERO).await;
    let client = &mut served.client;
    assert!(!client.server_ready(wire::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert!(client.server_live(wire::ServerLiveRequest {}).await.unwrap().into_inner().live);
    client.model_infer(call("lora", &["a"], &[])).await.unwrap();
}

#[tokio::test]
async fn what_was_taken_is_answered_before_the_server_ends() {
    let Some(Served { mut client, stop, server, house, .. }) = served().await else { return };
    let texts = ["my old owl is on the table"; 200];
    let answer = tokio::spawn(async move { client.model_infer(call("lora", &texts, &[])).await });
    while house.engine.waiting() == 0 && !answer.is_finished() {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    assert_eq!(answer.await.unwrap().unwrap().into_inner().outputs[0].shape, [200]);
    server.await.unwrap();
}

#[tokio::test]
async fn a_call_gets_its_id_back_and_has_a_deadline() {
    let Some(mut served) = served().await else { return };
    let mut request = keyed(call("lora", &["a"], &[]));
    request.metadata_mut().insert("x-request-id", "a-1".parse().unwrap());
    let answer = served.client.model_infer(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "a-1");
    let mut request = keyed(call("lora", &["a"], &[]));
    request.metadata_mut().insert("x-request-timeout", "0.000001".parse().unwrap());
    let late = served.client.model_infer(request).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert_eq!(late.metadata().get("x-request-id").unwrap().len(), 32);
}

/// A frame of HTTP/2 for a stream.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_message_does_not_come_is_ended() {
    let short = |s: &mut Settings| s.patience.body = Some(Duration::from_millis(300));
    let Some(served) = served_with(short).await else { return };
    let at = served.at;
    let ended = tokio::task::spawn_blocking(move || {
        let mut head = vec![0x83, 0x86];
        let mut add = |name: &[u8], value: &str| {
            head.extend_from_slice(name);
            head.push(value.len() as u8);
            head.extend_from_slice(value.as_bytes());
        };
        // Places of the static table, and a name of its own.
        add(&[0x04], "/inference.GRPCInferenceService/ModelInfer");
        add(&[0x01], "x");
        add(&[&[0x00, 12], &b"content-type"[..]].concat(), "application/grpc");
        add(&[&[0x00, 2], &b"te"[..]].concat(), "trailers");
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let begun =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(4, 0, 0, &[]), &*frame(1, 4, 1, &head)].concat();
        stream.write_all(&begun).unwrap();
        loop {
            let mut of_frame = [0u8; 9];
            stream.read_exact(&mut of_frame).unwrap();
            let length = u32::from_be_bytes([0, of_frame[0], of_frame[1], of_frame[2]]);
            let mut payload = vec![0u8; length as usize];
            stream.read_exact(&mut payload).unwrap();
            // Headers that are the last of the stream: the status alone.
            if of_frame[8] == 1 && of_frame[3] == 1 {
                return of_frame[4] & 1 == 1;
            }
        }
    });
    assert!(ended.await.unwrap());
}
