//! `graft plugins verify`.

use std::path::PathBuf;

use anyhow::Result;
use graft_plugins::Tried;
use graft_runtime::{Runtime, RuntimeOptions};
use graft_tasks::{Agreement, TaskError, compare_with_differences};
use serde_json::{Value as Json, json};

use crate::table::{Page, Table, show_json};

/// Check a plugin library: manifest, version, layout, defaults, examples, gradients
///
/// Loads the library and runs its code: with its defaults and with each example every method and objective is written
/// into a tiny base, and its gradients are derived and compared with differences. The exit code is 1 if something does
/// not hold.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graft plugins verify target/release/libmy_plugin.so")]
pub struct Verify {
    /// The library
    file: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// What became of the gradients of a method or an objective.
enum Gradients {
    /// They were compared.
    Compared(Result<Agreement, TaskError>),
    /// It is for other bases or data.
    Refused(String),
    /// There is nothing to run it in.
    NotRun { parameters: usize },
}

/// Runs the command.
pub fn run(args: &Verify) -> Result<()> {
    let verified = match graft_plugins::verify(&args.file) {
        Ok(verified) => verified,
        Err(e) => {
            if args.json {
                let error = e.to_string();
                show_json(
                    &json!({ "path": args.file, "sound": false, "held": [], "gradients": [], "error": error }),
                )?;
            }
            return Err(e.into());
        }
    };
    let runtime = Runtime::start(&RuntimeOptions::default());
    let compared = |(what, tried): (String, Tried)| {
        let gradients = match (tried, &runtime) {
            (Tried::Refused(why), _) => Gradients::Refused(why),
            (Tried::Written(t), Ok(r)) => Gradients::Compared(compare_with_differences(r, &t)),
            (Tried::Written(t), Err(_)) => Gradients::NotRun { parameters: t.adapted.params.len() },
        };
        (what, gradients)
    };
    let trials: Vec<(String, Gradients)> = verified.trials.into_iter().map(compared).collect();
    let held: Vec<&str> = verified.held.iter().map(|c| c.what.as_str()).collect();
    let wrong =
        || trials.iter().find_map(|(_, g)| if let Gradients::Compared(Err(e)) = g { Some(e) } else { None });
    if args.json {
        let gradients: Vec<Json> = trials.iter().map(|(what, g)| row_json(what, g)).collect();
        let error = wrong().map(ToString::to_string);
        let not_run = runtime.as_ref().err().map(ToString::to_string);
        show_json(&json!({
            "path": args.file, "sound": error.is_none(), "held": held, "gradients": gradients,
            "not_compared": not_run, "error": error,
        }))?;
    } else {
        let mut page = Page::new();
        held.iter().for_each(|what| page.line(format!("ok  {what}")));
        if !trials.is_empty() {
            page.heading("Gradients on a tiny base, beside differences");
            let mut table = Table::new(&["what", "parameters", "gradients"]);
            trials.iter().for_each(|(what, g)| table.row(row(what, g)));
            page.table(&table);
        }
        if let Err(e) = &runtime {
            page.line(format!(
                "\nThey were derived and not compared, for there is nothing to run them in: {e}"
            ));
        }
        if wrong().is_none() {
            page.line(format!("\n{} is a sound plugin: {} checks held.", args.file.display(), held.len()));
        }
        page.show()?;
    }
    match trials
        .into_iter()
        .find_map(|(_, g)| if let Gradients::Compared(Err(e)) = g { Some(e) } else { None })
    {
        Some(e) => Err(e.into()),
        None => Ok(()),
    }
}

fn row(what: &str, gradients: &Gradients) -> [String; 3] {
    let (parameters, words) = match gradients {
        Gradients::Refused(why) => (String::new(), format!("not tried, it refuses that base: {why}")),
        Gradients::NotRun { parameters } => (parameters.to_string(), "derived, not compared".to_owned()),
        Gradients::Compared(Err(_)) => (String::new(), "wrong, see below".to_owned()),
        Gradients::Compared(Ok(a)) if a.parameters == 0 => ("0".to_owned(), "none to compare".to_owned()),
        Gradients::Compared(Ok(a)) => {
            let mut words = format!("ok, within {:.1e}", a.largest);
            if !a.stopped.is_empty() {
                words += &format!("; stops {}", a.stopped.len());
                let mut places: Vec<&str> =
                    a.stopped.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
                places.dedup();
                if !places.is_empty() {
                    words += &format!(" at {}", places.join(", "));
                }
                words += ", held fixed meanwhile";
            }
            (a.parameters.to_string(), words)
        }
    };
    [what.to_owned(), parameters, words]
}

fn row_json(what: &str, gradients: &Gradients) -> Json {
    match gradients {
        Gradients::Refused(why) => json!({ "what": what, "refused": why }),
        Gradients::NotRun { parameters } => json!({ "what": what, "parameters": parameters }),
        Gradients::Compared(Err(e)) => json!({ "what": what, "error": e.to_string() }),
        Gradients::Compared(Ok(a)) => json!({
            "what": what, "parameters": a.parameters, "compared": a.compared, "largest_difference": a.largest,
            "stopped": a.stopped,
        }),
    }
}
