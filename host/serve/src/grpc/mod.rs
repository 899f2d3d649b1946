//! The Open Inference Protocol (V2) over gRPC: [`crate::v2`] on the wire of `proto/inference.proto`.

mod convert;
mod describe;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, reason = "it is made from the protocol's file")]
pub mod wire;

use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

use crate::app::{App, Caller};
use crate::ask::Refusal;
use crate::patience::{Clock, in_time};
use crate::trail::{Line, REQUEST_ID, Trail};
use crate::v2::{EXTENSIONS, Fault, Kind, SERVER, VERSION, infer, models, repository};
use wire::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};

/// The service of a server.
pub struct Service {
    app: App,
}

impl Service {
    /// What came with a request, and who sent it.
    fn taken<T>(&self, request: Request<T>) -> (Caller, T) {
        let caller = Caller::of(&self.app, request.metadata().as_ref(), request.extensions());
        (caller, request.into_inner())
    }
}

/// The service, ready to be routed to. Calls are of limited size, also after they were unpacked.
pub fn service(app: impl Into<App>) -> GrpcInferenceServiceServer<Service> {
    let app = app.into();
    let most = app.settings().body_bytes;
    let mut service = GrpcInferenceServiceServer::new(Service { app }).max_decoding_message_size(most);
    for packed in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        service = service.accept_compressed(packed).send_compressed(packed);
    }
    service
}

/// Serves until `until` is done, then answers what was taken.
///
/// # Errors
/// What the listener says.
pub async fn serve(
    listener: tokio::net::TcpListener,
    app: impl Into<App>,
    until: impl Future<Output = ()> + Send + 'static,
) -> Result<(), tonic::transport::Error> {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let app = app.into();
    let mut server = tonic::transport::Server::builder();
    if let Some(most) = app.settings().patience.most {
        server = server.timeout(most);
    }
    server.add_routes(routes(app)).serve_with_incoming_shutdown(incoming, until).await
}

/// The service with a line for each call, and its id given back.
fn routes(app: App) -> Routes {
    let router = Routes::new(service(app.clone())).into_axum_router();
    router.layer(from_fn_with_state(app, followed)).into()
}

async fn followed(
    State(app): State<App>,
    mut request: axum::extract::Request,
    next: Next,
) -> axum::response::Response {
    let trail = Trail::of(request.headers());
    let clock = Clock::start(request.headers());
    let plain =
        |path: &&str| path.len() < 80 && path.bytes().all(|b| b.is_ascii_alphabetic() || b"./".contains(&b));
    let line = Line::begin(&trail, "grpc", "POST", Some(request.uri().path()).filter(plain));
    request.extensions_mut().insert(clock);
    request.extensions_mut().insert(Arc::clone(&trail));
    let mut response = match whole(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(status) => status.into_http::<tonic::body::Body>().map(axum::body::Body::new),
    };
    response.headers_mut().insert(REQUEST_ID, trail.id().clone());
    // Only calls that fail have their code in front.
    line.end(Status::from_header_map(response.headers()).map_or(0, |s| s.code() as u16));
    response
}

/// A call of which the message came in time.
async fn whole(app: &App, request: axum::extract::Request) -> Result<axum::extract::Request, Status> {
    let settings = app.settings();
    let (parts, body) = request.into_parts();
    let most = settings.body_bytes.saturating_add(PREFIX);
    let came = in_time(settings.patience.body, Limited::new(body, most).collect()).await?;
    let body = came.map_err(|e| match e.is::<LengthLimitError>() {
        true => Status::out_of_range(format!("a call has at most {} bytes", settings.body_bytes)),
        false => Status::cancelled("the call broke off"),
    })?;
    Ok(axum::extract::Request::from_parts(parts, body.to_bytes().into()))
}

/// What stands in front of a message: whether it is packed, and its length.
const PREFIX: usize = 5;

impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        let code = match fault.kind {
            Kind::NotFound => Code::NotFound,
            Kind::Invalid => Code::InvalidArgument,
            Kind::Unsupported => Code::Unimplemented,
            Kind::TooLarge | Kind::Busy => Code::ResourceExhausted,
            Kind::NoKey => Code::Unauthenticated,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::Late | Kind::Slow => Code::DeadlineExceeded,
            Kind::Unavailable => Code::Unavailable,
            Kind::Internal => Code::Internal,
        };
        let mut metadata = MetadataMap::new();
        if let Some(after) = fault.retry_after {
            metadata.insert("retry-after", after.into());
        }
        Status::with_metadata(code, fault.message, metadata)
    }
}

