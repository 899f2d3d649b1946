//! `graft bench serve`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use graft_data::{ReadOptions, Table as Data};
use graft_serve::drive::{Client, Latencies, Mix, Pace, Plan, Report, built_in, of_lines};

use crate::table::{Page, Table, count, show_json};

/// Send requests to a running `graft serve` and measure its answers
///
/// Requests go to a mix of adapters, all that GET /v1/models lists unless some are named, over the Open Inference Protocol as
/// JSON. There are two ways to send them:
///
/// --clients N is a closed loop: N clients, each of which waits for its answer and then asks again. It shows what the server
/// can do at most. A client that is refused (429) waits as long as the answer says.
///
/// --rate R is an open loop: R requests a second on average, at random times that wait for nobody (a Poisson process). It
/// shows how long people wait at that load. A latency counts from the time at which the request was to be sent, so that a
/// server that stands still for a second makes all requests of that second late, and not one of them.
///
/// Padding and tokens are the server's own counts (GET /metrics) while requests were sent, whoever's they were. Keys are taken
/// from GRAFT_API_KEY or else GRAFT_ADMIN_KEY, for /metrics from GRAFT_METRICS_KEY or else GRAFT_ADMIN_KEY. The server is asked
/// over plain HTTP.
///
/// Ends with 1 where a request failed for another reason than too much load.
///
/// Examples:
///
///   graft bench serve --url http://127.0.0.1:8080 --clients 16
///
///   graft bench serve --rate 200 --duration 60 --zipf 1.1 --texts questions.csv --column text
///
///   graft bench serve --adapter intent=9 --adapter topic=1 --words 200 --json
#[derive(clap::Args)]
pub struct Args {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// An adapter to ask and how often relative to the others, 1 if not said; the base by its name (repeatable)
    #[arg(long = "adapter", value_name = "NAME[=SHARE]", help_heading = "What is asked")]
    adapters: Vec<String>,
    /// Shares of adapters by Zipf's law: the n-th is asked 1/n^S times as often as the first
    #[arg(long, value_name = "S", help_heading = "What is asked")]
    zipf: Option<f64>,
    /// Texts to ask about: one a line, or a column of a table (CSV, TSV, JSONL, Parquet) [default: made of words]
    #[arg(long, value_name = "FILE", help_heading = "What is asked")]
    texts: Option<PathBuf>,
    /// The column of the texts
    #[arg(long, value_name = "NAME", requires = "texts", help_heading = "What is asked")]
    column: Option<String>,
    /// Words of the texts that are made: a number or two, each length as likely
    #[arg(
        long,
        value_name = "N[-N]",
        default_value = "4-40",
        conflicts_with = "texts",
        help_heading = "What is asked"
    )]
    words: String,
    /// Texts of a request
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), help_heading = "What is asked")]
    rows: u16,
    /// Closed loop: clients that wait for their answers [default: 8]
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..), help_heading = "How often")]
    clients: Option<u16>,
    /// Open loop: requests a second
    #[arg(long, value_name = "R", help_heading = "How often")]
    rate: Option<f64>,
    /// Open loop: most requests under way; further ones are sent late, which counts as latency
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "rate", help_heading = "How often")]
    connections: u16,
    /// Seconds in which requests are sent and counted
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, help_heading = "How often")]
    duration: f64,
    /// Seconds in which requests are sent before that
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, help_heading = "How often")]
    warmup: f64,
    /// Seconds after which a request counts as failed
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, help_heading = "How often")]
    timeout: f64,
    /// What adapters, texts and times are drawn from
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "How often")]
    seed: u64,
    /// A line for each adapter as well
    #[arg(long)]
    by_adapter: bool,
    /// One JSON object last on stdout
    #[arg(long)]
    json: bool,
}

/// Seconds of an argument. Longer than a day is a mistake, and more than a duration can hold.
fn seconds(name: &str, value: f64) -> Result<Duration> {
    if !(0.0..=86400.0).contains(&value) {
        bail!("--{name} {value}: seconds from 0 to 86400 are expected");
    }
    Ok(Duration::from_secs_f64(value))
}

impl Args {
    fn client(&self) -> Result<Client> {
        let key = |names: [&str; 2]| {
            names.into_iter().find_map(|n| std::env::var(n).ok().filter(|k| !k.is_empty()))
        };
        let own = key(["GRAFT_API_KEY", "GRAFT_ADMIN_KEY"]);
        let metrics = key(["GRAFT_METRICS_KEY", "GRAFT_ADMIN_KEY"]).or_else(|| own.clone());
        let timeout = seconds("timeout", self.timeout)?;
        Ok(Client::new(&self.url, own.as_deref(), metrics.as_deref(), timeout)?)
    }

    fn pace(&self) -> Result<Pace> {
        match self.rate {
            None => Ok(Pace::Clients(self.clients.unwrap_or(8).into())),
            Some(rate) if rate.is_finite() && rate > 0.0 && rate <= 1e6 => {
                Ok(Pace::Rate { rate, most: usize::from(self.connections).max(1) })
            }
            Some(rate) => bail!("--rate {rate}: requests a second, above 0 and up to a million"),
        }
    }

