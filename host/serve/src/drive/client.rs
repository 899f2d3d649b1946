//! One request over HTTP, and what became of it.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::DriveError;
use super::scrape::Numbers;
use crate::ask::Times;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// A connection pool to one server.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    url: String,
    key: Option<HeaderValue>,
    metrics_key: Option<HeaderValue>,
    timeout: Duration,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was answered by the adapter that was asked.
    Answered,
    /// There is too much to do; whole seconds after which to come again.
    Refused(u64),
    /// Another status.
    Status(u16),
    /// Another adapter answered.
    Mistaken,
    /// No answer in time.
    Late,
    /// The connection failed.
    Broken,
}

impl Outcome {
    /// In a word or two, for tables.
    pub fn kind(&self) -> String {
        match self {
            Outcome::Answered => "answered".into(),
            Outcome::Refused(_) => "refused (429)".into(),
            Outcome::Status(status) => format!("status {status}"),
            Outcome::Mistaken => "answered by another adapter".into(),
            Outcome::Late => "no answer in time".into(),
            Outcome::Broken => "connection failed".into(),
        }
    }
}

/// The time that the server spent on running the request, by what its answer says.
fn inference(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(Times::HEADER)?.to_str().ok()?;
    let mut parts = value.split(',').map(|part| part.split(';').map(str::trim));
    let mut of_it = parts.find_map(|mut part| (part.next() == Some("inference")).then_some(part))?;
    let ms: f64 = of_it.find_map(|p| p.strip_prefix("dur="))?.parse().ok()?;
    Duration::try_from_secs_f64(ms / 1e3).ok()
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

fn bearer(key: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Client {
    /// A client of the server at `url`, with the key for adapters and that for numbers.
    ///
    /// # Errors
    /// [`DriveError::Address`] for what is not `http://HOST:PORT`.
    pub fn new(
        url: &str,
        key: Option<&str>,
        metrics_key: Option<&str>,
        timeout: Duration,
    ) -> Result<Client, DriveError> {
        let uri: Uri = url.parse().map_err(|_| DriveError::Address(url.to_owned()))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
            return Err(DriveError::Address(url.to_owned()));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let (key, metrics_key) = (key.and_then(bearer), metrics_key.and_then(bearer));
        Ok(Client { pool, url: url.trim_end_matches('/').to_owned(), key, metrics_key, timeout })
    }

    fn server(&self, path: &str, detail: impl Into<String>) -> DriveError {
        DriveError::Server { url: format!("{}{path}", self.url), detail: detail.into() }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Answer, Outcome> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, key);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body));
        let request = request.map_err(|_| Outcome::Broken)?;
        let answer = async {
            let response = self.pool.request(request).await.map_err(|_| Outcome::Broken)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| Outcome::Broken)?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(self.timeout, answer).await.unwrap_or(Err(Outcome::Late))
    }

    async fn get(&self, path: &str, key: Option<&HeaderValue>) -> Result<Bytes, DriveError> {
        let answer = self.send(Method::GET, path, key, Bytes::new()).await;
        let answer = answer.map_err(|o| self.server(path, o.kind()))?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            status => Err(self.server(path, format!("status {status}"))),
        }
    }

    /// The adapters that the key opens, and the base.
    ///
    /// # Errors
    /// Where they can't be listed.
    pub async fn models(&self) -> Result<(Vec<String>, Option<String>), DriveError> {
        const PATH: &str = "/v1/models";
        let body = self.get(PATH, self.key.as_ref()).await?;
        let list: Value = serde_json::from_slice(&body).map_err(|e| self.server(PATH, e.to_string()))?;
        let cards = list["data"].as_array().ok_or_else(|| self.server(PATH, "no list of models"))?;
        let of = |base: bool| {
            let wanted = cards.iter().filter(move |c| c["parent"].is_null() == base);
            wanted.filter_map(|c| c["id"].as_str().map(str::to_owned))
        };
        Ok((of(false).collect(), of(true).next()))
    }

    /// The server's own numbers.
    ///
    /// # Errors
    /// Where they can't be had.
    pub(super) async fn numbers(&self) -> Result<Numbers, DriveError> {
        let text = self.get("/metrics", self.metrics_key.as_ref()).await?;
        Ok(Numbers::of(&String::from_utf8_lossy(&text)))
    }

    async fn ask(&self, adapter: &str, texts: &[&str]) -> Result<Answer, Outcome> {
        let path = format!("/v2/models/{}/infer", utf8_percent_encode(adapter, NON_ALPHANUMERIC));
        let input = json!({ "name": "text", "shape": [texts.len()], "datatype": "BYTES", "data": texts });
        let body = json!({ "inputs": [input] }).to_string();
        self.send(Method::POST, &path, self.key.as_ref(), body.into()).await
    }

    /// Asks once, and tells in the server's words why there is no answer.
    ///
    /// # Errors
    /// Where it is not answered.
    pub(super) async fn greet(&self, adapter: &str, text: &str) -> Result<(), DriveError> {
        let why = |detail: String| self.server("", format!("'{adapter}' does not answer: {detail}"));
        let answer = self.ask(adapter, &[text]).await.map_err(|o| why(o.kind()))?;
        match answer.status {
            StatusCode::OK => Ok(()),
            status => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                Err(why(body["error"].as_str().map_or_else(|| format!("status {status}"), str::to_owned)))
            }
        }
    }

    /// Asks an adapter about texts: what became of it, and how long running it took where the server says so.
    pub(super) async fn outcome(&self, adapter: &str, texts: &[&str]) -> (Outcome, Option<Duration>) {
        let answer = match self.ask(adapter, texts).await {
            Ok(answer) => answer,
            Err(outcome) => return (outcome, None),
        };
        let header = |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok());
        let outcome = match answer.status {
            StatusCode::OK if header("x-adapter") == Some(adapter) => Outcome::Answered,
            StatusCode::OK => Outcome::Mistaken,
            StatusCode::TOO_MANY_REQUESTS => {
                let after = header(RETRY_AFTER.as_str()).and_then(|v| v.parse().ok());
                Outcome::Refused(after.unwrap_or(1))
            }
            status => Outcome::Status(status.as_u16()),
        };
        (outcome, inference(&answer.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    #[test]
    fn the_time_of_inference_is_read_where_there_is_one() {
        let of = |value: &'static str| {
            let headers = [("server", "x"), ("server-timing", value)];
            let headers = headers.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
            inference(&headers.into_iter().collect())
        };
        let times = Times { inference: Duration::from_micros(7250), ..Default::default() };
        let (name, value) = times.header();
        let own = (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        assert_eq!(inference(&[own].into_iter().collect()), Some(times.inference));
        assert_eq!(of("cache, inference; desc=x; dur=0.5"), Some(Duration::from_micros(500)));
        for bad in [
            "",
            "inference",
            "inference;dur=",
            "inference;dur=-1",
            "inference;dur=NaN",
            "inference;dur=1e999",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(inference(&HeaderMap::new()), None);
    }
}
