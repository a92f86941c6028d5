//! The values of labels that stand in lists, and their names.

/// What a quota is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
}

pub(super) const PERIODS: [&str; 2] = ["day", "month"];
/// Of a quota, in percent: time to talk about it, and the end.
pub(super) const WARNINGS: [(u64, &str); 2] = [(80, "80"), (100, "100")];

/// The outcome of reading a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reload {
    /// It is in use.
    Applied,
    /// It has faults; the old one is in use.
    Refused,
}

pub(super) const RELOADS: [&str; 2] = ["applied", "refused"];

/// A listener whose connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listener {
    /// `server`, for tenants.
    Server,
    /// `admin`, for operators.
    Admin,
    /// `callbacks`, for Iluma.
    Callbacks,
}

pub(super) const LISTENERS: [&str; 3] = ["server", "admin", "callbacks"];

/// Size of a tenant's outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxSize {
    /// Deliveries that are queued.
    pub queued: u64,
    /// Their bytes, as they are stored.
    pub queued_bytes: u64,
    /// Dead letters.
    pub dead: u64,
}
