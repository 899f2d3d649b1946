//! Running other programs.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// The cargo that started us, so that the toolchain stays the same.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let quote = |word: &OsStr| {
        let word = word.to_string_lossy().into_owned();
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "\"'$&|;()<>*?".contains(c)) {
            format!("'{}'", word.replace('\'', r"'\''"))
        } else {
            word
        }
    };
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with our own input and output.
///
/// # Errors
/// [`Error::Start`] and [`Error::Failed`].
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: shown(command), status: status.to_string() })
}

/// Runs `command`, passes its output on line by line and shows each line to `look`. What it prints on standard output
/// and on standard error both count. Returns whether it succeeded.
///
/// # Errors
/// [`Error::Start`].
pub fn run_watched(command: &mut Command, look: impl FnMut(&str) + Send) -> Result<bool> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| start_error(command, source))?;
    let look = std::sync::Mutex::new(look);
    let see = |line: &str| {
        if let Ok(mut look) = look.lock() {
            look(line);
        }
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| out.map(|pipe| pass_on(pipe, io::stdout(), &see)));
        scope.spawn(|| err.map(|pipe| pass_on(pipe, io::stderr(), &see)));
    });
    let status = child.wait().map_err(|source| start_error(command, source))?;
    Ok(status.success())
}

fn pass_on(from: impl io::Read, mut to: impl Write, see: &impl Fn(&str)) {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    // A reader that hung up is no reason to stop: the program must still be able to write.
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let _ = to.write_all(&line).and_then(|()| to.flush());
        see(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

fn start_error(command: &Command, source: io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("graft");
        command.args(["predict", "it's late", "--base", "b"]);
        assert_eq!(shown(&command), r"graft predict 'it'\''s late' --base b");
    }

    #[test]
    fn both_outputs_are_watched_and_failure_is_told() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let good = run_watched(&mut command, |line| seen.push(line.trim().to_owned())).unwrap();
        seen.sort();
        assert_eq!(seen, ["one", "two"]);
        assert!(!good);
    }
}
