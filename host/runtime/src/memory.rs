//! Memory of this process, as the operating system counts it.

/// Peak resident memory of this process in MB (10⁶ bytes), `None` where the system does not say.
pub fn peak_rss_mb() -> Option<f64> {
    status_mb("VmHWM:")
}

/// Resident memory of this process now in MB (10⁶ bytes).
pub fn rss_mb() -> Option<f64> {
    status_mb("VmRSS:")
}

fn status_mb(field: &str) -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?, field)
}

fn parse(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_megabytes() {
        assert_eq!(parse("Name:\tx\nVmHWM:\t  1000 kB\nVmRSS:\t 500 kB\n", "VmHWM:"), Some(1.024));
        assert_eq!(parse("VmHWM: lots\n", "VmHWM:"), None);
    }

    #[test]
    fn the_peak_is_not_below_what_is_held() {
        let held = vec![1u8; 50_000_000];
        let peak = peak_rss_mb().unwrap();
        assert!(peak > 50.0 && held.iter().all(|b| *b == 1), "{peak}");
    }
}
