//! Frozen features on disk: one file for each set of examples, in the user's cache folder.
//!
//! A file is `GRAFTFT1`, the length of the header (u32, little-endian), the header (JSON), the rows in the data's own
//! order, and the BLAKE3 of all bytes before it. A row holds its tensors one after the other, little-endian. The name of
//! the file and its header hold the key, which covers all that the numbers depend on. A file that is not exactly that is
//! taken for absent.

use std::fs::{File, FileTimes};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What a file begins with; the last digit is the version of the format.
const MAGIC: &[u8; 8] = b"GRAFTFT1";
/// Bytes that a header takes at most, for all that is known before it is made.
const MAX_HEADER: u64 = 1 << 20;
/// Bytes of the digest at the end.
const DIGEST: u64 = 32;
/// What files are called behind their key.
const SUFFIX: &str = "features";
/// Up to so many bytes, rows are read into memory; beyond, the file is mapped.
pub(super) const MEMORY: u64 = 1 << 30;
/// Most bytes of all files together, unless `GRAFT_FEATURES_LIMIT` says otherwise.
const LIMIT: u64 = 16 << 30;

/// How numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they were computed.
    F32,
    /// Rounded to half precision: half the size.
    F16,
}

impl Precision {
    pub(super) fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F16 => 2,
        }
    }
}

/// One tensor of each row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    /// Extents behind the batch.
    pub(super) shape: Vec<usize>,
}

/// What a file holds; also its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// BLAKE3 over everything that the numbers depend on, as hexadecimal digits.
    pub(super) key: String,
    pub(super) rows: usize,
    pub(super) precision: Precision,
    pub(super) columns: Vec<Column>,
}

impl Layout {
    /// Bytes of one row.
    pub(super) fn row(&self) -> usize {
        let elements = |c: &Column| c.shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
        let all = self.columns.iter().fold(0usize, |n, c| n.saturating_add(elements(c)));
        all.saturating_mul(self.precision.bytes())
    }

    /// Bytes of all rows.
    pub(super) fn bytes(&self) -> u64 {
        (self.row() as u64).saturating_mul(self.rows as u64)
    }
}

/// The rows of a file.
pub(super) enum Rows {
    /// In memory.
    Memory(Vec<u8>),
    /// Where the file is mapped, from this byte on.
    Mapped(memmap2::Mmap, usize),
}

impl Rows {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Rows::Memory(v) => v,
            Rows::Mapped(m, start) => m.get(*start..).unwrap_or_default(),
        }
    }
}

/// The folder of feature files.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
    limit: u64,
}

