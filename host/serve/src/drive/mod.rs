//! Drives a running server with requests, and measures what comes back.
//!
//! | module | what |
//! |---|---|
//! | `client` | one request over HTTP, and what became of it |
//! | `mix` | which adapter and which texts a request has |
//! | `pace` | when requests are sent: clients that wait for their answers, or arrivals that wait for nobody |
//! | `scrape` | the server's own numbers |
//! | `report` | figures of it all |

mod client;
mod mix;
mod pace;
mod report;
mod scrape;

use std::sync::Arc;
use std::time::Duration;

pub use client::Client;
pub use mix::{Mix, built_in, of_lines};
pub use pace::Pace;
pub use report::{Latencies, Report};
pub use scrape::Numbers;

use client::Outcome;
use pace::Sample;

/// What is asked, of whom, how often.
pub struct Plan {
    /// Who is asked.
    pub client: Client,
    /// Which adapters and texts.
    pub mix: Mix,
    /// Texts of a request.
    pub rows: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// How long requests are sent that are not counted.
    pub warmup: Duration,
    /// How long requests are sent that are.
    pub duration: Duration,
    /// What adapters, texts and arrivals are drawn from.
    pub seed: u64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The address can't be one.
    #[error("'{0}' is no address of a server; one looks like http://127.0.0.1:8080")]
    Address(String),
    /// The server does not answer, or not as expected.
    #[error("{url}: {detail}")]
    Server {
        /// What was asked.
        url: String,
        /// What went wrong.
        detail: String,
    },
    /// There is nothing to ask.
    #[error("{0}")]
    Plan(String),
}

impl Plan {
    /// Sends requests and waits for all answers.
    ///
    /// # Errors
    /// Where an adapter of the mix does not answer at all: that is asked first, once each.
    pub async fn run(self) -> Result<Report, DriveError> {
        let plan = Arc::new(self);
        for name in plan.mix.adapters() {
            plan.client.greet(name, plan.mix.text(0)).await?;
        }
        if !plan.warmup.is_zero() {
            pace::run(&plan, plan.warmup, 0).await;
        }
        let before = plan.client.numbers().await;
        let (samples, seconds) = pace::run(&plan, plan.duration, 1).await;
        let after = plan.client.numbers().await;
        let served = match (before, after) {
            (Ok(before), Ok(after)) => Ok(after.since(&before)),
            (Err(why), _) | (_, Err(why)) => Err(why.to_string()),
        };
        Ok(Report::of(&plan, &samples, seconds, served))
    }
}