impl From<Refusal> for Status {
    fn from(why: Refusal) -> Status {
        Fault::from(why).into()
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<wire::ServerLiveRequest>) -> Answer<wire::ServerLiveResponse> {
        Ok(Response::new(wire::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<wire::ServerReadyRequest>) -> Answer<wire::ServerReadyResponse> {
        Ok(Response::new(wire::ServerReadyResponse { ready: self.app.ready().is_ok() }))
    }

    /// A model that is not there is not ready; that is no fault of the call.
    async fn model_ready(
        &self,
        request: Request<wire::ModelReadyRequest>,
    ) -> Answer<wire::ModelReadyResponse> {
        let (caller, wire::ModelReadyRequest { name, version }) = self.taken(request);
        let ready = match models::find(&caller, &name, &version).await {
            Ok(_) => true,
            Err(fault) if fault.kind == Kind::NotFound => false,
            Err(fault) => return Err(fault.into()),
        };
        Ok(Response::new(wire::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<wire::ServerMetadataRequest>,
    ) -> Answer<wire::ServerMetadataResponse> {
        Ok(Response::new(wire::ServerMetadataResponse {
            name: SERVER.into(),
            version: VERSION.into(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<wire::ModelMetadataRequest>,
    ) -> Answer<wire::ModelMetadataResponse> {
        let (caller, wire::ModelMetadataRequest { name, version }) = self.taken(request);
        let model = models::find(&caller, &name, &version).await?;
        Ok(Response::new(describe::metadata(&self.app.engine().store, name, &model)))
    }

    async fn model_config(
        &self,
        request: Request<wire::ModelConfigRequest>,
    ) -> Answer<wire::ModelConfigResponse> {
        let (caller, wire::ModelConfigRequest { name, version }) = self.taken(request);
        let model = models::find(&caller, &name, &version).await?;
        let config = describe::config(&self.app.engine().store, name, &model);
        Ok(Response::new(wire::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_infer(
        &self,
        request: Request<wire::ModelInferRequest>,
    ) -> Answer<wire::ModelInferResponse> {
        let (caller, call) = self.taken(request);
        // As over HTTP: a model that is not there comes before all else.
        let model = models::find(&caller, &call.model_name, &call.model_version).await?;
        let (request, id) = convert::request(call)?;
        let answer = infer(&caller, &model, request).await?;
        let by = answer.by.clone();
        let mut response = Response::new(convert::response(answer, id)?);
        for (name, value) in by.iter().flat_map(|by| by.headers(&self.app.engine().store.base_name)) {
            if let Ok(value) = AsciiMetadataValue::try_from(value) {
                response.metadata_mut().insert(AsciiMetadataKey::from_static(name), value);
            }
        }
        Ok(response)
    }

    async fn model_statistics(
        &self,
        request: Request<wire::ModelStatisticsRequest>,
    ) -> Answer<wire::ModelStatisticsResponse> {
        let (caller, wire::ModelStatisticsRequest { name, version }) = self.taken(request);
        let store = &self.app.engine().store;
        let models = match name.is_empty() {
            true => caller.residents()?,
            false => vec![models::find(&caller, &name, &version).await?],
        };
        let model_stats = models.iter().map(|m| describe::statistics(store, m)).collect();
        Ok(Response::new(wire::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<wire::RepositoryIndexRequest>,
    ) -> Answer<wire::RepositoryIndexResponse> {
        let (caller, wire::RepositoryIndexRequest { repository_name, ready }) = self.taken(request);
        only_repository(&repository_name)?;
        let models = repository::index(&caller, ready).await?.into_iter().map(describe::entry);
        Ok(Response::new(wire::RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<wire::RepositoryModelLoadRequest>,
    ) -> Answer<wire::RepositoryModelLoadResponse> {
        let (caller, wire::RepositoryModelLoadRequest { repository_name, model_name, parameters }) =
            self.taken(request);
        let store = caller.administer()?;
        only_repository(&repository_name)?;
        if !parameters.is_empty() {
            return Err(Fault::new(Kind::Unsupported, repository::NO_PARAMETERS).into());
        }
        repository::load(store, &model_name).await?;
        Ok(Response::new(wire::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<wire::RepositoryModelUnloadRequest>,
    ) -> Answer<wire::RepositoryModelUnloadResponse> {
        let (caller, wire::RepositoryModelUnloadRequest { repository_name, model_name, .. }) =
            self.taken(request);
        let store = caller.administer()?;
        only_repository(&repository_name)?;
        repository::unload(store, &model_name)?;
        Ok(Response::new(wire::RepositoryModelUnloadResponse {}))
    }
}

/// There is one folder of adapters, without a name.
fn only_repository(name: &str) -> Result<(), Fault> {
    match name {
        "" => Ok(()),
        _ => Err(Fault::new(Kind::Unsupported, "there is one repository, which has no name")),
    }
}
