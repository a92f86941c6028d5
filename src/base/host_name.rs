//! The host's name.

/// Returns the kernel's host name; in a container, this is the container's name. If the kernel's name can't be read,
/// returns the variable `HOSTNAME`. The result has at most 64 printable ASCII characters; an empty name becomes
/// `localhost`.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