impl Cache {
    /// The user's: `GRAFT_FEATURES`, else `graft/features` in `XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn of_user() -> Result<Cache, String> {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let usual = || {
            Some(
                path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")))?.join("graft/features"),
            )
        };
        let folder = path("GRAFT_FEATURES").or_else(usual);
        let folder =
            folder.ok_or("neither GRAFT_FEATURES nor XDG_CACHE_HOME nor HOME names a folder for them")?;
        let limit = match std::env::var("GRAFT_FEATURES_LIMIT") {
            Ok(text) => {
                text.parse().map_err(|_| format!("GRAFT_FEATURES_LIMIT is {text}, not a number of bytes"))?
            }
            Err(_) => LIMIT,
        };
        Ok(Cache { folder, limit })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.{SUFFIX}"))
    }

    /// Whether features of this layout may be kept at all.
    pub(super) fn has_room(&self, layout: &Layout) -> bool {
        layout.bytes().saturating_add(MAX_HEADER) <= self.limit
    }

    /// The rows that are kept for this layout; `None` where there are none, or none that can be believed.
    pub(super) fn read(&self, layout: &Layout) -> Option<Rows> {
        let path = self.path(&layout.key);
        let mut file = File::open(&path).ok()?;
        match read(&mut file, layout) {
            Ok(rows) => {
                // The time of its last use is what decides which file goes first.
                let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
                Some(rows)
            }
            Err(e) => {
                tracing::warn!("{}: {e}; its features are computed again", path.display());
                None
            }
        }
    }

    /// Keeps what `write` writes, exactly `layout.bytes()` bytes, and removes the oldest files beyond the limit.
    ///
    /// # Errors
    /// What the system says; nothing is kept then.
    pub(super) fn keep(
        &self,
        layout: &Layout,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), String> {
        let path = self.path(&layout.key);
        std::fs::create_dir_all(&self.folder).map_err(|e| format!("{}: {e}", self.folder.display()))?;
        let header = serde_json::to_vec(layout).map_err(|e| e.to_string())?;
        graft_adapters::write_file(&path, |out| {
            let mut out = Hashed { out, hasher: blake3::Hasher::new() };
            out.write_all(MAGIC)?;
            out.write_all(&u32::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes())?;
            out.write_all(&header)?;
            write(&mut out)?;
            let digest = out.hasher.finalize();
            out.out.write_all(digest.as_bytes())
        })
        .map_err(|e| e.to_string())?;
        self.shrink(&path);
        Ok(())
    }

    /// Removes the files that were not used for longest until all together are within the limit; `newest` stays.
    fn shrink(&self, newest: &Path) {
        let Ok(listing) = std::fs::read_dir(&self.folder) else { return };
        let of = |e: std::fs::DirEntry| {
            let meta = e.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let ours = e.path().extension().is_some_and(|x| x == SUFFIX);
            ours.then(|| Some((meta.modified().ok()?, meta.len(), e.path())))?
        };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = listing.flatten().filter_map(of).collect();
        files.sort();
        let mut total = files.iter().fold(0u64, |n, f| n.saturating_add(f.1));
        for (_, bytes, path) in files.iter().filter(|f| f.2 != newest) {
            if total <= self.limit {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }
}

/// Passes bytes on and digests them.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The rows of a file that is what `layout` says, byte for byte.
fn read(file: &mut File, layout: &Layout) -> Result<Rows, String> {
    let bad = |what: &str| Err(what.to_string());
    let header = serde_json::to_vec(layout).map_err(|e| e.to_string())?;
    let start = (MAGIC.len() + 4 + header.len()) as u64;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    if Some(length) != start.checked_add(layout.bytes()).and_then(|n| n.checked_add(DIGEST)) {
        return bad("the file is not as long as its features");
    }
    let mut begin = vec![0; start as usize];
    file.read_exact(&mut begin).map_err(|e| e.to_string())?;
    let wanted = [&MAGIC[..], &(header.len() as u32).to_le_bytes(), &header].concat();
    if begin != wanted {
        return bad("the file begins otherwise than it should");
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&begin);
    let digest_at = (length - DIGEST) as usize;
    let (rows, digest) = if layout.bytes() <= MEMORY {
        let mut rows = vec![0; layout.bytes() as usize];
        let mut digest = [0; DIGEST as usize];
        file.read_exact(&mut rows).and_then(|()| file.read_exact(&mut digest)).map_err(|e| e.to_string())?;
        hasher.update(&rows);
        (Rows::Memory(rows), digest)
    } else {
        // SAFETY: files here are only ever replaced or removed whole, which leaves a mapping as it was.
        let map = unsafe { memmap2::Mmap::map(&*file) }.map_err(|e| e.to_string())?;
        let (Some(rows), Some(digest)) = (map.get(start as usize..digest_at), map.get(digest_at..)) else {
            return bad("the file became shorter");
        };
        hasher.update(rows);
        let digest = digest.try_into().map_err(|_| "the file became longer".to_string())?;
        (Rows::Mapped(map, start as usize), digest)
    };
    if *hasher.finalize().as_bytes() != digest { bad("the file is damaged") } else { Ok(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(key: &str, rows: usize) -> Layout {
        let columns = vec![Column { name: "pooled".into(), shape: vec![3] }];
        Layout { key: key.into(), rows, precision: Precision::F32, columns }
    }

    fn cache(limit: u64) -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made/when/needed");
        (dir, Cache { folder, limit })
    }

    fn keep(cache: &Cache, layout: &Layout) {
        let bytes: Vec<u8> = (0..layout.bytes()).map(|i| i as u8).collect();
        cache.keep(layout, |w| w.write_all(&bytes)).unwrap();
    }

    #[test]
    fn what_was_kept_is_read() {
        let (_dir, cache) = cache(LIMIT);
        let layout = layout("k", 5);
        assert!(cache.read(&layout).is_none());
        keep(&cache, &layout);
        assert_eq!(cache.read(&layout).unwrap().bytes()[..3], [0, 1, 2]);
        assert_eq!(cache.read(&layout).unwrap().bytes().len(), 60);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_never_believed() {
        let (_dir, cache) = cache(LIMIT);
        let layout = layout("k", 5);
        keep(&cache, &layout);
        let whole = std::fs::read(cache.path("k")).unwrap();
        for i in 0..whole.len() {
            let mut one = whole.clone();
            one[i] ^= 1;
            std::fs::write(cache.path("k"), one).unwrap();
            assert!(cache.read(&layout).is_none(), "byte {i}");
        }
        for n in [0, 7, 12, whole.len() - 1] {
            std::fs::write(cache.path("k"), &whole[..n]).unwrap();
            assert!(cache.read(&layout).is_none(), "{n} bytes");
        }
        std::fs::write(cache.path("k"), [&whole[..], b"x"].concat()).unwrap();
        assert!(cache.read(&layout).is_none());
        // A sound file of another layout under this name.
        std::fs::write(cache.path("k"), &whole).unwrap();
        assert!(cache.read(&layout).is_some());
        assert!(cache.read(&Layout { precision: Precision::F16, rows: 10, ..layout }).is_none());
    }

    #[test]
    fn the_oldest_files_go_when_there_are_too_many() {
        let (_dir, cache) = cache(700);
        for key in ["a", "b", "c"] {
            keep(&cache, &layout(key, 5));
            let old = SystemTime::now() - std::time::Duration::from_secs(1000 - u64::from(key.as_bytes()[0]));
            File::options().write(true).open(cache.path(key)).unwrap().set_modified(old).unwrap();
        }
        // Each is about 200 bytes: all three fit. Reading makes `a` the youngest.
        assert!(cache.read(&layout("a", 5)).is_some());
        keep(&cache, &layout("d", 5));
        let left: Vec<bool> = ["a", "b", "c", "d"].iter().map(|k| cache.path(k).exists()).collect();
        assert_eq!(left, [true, false, true, true]);
        assert!(!Cache { limit: 1 << 20, ..cache }.has_room(&layout("e", 5)));
    }

    #[test]
    fn nothing_is_kept_of_what_cannot_be_written() {
        let (_dir, cache) = cache(LIMIT);
        let e = cache.keep(&layout("k", 5), |_| Err(io::Error::other("disk full"))).unwrap_err();
        assert!(e.contains("disk full"), "{e}");
        assert!(!cache.path("k").exists());
        assert_eq!(std::fs::read_dir(&cache.folder).unwrap().count(), 0);
    }
}
