//! `graft bench`.

mod serve;

/// Measure a running server
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Serve(serve::Args),
}

/// Runs `graft bench`.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Serve(args) => serve::run(args),
    }
}
