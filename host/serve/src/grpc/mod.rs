//! The Open Inference Protocol (V2) over gRPC: [`crate::v2`] on the wire of `proto/inference.proto`.

mod convert;
mod describe;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, reason = "it is made from the protocol's file")]
pub mod wire;

use std::future::Future;

use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::{Code, Request, Response, Status};

use crate::access::Key;
use crate::app::{App, Caller};
use crate::ask::Refusal;
use crate::v2::{EXTENSIONS, Fault, Kind, MAX_CALL, SERVER, VERSION, infer, models, provenance, repository};
use wire::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};

/// The service of a server.
pub struct Service {
    app: App,
}

impl Service {
    /// What came with a request, and who sent it.
    fn taken<T>(&self, request: Request<T>) -> (Caller, T) {
        let key = Key::of(request.metadata().as_ref());
        (Caller { app: self.app.clone(), key }, request.into_inner())
    }
}

/// The service, ready to be routed to. Calls are of limited size, also after they were unpacked.
pub fn service(app: impl Into<App>) -> GrpcInferenceServiceServer<Service> {
    let service = GrpcInferenceServiceServer::new(Service { app: app.into() });
    let mut service = service.max_decoding_message_size(MAX_CALL);
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
    let router = tonic::transport::Server::builder().add_service(service(app));
    router.serve_with_incoming_shutdown(incoming, until).await
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        let code = match fault.kind {
            Kind::NotFound => Code::NotFound,
            Kind::Invalid => Code::InvalidArgument,
            Kind::Unsupported => Code::Unimplemented,
            Kind::TooLarge | Kind::Busy => Code::ResourceExhausted,
            Kind::NoKey => Code::Unauthenticated,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::Late => Code::DeadlineExceeded,
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
        for (name, value) in by.iter().flat_map(|by| provenance(by, &self.app.engine().store.base_name)) {
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
