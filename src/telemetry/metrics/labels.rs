//! Label values that come from fixed lists, and their texts.

/// The period of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
    /// A month, for a budget in rupiah.
    BudgetMonth,
}

pub(super) const PERIODS: [&str; 3] = ["day", "month", "budget_month"];
/// The percentages of a quota at which a warning is shown, each as a number and as a label. At 80 percent there is time
/// to raise the quota; at 100 percent it is used up.
pub(super) const WARNINGS: [(u64, &str); 2] = [(80, "80"), (100, "100")];

/// The outcome of reading a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reload {
    /// The new configuration is active.
    Applied,
    /// The new configuration has faults; the old one stays active.
    Refused,
}

pub(super) const RELOADS: [&str; 2] = ["applied", "refused"];

/// A listener whose connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listener {
    /// `server`, for tenants.
    Server,
    /// `callbacks`, for Iluma.
    Callbacks,
    /// `admin`, for operators.
    Admin,
    /// `status`, for probes and Prometheus.
    Status,
}

pub(super) const LISTENERS: [&str; 4] = ["server", "callbacks", "admin", "status"];

/// The size of a tenant's outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxSize {
    /// The number of queued deliveries.
    pub queued: u64,
    /// The size of the queued deliveries in bytes, as stored.
    pub queued_bytes: u64,
    /// The number of dead letters.
    pub dead: u64,
}
