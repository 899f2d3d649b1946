//! How many threads a session gets: what the container may use, not what the host has.

use std::fs;
use std::path::{Path, PathBuf};

/// Threads to use: the processor's, cut by this process's affinity and by its control group's CPU quota
/// (`cpu.max` in version 2, `cpu.cfs_quota_us` in version 1). At least 1.
pub fn default_threads() -> usize {
    // `available_parallelism` reads affinity and the common layouts of control groups; the search below also finds
    // quotas of groups further up and of mounts in other places.
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match quota(&groups, Path::new("/sys/fs/cgroup")) {
        Some(q) => cores.min(whole(q)),
        None => cores,
    }
}

/// A share of half a core still needs one thread; 2.5 cores are two threads, as a third would be throttled.
fn whole(quota: f64) -> usize {
    (quota.floor() as usize).max(1)
}

/// Reads a group's quota, in cores.
type Reader = fn(&Path) -> Option<f64>;

/// The smallest CPU quota, in cores, of the groups that `proc_cgroup` (the text of `/proc/self/cgroup`) names, under
/// the mount `root`.
fn quota(proc_cgroup: &str, root: &Path) -> Option<f64> {
    let mut smallest: Option<f64> = None;
    for line in proc_cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (bases, read): (Vec<PathBuf>, Reader) = if controllers.is_empty() {
            (vec![root.to_path_buf(), root.join("unified")], v2)
        } else if controllers.split(',').any(|c| c == "cpu") {
            (vec![root.join(controllers), root.join("cpu"), root.join("cpu,cpuacct")], v1)
        } else {
            continue;
        };
        for base in bases {
            let group = Path::new(group.trim_start_matches('/'));
            // A container often sees its own group as the root of the mount: every level upwards counts.
            for level in group.ancestors() {
                if let Some(q) = read(&base.join(level)) {
                    smallest = Some(smallest.map_or(q, |s: f64| s.min(q)));
                }
            }
        }
    }
    smallest
}

fn v2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn v1(group: &Path) -> Option<f64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<f64>().ok();
    ratio(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

/// A quota of −1 or 0 means that there is none.
fn ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn version_two_takes_the_smallest_quota_upwards() {
        let t = tempfile::tempdir().unwrap();
        write(t.path().join("a/cpu.max"), "250000 100000\n");
        write(t.path().join("a/b/cpu.max"), "max 100000\n");
        assert_eq!(quota("0::/a/b\n", t.path()), Some(2.5));
        write(t.path().join("cpu.max"), "50000 100000\n");
        assert_eq!(quota("0::/a/b\n", t.path()), Some(0.5));
    }

    #[test]
    fn version_one_reads_the_cpu_controller() {
        let t = tempfile::tempdir().unwrap();
        let text = "4:memory:/x\n3:cpu,cpuacct:/box\n";
        assert_eq!(quota(text, t.path()), None);
        write(t.path().join("cpu,cpuacct/box/cpu.cfs_quota_us"), "-1");
        write(t.path().join("cpu,cpuacct/box/cpu.cfs_period_us"), "100000");
        assert_eq!(quota(text, t.path()), None);
        write(t.path().join("cpu,cpuacct/box/cpu.cfs_quota_us"), "300000");
        assert_eq!(quota(text, t.path()), Some(3.0));
    }

    #[test]
    fn threads_are_whole_and_at_least_one() {
        assert_eq!((whole(0.5), whole(2.5), whole(4.0)), (1, 2, 4));
        assert!(default_threads() >= 1);
    }

    #[test]
    fn nonsense_is_no_quota() {
        let t = tempfile::tempdir().unwrap();
        write(t.path().join("cpu.max"), "many few");
        assert_eq!(quota("0::/\ngarbage\n::\n", t.path()), None);
    }
}
