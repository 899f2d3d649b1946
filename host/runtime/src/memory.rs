//! Memory of this process, as the operating system counts it.

/// Peak resident memory of this process in MB (10⁶ bytes), `None` where the system does not say.
pub fn peak_rss_mb() -> Option<f64> {
    status_mb("VmHWM:")
}

/// Resident memory of this process now in MB (10⁶ bytes).
pub fn rss_mb() -> Option<f64> {
    status_mb("VmRSS:")
}

/// Bytes that this process holds for itself now, without mapped files, which the system can drop; `None` where it does not
/// say.
pub fn own_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let own = parse(&status, "RssAnon:")? + parse(&status, "RssShmem:").unwrap_or(0.0);
    Some((own * 1e6) as u64)
}

/// Gives what was freed, and is still with the allocator, back to the system; does nothing where the allocator has no way.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: glibc's own function, which may be called at any time from any thread.
        unsafe { malloc_trim(0) };
    }
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
    fn what_is_held_counts_and_what_is_freed_does_not() {
        let before = own_memory().unwrap();
        let held: Vec<Vec<u8>> = (0..1000).map(|_| vec![1u8; 50_000]).collect();
        let full = own_memory().unwrap();
        assert!(full > before + 40_000_000 && held.iter().flatten().all(|b| *b == 1), "{before} {full}");
        drop(held);
        give_back_memory();
        let after = own_memory().unwrap();
        assert!(after < full - 40_000_000, "{full} {after}");
    }

    #[test]
    fn the_peak_is_not_below_what_is_held() {
        let held = vec![1u8; 50_000_000];
        let peak = peak_rss_mb().unwrap();
        assert!(peak > 50.0 && held.iter().all(|b| *b == 1), "{peak}");
    }
}
