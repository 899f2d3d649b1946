//! What the operating system says of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use graft_runtime::default_threads;
use graft_runtime::library::GRAFT_CACHE;

/// Memory of the machine, in bytes.
#[derive(Debug, PartialEq)]
pub struct Memory {
    /// What is built in.
    pub total: u64,
    /// What could be had now without swapping.
    pub available: u64,
    /// What the container may use, where that is less than `total`.
    pub limit: Option<u64>,
}

/// Memory of the machine; `None` where the system does not say.
pub fn memory() -> Option<Memory> {
    let (total, available) = meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let number = |f: &str| fs::read_to_string(f).ok()?.trim().parse::<u64>().ok();
    let limit = files.into_iter().find_map(number).filter(|l| *l < total);
    Some(Memory { total, available, limit })
}

/// Total and available memory out of the text of `/proc/meminfo`.
fn meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

/// Number of threads, and why that many.
pub fn threads(asked: Option<usize>) -> (usize, String) {
    if let Some(n) = asked {
        return (n.max(1), "as asked for".into());
    }
    let (threads, read) = (default_threads(), |f: &str| fs::read_to_string(f).ok());
    let online = read("/sys/devices/system/cpu/online").and_then(|t| listed(&t));
    let status = read("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).and_then(listed);
    (threads, origin(threads, allowed, online))
}

fn origin(threads: usize, allowed: Option<usize>, online: Option<usize>) -> String {
    let of = online.map(|n| format!("; the machine has {n}")).unwrap_or_default();
    match allowed.or(online) {
        Some(n) if threads < n => format!("the container's CPU quota{of}"),
        _ if online.is_some_and(|n| threads < n) => format!("the processors that this process may use{of}"),
        _ => "one for each processor".into(),
    }
}

/// How many numbers a list such as `0-3,8` has.
fn listed(list: &str) -> Option<usize> {
    let span = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.trim().split(',').try_fold(0usize, |sum, part| sum.checked_add(span(part)?))
}

/// Which of the processor's features that matter here it has.
pub fn features() -> Vec<&'static str> {
    let all = known_features();
    let have: Vec<&str> = all.into_iter().filter(|f| f.1).map(|f| f.0).collect();
    if have.is_empty() { vec!["none of those that matter"] } else { have }
}

#[cfg(target_arch = "x86_64")]
fn known_features() -> Vec<(&'static str, bool)> {
    use std::is_x86_feature_detected as has;
    vec![
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("avx512f", has!("avx512f")),
        ("avx512vnni", has!("avx512vnni")),
        ("avxvnni", has!("avxvnni")),
        ("avx512bf16", has!("avx512bf16")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn known_features() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![("neon", has!("neon")), ("dotprod", has!("dotprod")), ("i8mm", has!("i8mm")), ("sve", has!("sve"))]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn known_features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// The folder that fetched files are kept in: `GRAFT_CACHE`, else the first `.graft` above the executable or here.
pub fn cache() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(GRAFT_CACHE).filter(|v| !v.is_empty()) {
        return Some(named.into());
    }
    let exe = std::env::current_exe().ok();
    let above = exe.iter().flat_map(|e| e.ancestors().skip(1)).map(Path::to_path_buf);
    above.chain(std::env::current_dir().ok()).map(|d| d.join(".graft")).find(|d| d.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(meminfo(text), Some((16 << 20, 8 << 20)));
        assert_eq!(meminfo("MemTotal: many kB\n"), None);
    }

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(listed("0-3,8\n"), Some(5));
        assert_eq!(listed(" 7"), Some(1));
        assert_eq!(listed(""), None);
        assert_eq!(listed("3-1"), None);
        assert_eq!(listed("0-18446744073709551615"), None);
    }

    #[test]
    fn the_number_of_threads_is_explained() {
        assert_eq!(origin(2, Some(16), Some(16)), "the container's CPU quota; the machine has 16");
        assert_eq!(
            origin(4, Some(4), Some(16)),
            "the processors that this process may use; the machine has 16"
        );
        assert_eq!(origin(16, Some(16), Some(16)), "one for each processor");
        assert_eq!(origin(2, None, None), "one for each processor");
    }
}
