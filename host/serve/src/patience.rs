//! How long a request may take: what its headers and parameters say, within what the server allows.

use std::future::Future;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use crate::ask::Refusal;

/// Headers that say it in seconds: a plain one, and those of OpenAI's clients for Python and JavaScript.
const SECONDS: [&str; 3] = ["x-request-timeout", "x-stainless-read-timeout", "x-stainless-timeout"];
/// In milliseconds: Envoy's, which stands in front of KServe and in meshes.
const MILLISECONDS: &str = "x-envoy-expected-rq-timeout-ms";
/// In units that it names: gRPC's.
const GRPC: &str = "grpc-timeout";

/// The limits of time; `None` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Of a request that does not say.
    pub usual: Option<Duration>,
    /// Of any request.
    pub most: Option<Duration>,
    /// Until the body of a request is there; of an upload, between two pieces of it.
    pub body: Option<Duration>,
    /// Until the head of the next request is there, on a connection that is open.
    pub idle: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Patience {
        let seconds = |n| Some(Duration::from_secs(n));
        Patience { usual: seconds(60), most: seconds(600), body: seconds(30), idle: seconds(75) }
    }
}

/// When a request began, and how long its sender said that it will wait.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    asked: Option<Duration>,
}

impl Clock {
    /// Starts now.
    pub fn start(headers: &HeaderMap) -> Clock {
        Clock { began: Instant::now(), asked: asked(headers) }
    }

    /// When the answer is of no use any more; `more` is what a parameter of the request says.
    pub fn deadline(&self, more: Option<Duration>, patience: &Patience) -> Option<Instant> {
        let asked = self.asked.into_iter().chain(more).min().or(patience.usual);
        let allowed = asked.into_iter().chain(patience.most).min();
        allowed.and_then(|wait| self.began.checked_add(wait))
    }
}

/// What comes of a body, if it comes in time.
pub(crate) async fn in_time<T>(
    within: Option<Duration>,
    coming: impl Future<Output = T>,
) -> Result<T, Refusal> {
    match within {
        Some(within) => tokio::time::timeout(within, coming).await.map_err(|_| Refusal::Slow { within }),
        None => Ok(coming.await),
    }
}

/// The shortest time that headers say. What is no time, or none at all, says nothing.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok();
    let seconds = SECONDS.iter().filter_map(|name| number(name));
    let seconds = seconds.chain(number(MILLISECONDS).map(|ms| ms / 1e3));
    let plain = seconds.filter_map(|s| Duration::try_from_secs_f64(s).ok()).filter(|d| !d.is_zero());
    plain.chain(text(GRPC).and_then(of_grpc)).min()
}

/// At most 8 digits and a unit.
fn of_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&'static str, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        pairs.iter().for_each(|(k, v)| drop(headers.insert(*k, v.parse().expect("a value"))));
        asked(&headers)
    }

    #[test]
    fn each_header_has_its_unit() {
        for (name, value, wanted) in [
            ("x-request-timeout", "1.5", Duration::from_millis(1500)),
            ("x-stainless-read-timeout", "600", Duration::from_secs(600)),
            ("x-stainless-timeout", "20", Duration::from_secs(20)),
            ("x-envoy-expected-rq-timeout-ms", "15000", Duration::from_secs(15)),
            ("grpc-timeout", "250m", Duration::from_millis(250)),
            ("grpc-timeout", "3S", Duration::from_secs(3)),
            ("grpc-timeout", "99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(said(&[(name, value)]), Some(wanted), "{name}: {value}");
        }
        let both = [("x-request-timeout", "9"), ("grpc-timeout", "2S")];
        assert_eq!(said(&both), Some(Duration::from_secs(2)), "the shortest");
    }

    #[test]
    fn what_is_no_time_says_nothing() {
        for value in ["", "0", "-1", "NaN", "inf", "1e300", "soon", "0x10"] {
            assert_eq!(said(&[("x-request-timeout", value)]), None, "{value:?}");
        }
        for value in ["", "S", "5", "-5S", "123456789S", "5s", "é", "+5S"] {
            assert_eq!(said(&[("grpc-timeout", value)]), None, "{value:?}");
        }
    }

    #[test]
    fn nobody_waits_for_longer_than_is_allowed() {
        let seconds = |n: u64| Some(Duration::from_secs(n));
        let patience = Patience { usual: seconds(10), most: seconds(100), ..Patience::default() };
        let began = Instant::now();
        let until = |asked, more, patience: &Patience| {
            Clock { began, asked }.deadline(more, patience).map(|at| at - began)
        };
        assert_eq!(until(None, None, &patience), seconds(10));
        assert_eq!(until(seconds(50), None, &patience), seconds(50));
        assert_eq!(until(seconds(50), seconds(20), &patience), seconds(20));
        assert_eq!(until(seconds(5000), None, &patience), seconds(100));
        assert_eq!(until(None, seconds(5000), &patience), seconds(100));
        let none = Patience { usual: None, most: None, ..patience };
        assert_eq!((until(None, None, &none), until(seconds(7), None, &none)), (None, seconds(7)));
    }
}
