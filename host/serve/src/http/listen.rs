//! Connections: who does not send is not waited for.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use super::router;
use crate::app::App;

/// Serves until `until` is done, then answers what was taken.
///
/// # Errors
/// What the listener says.
pub async fn serve(
    listener: TcpListener,
    app: impl Into<App>,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    listener.local_addr()?;
    let app = app.into();
    let mut server = Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(app.settings().patience.idle);
    let (router, open) = (router(app), GracefulShutdown::new());
    let mut until = pin!(until);
    loop {
        let stream = tokio::select! {
            stream = accepted(&listener) => stream,
            () = &mut until => break,
        };
        // Answers are written at once; waiting for more to send would only make them late.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = open.watch(connection);
        // What a connection ends with is its other end's to know.
        tokio::spawn(async move { drop(connection.await) });
    }
    drop(listener);
    open.shutdown().await;
    Ok(())
}

/// The next connection. Where the system has no more of them, some will be closed soon.
async fn accepted(listener: &TcpListener) -> TcpStream {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(e) if matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
            Err(e) => {
                tracing::warn!("no connection can be taken: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
