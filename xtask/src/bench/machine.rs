//! What a measurement was taken on: processor, memory, versions.

use std::fs;
use std::process::Command;

use super::Bench;

/// Describes machine and versions, a line each, for the report above a table.
pub fn describe(bench: &Bench<'_>) -> String {
    let cores = std::thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string());
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpu, "model name").unwrap_or("unknown processor");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut lines = vec![format!("{model}, {cores} cores, {} of memory", gigabytes(&memory))];
    let doctor = said(&mut bench.graft("doctor"));
    let known = ["graft", "ONNX Runtime", "processor"];
    let told = doctor
        .lines()
        .filter(|line| known.iter().any(|k| line.strip_prefix(k).is_some_and(|r| r.starts_with("  "))));
    // The version counts, not where the library lies.
    lines.extend(
        told.map(|l| l.split(" from ").next().unwrap_or(l).split_whitespace().collect::<Vec<_>>().join(" ")),
    );
    let mut git = Command::new("git");
    git.current_dir(&bench.paths.root).args(["describe", "--always", "--dirty"]);
    lines.push(format!("commit {}", said(&mut git).trim()));
    let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    compiler.arg("--version");
    lines.push(said(&mut compiler).trim().to_owned());
    lines.iter().map(|line| format!("- {line}\n")).collect()
}

/// What a command prints, nothing if it can't be had.
pub fn said(command: &mut Command) -> String {
    command.output().map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, v)| v.trim())
}

fn gigabytes(meminfo: &str) -> String {
    let kib = field(meminfo, "MemTotal").and_then(|v| v.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or_else(|| "?".into(), |k| format!("{:.0} GB", k * 1024.0 / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_and_memory_are_read() {
        let cpu = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Another\n";
        assert_eq!(field(cpu, "model name"), Some("Some CPU @ 2.00GHz"));
        assert_eq!(field(cpu, "flags"), None);
        assert_eq!(gigabytes("MemTotal:       24500000 kB\n"), "25 GB");
        assert_eq!(gigabytes(""), "?");
    }
}
