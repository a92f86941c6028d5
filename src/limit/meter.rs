//! The meters of a tenant's calls: calls of the day, calls of the month, rupiah of the month.

use crate::config::Limit;

/// A quantity that is counted for a tenant's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Meter {
    CallsOfDay,
    CallsOfMonth,
    RupiahOfMonth,
}

/// A number for each meter.
pub(super) type Amounts = [u64; Meter::ALL.len()];
/// A bound for each meter; `None` means no bound.
pub(super) type Bounds = [Option<u64>; Meter::ALL.len()];

impl Meter {
    /// Every meter; `ALL[meter as usize] == meter`. If several meters are exceeded, a refusal names the last of them in
    /// this order.
    pub(super) const ALL: [Self; 3] = [Self::CallsOfDay, Self::CallsOfMonth, Self::RupiahOfMonth];

    pub(super) const fn limit(self) -> Limit {
        match self {
            Self::CallsOfDay => Limit::QuotaDay,
            Self::CallsOfMonth => Limit::QuotaMonth,
            Self::RupiahOfMonth => Limit::BudgetMonth,
        }
    }

    /// Returns true if the meter starts at zero each day. The others start at zero each month.
    pub(super) const fn is_daily(self) -> bool {
        match self {
            Self::CallsOfDay => true,
            Self::CallsOfMonth | Self::RupiahOfMonth => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_found_at_its_place() {
        for (place, meter) in Meter::ALL.into_iter().enumerate() {
            assert_eq!(meter as usize, place, "{meter:?}");
        }
    }
}