    /// Adapters and their shares.
    async fn shares(&self, client: &Client) -> Result<Vec<(String, f64)>> {
        let mut shares = Vec::new();
        for given in &self.adapters {
            let (name, share) = given.rsplit_once('=').unwrap_or((given, "1"));
            let share = share.parse().map_err(|_| anyhow!("--adapter {given}: the share is no number"))?;
            shares.push((name.to_owned(), share));
        }
        if shares.is_empty() {
            let (adapters, base) = client.models().await?;
            let all = if adapters.is_empty() { base.into_iter().collect() } else { adapters };
            shares = all.into_iter().map(|name| (name, 1.0)).collect();
        }
        if let Some(s) = self.zipf {
            for (n, (_, share)) in shares.iter_mut().enumerate() {
                *share *= ((n + 1) as f64).powf(-s);
            }
        }
        Ok(shares)
    }

    fn texts(&self) -> Result<Vec<String>> {
        let Some(file) = &self.texts else {
            let (least, most) = self.words.split_once('-').unwrap_or((&self.words, &self.words));
            return match (least.trim().parse(), most.trim().parse()) {
                (Ok(least), Ok(most)) if 0 < least && least <= most && most <= 100_000 => {
                    Ok(built_in(least, most, self.seed))
                }
                _ => {
                    bail!("--words {}: a number from 1 to 100000 is expected, or two as in 4-40", self.words)
                }
            };
        };
        let plain = |p: &Path| p.extension().is_none_or(|e| e.eq_ignore_ascii_case("txt"));
        if self.column.is_none() && plain(file) {
            let text = std::fs::read_to_string(file);
            return Ok(of_lines(&text.with_context(|| format!("can't read {}", file.display()))?));
        }
        let name = self.column.as_deref().unwrap_or("text");
        let options = ReadOptions { select: Some(vec![name.to_owned()]), ..ReadOptions::default() };
        let table = Data::read(file, &options)?;
        let column = table.column(name)?;
        let cells = (0..table.len()).filter_map(|i| column.get(i));
        Ok(cells.filter(|c| !c.trim().is_empty()).map(str::to_owned).collect())
    }

    async fn measure(&self) -> Result<Report> {
        let client = self.client()?;
        let mix = Mix::new(self.shares(&client).await?, self.texts()?)?;
        let plan = Plan {
            client,
            mix,
            rows: self.rows.into(),
            pace: self.pace()?,
            warmup: seconds("warmup", self.warmup)?,
            duration: seconds("duration", self.duration)?,
            seed: self.seed,
        };
        Ok(plan.run().await?)
    }
}

/// Runs `graft bench serve`.
pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(args.measure())?;
    show(&report, args.by_adapter)?;
    if args.json {
        show_json(&report.json())?;
    }
    if !report.errors.is_empty() {
        bail!("{} requests failed", report.errors.values().sum::<usize>());
    }
    Ok(())
}

fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { count(value.round() as u64) }
}

fn show(report: &Report, by_adapter: bool) -> Result<()> {
    let mut page = Page::new();
    let a_second = |n: f64| format!("{}/s", number(report.per_second(n)));
    let mut facts = vec![
        (
            "requests",
            format!(
                "{} in {:.1} s, {}",
                count(report.answered as u64),
                report.seconds,
                a_second(report.answered as f64)
            ),
        ),
        ("rows", a_second(report.rows as f64)),
    ];
    match &report.served {
        Ok(served) => {
            facts.push(("tokens", a_second(served.tokens)));
            let batch = if served.batches > 0.0 { served.rows / served.batches } else { 0.0 };
            let waste = 100.0 * served.waste();
            facts.push(("padding", format!("{waste:.1} % of what was run, {batch:.1} rows a batch")));
        }
        Err(why) => facts.push(("padding", format!("not known: {why}"))),
    }
    facts.push(("refused", count(report.refused as u64)));
    let errors = report.errors.iter().map(|(what, n)| format!("{n}: {what}")).collect::<Vec<_>>();
    facts.push(("failed", if errors.is_empty() { "0".into() } else { errors.join("\n") }));
    page.facts(&facts);
    page.heading("latency, ms");
    let mut table = Table::new(&["adapter", "#requests", "#p50", "#p90", "#p99", "#max", "#mean"]);
    let mut line = |name: &str, answered: usize, latencies: &Option<Latencies>| {
        let figures = latencies.map(|l| [l.p50, l.p90, l.p99, l.max, l.mean].map(|f| format!("{f:.2}")));
        table.row([name.to_owned(), count(answered as u64)].into_iter().chain(figures.into_iter().flatten()));
    };
    line("all", report.answered, &report.latencies);
    if report.beyond_inference.is_some() {
        line("  beyond inference", report.answered, &report.beyond_inference);
    }
    if by_adapter {
        report.by_adapter.iter().for_each(|(name, answered, own)| line(name, *answered, own));
    }
    page.table(&table);
    page.show()
}
