//! A shared library that has nothing to do with Graft.

/// Something to export.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> i32 {
    42
}
