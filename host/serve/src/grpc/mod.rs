//! The Open Inference Protocol (V2) over gRPC: [`crate::v2`] on the wire of `proto/inference.proto`.

mod convert;
mod describe;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, reason = "it is made from the protocol's file")]
pub mod wire;

use std::future::Future;
use std::sync::Arc;

use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Code, Request, Response, Status};

use crate::engine::Engine;
use crate::v2::{EXTENSIONS, Fault, Kind, MAX_CALL, SERVER, VERSION, infer, models, provenance, repository};
use wire::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};

/// The service over an engine.
pub struct Service {
    engine: Arc<Engine>,
}

/// The service, ready to be routed to. Calls are of limited size, also after they were unpacked.
pub fn service(engine: Arc<Engine>) -> GrpcInferenceServiceServer<Service> {
    let mut service = GrpcInferenceServiceServer::new(Service { engine }).max_decoding_message_size(MAX_CALL);
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
    engine: Arc<Engine>,
    until: impl Future<Output = ()> + Send + 'static,
) -> Result<(), tonic::transport::Error> {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let router = tonic::transport::Server::builder().add_service(service(engine));
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
        Status::new(code, fault.message)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<wire::ServerLiveRequest>) -> Answer<wire::ServerLiveResponse> {
        Ok(Response::new(wire::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<wire::ServerReadyRequest>) -> Answer<wire::ServerReadyResponse> {
        Ok(Response::new(wire::ServerReadyResponse { ready: true }))
    }

    /// A model that is not there is not ready; that is no fault of the call.
    async fn model_ready(
        &self,
        request: Request<wire::ModelReadyRequest>,
    ) -> Answer<wire::ModelReadyResponse> {
        let wire::ModelReadyRequest { name, version } = request.into_inner();
        let ready = match models::find(&self.engine, &name, &version) {
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
        let wire::ModelMetadataRequest { name, version } = request.into_inner();
        let model = models::find(&self.engine, &name, &version)?;
        Ok(Response::new(describe::metadata(&self.engine.store, name, &model)))
    }

    async fn model_config(
        &self,
        request: Request<wire::ModelConfigRequest>,
    ) -> Answer<wire::ModelConfigResponse> {
        let wire::ModelConfigRequest { name, version } = request.into_inner();
        let model = models::find(&self.engine, &name, &version)?;
        let config = describe::config(&self.engine.store, name, &model);
        Ok(Response::new(wire::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_infer(
        &self,
        request: Request<wire::ModelInferRequest>,
    ) -> Answer<wire::ModelInferResponse> {
        let call = request.into_inner();
        // As over HTTP: a model that is not there comes before all else.
        models::find(&self.engine, &call.model_name, &call.model_version)?;
        let (request, id) = convert::request(call)?;
        let answer = infer(&self.engine, request).await?;
        let by = answer.by.clone();
        let mut response = Response::new(convert::response(answer, id)?);
        for (name, value) in by.iter().flat_map(|by| provenance(by, &self.engine.store.base_name)) {
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
        let wire::ModelStatisticsRequest { name, version } = request.into_inner();
        let store = &self.engine.store;
        let models = match name.is_empty() {
            true => models::all(store),
            false => vec![models::find(&self.engine, &name, &version)?],
        };
        let model_stats = models.iter().map(|m| describe::statistics(store, m)).collect();
        Ok(Response::new(wire::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<wire::RepositoryIndexRequest>,
    ) -> Answer<wire::RepositoryIndexResponse> {
        let wire::RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        only_repository(&repository_name)?;
        let models = repository::index(&self.engine, ready).await?.into_iter().map(describe::entry);
        Ok(Response::new(wire::RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<wire::RepositoryModelLoadRequest>,
    ) -> Answer<wire::RepositoryModelLoadResponse> {
        let wire::RepositoryModelLoadRequest { repository_name, model_name, parameters } =
            request.into_inner();
        only_repository(&repository_name)?;
        if !parameters.is_empty() {
            return Err(Fault::new(Kind::Unsupported, repository::NO_PARAMETERS).into());
        }
        repository::load(&self.engine, &model_name).await?;
        Ok(Response::new(wire::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<wire::RepositoryModelUnloadRequest>,
    ) -> Answer<wire::RepositoryModelUnloadResponse> {
        let wire::RepositoryModelUnloadRequest { repository_name, model_name, .. } = request.into_inner();
        only_repository(&repository_name)?;
        repository::unload(&self.engine.store, &model_name)?;
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
