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

/// From now on blocks of 256 KiB and more are the system's again as soon as they are freed, and grow without being copied;
/// does nothing where the allocator has no way. For a process that holds thousands of adapters that come and go: left to
/// itself, glibc raises that limit to 32 MiB, and what was freed below it lies between blocks that stay.
pub fn map_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        /// `M_MMAP_THRESHOLD` of glibc's malloc.h.
        const FROM: c_int = -3;
        /// `M_TRIM_THRESHOLD`, whose default is so low that each batch would give back memory that the next one needs.
        const KEPT: c_int = -1;
        // SAFETY: glibc's own function, which may be called at any time from any thread; what it refuses, it leaves.
        unsafe {
            mallopt(FROM, 256 << 10);
            mallopt(KEPT, 16 << 20);
        }
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

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn large_blocks_between_others_are_given_back_at_once() {
        map_large_blocks();
        // From a freed block of this size on, glibc would keep smaller ones.
        drop(vec![1u8; 20_000_000]);
        let block = |_| (vec![1u8; 1_000_000], vec![1u8; 1000]);
        let (large, small): (Vec<_>, Vec<_>) = (0..60).map(block).unzip();
        let full = own_memory().unwrap();
        drop(large);
        let after = own_memory().unwrap();
        assert!(after < full - 50_000_000 && small.iter().flatten().all(|b| *b == 1), "{full} {after}");
    }

    #[test]
    fn the_peak_is_not_below_what_is_held() {
        let held = vec![1u8; 50_000_000];
        let peak = peak_rss_mb().unwrap();
        assert!(peak > 50.0 && held.iter().all(|b| *b == 1), "{peak}");
    }
}
