//! What a run came to, and what is kept of it beside its tensors.

use graft_plugins::api::Metric;
use serde_json::Value;

use super::features::FeatureCache;
use crate::best::Watch;
use crate::report::FitReport;
use crate::solve::Optimum;

/// Metrics on the test data.
pub type TestReport = Vec<Metric>;

/// What a run came to.
pub struct Outcome {
    /// The loop's report.
    pub report: FitReport,
    /// Metrics on the test data, where it was given.
    pub test: Option<TestReport>,
    /// Elements that were trained.
    pub trainable: usize,
    /// Whether the frozen part was computed once per example.
    pub cached: bool,
    /// Why it was not, where the base has frozen features of a fixed size.
    pub uncached: Option<String>,
    /// The metric that selects, where anything was evaluated.
    pub watch: Option<Watch>,
    /// Where the features came from.
    pub features: FeatureCache,
    /// The optimum of a convex head, where that was solved.
    pub solved: Option<Optimum>,
    /// Why it was not, where the method asks for it.
    pub unsolved: Option<String>,
}

/// Metrics of the evaluation and of the test data, by name.
pub(super) fn metrics_json(report: &FitReport, test: Option<&[Metric]>) -> serde_json::Map<String, Value> {
    let mut map = serde_json::Map::new();
    for (name, value) in report.evaluation.iter().flatten() {
        map.insert(format!("eval_{name}"), Value::from(*value));
    }
    for m in test.into_iter().flatten() {
        map.insert(format!("test_{}", m.name), Value::from(m.value));
    }
    map
}

/// The time as RFC 3339 has it, in UTC.
pub(super) fn now() -> String {
    let s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = ((s / 86_400) as i64, s % 86_400);
    // Days to a civil date, after Howard Hinnant's `civil_from_days`.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
