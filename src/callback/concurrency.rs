//! Adapts the number of concurrent deliveries to each team.
//!
//! Each team has a lane of its own, whose width is this number.
//!
//! Invariants:
//! - A team has at most [`WIDEST`] concurrent deliveries, and all teams together have at most [`MOST_AT_ONCE`].
//! - A team whose endpoint keeps failing has only one concurrent delivery, so that it takes little capacity from other
//!   teams.

use crate::base::name::TenantName;
use crate::state::Delivery;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::Notify;

/// The largest number of concurrent deliveries to one team. An endpoint that answers in 100 ms gets 160 deliveries a
/// second.
const WIDEST: usize = 16;
/// The width with which each team's lane begins, in concurrent deliveries.
const WIDTH: usize = 4;
/// The largest number of concurrent deliveries to all teams together. It is enough for 32 teams with the widest lanes,
/// or for 512 teams with dead endpoints.
const MOST_AT_ONCE: usize = 512;

/// The number of concurrent deliveries of each team, and the bound of this number.
#[derive(Debug, Default)]
pub(super) struct AdaptiveConcurrency {
    lanes: Mutex<BTreeMap<TenantName, Lane>>,
    /// Notifies that a slot is free for a team that may have more deliveries due.
    pub(super) freed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    width: usize,
    under_way: usize,
    /// True if the last look-up found a due delivery for each free slot of the lane, so that more may be due.
    full: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self { width: WIDTH, under_way: 0, full: false }
    }
}

impl AdaptiveConcurrency {
    /// Returns each of `teams` that has free slots, with the number of its free slots. If `only_full` is true, returns
    /// only teams with full lanes: more deliveries of these teams may be due.
    pub(super) fn free<'a>(
        &self,
        teams: impl Iterator<Item = &'a TenantName>,
        only_full: bool,
    ) -> Vec<(TenantName, usize)> {
        let mut lanes = self.lanes.lock();
        let mut left = MOST_AT_ONCE.saturating_sub(lanes.values().map(|lane| lane.under_way).sum());
        let mut wanted = Vec::new();
        for team in teams {
            let lane = lanes.entry(team.clone()).or_default();
            let places = lane.width.saturating_sub(lane.under_way).min(left);
            if places > 0 && (lane.full || !only_full) {
                left -= places;
                wanted.push((team.clone(), places));
            }
        }
        wanted
    }

    /// Counts the deliveries in `taken` as in progress. Marks a team's lane as full if the team has as many deliveries
    /// in `taken` as `wanted` says.
    pub(super) fn take(&self, wanted: &[(TenantName, usize)], taken: &[Delivery]) {
        let mut lanes = self.lanes.lock();
        for (team, places) in wanted {
            let lane = lanes.entry(team.clone()).or_default();
            let count = taken.iter().filter(|delivery| delivery.tenant == *team).count();
            lane.under_way += count;
            lane.full = count == *places;
        }
    }

    /// Records the end of one delivery to a team. A success widens the team's lane by one, a failure halves it.
    /// `succeeded` is `None` if nothing was sent, so the width stays.
    pub(super) fn give_back(&self, team: &TenantName, succeeded: Option<bool>) {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(team.clone()).or_default();
        lane.under_way = lane.under_way.saturating_sub(1);
        lane.width = match succeeded {
            Some(true) => (lane.width + 1).min(WIDEST),
            Some(false) => (lane.width / 2).max(1),
            None => lane.width,
        };
        if lane.full {
            self.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_narrows_to_one_and_widens_again() {
        let (lanes, team): (_, TenantName) = (AdaptiveConcurrency::default(), "lending".parse().unwrap());
        let places = || lanes.free([&team].into_iter(), false).first().map_or(0, |(_, places)| *places);
        assert_eq!(places(), WIDTH);
        (0..3).for_each(|_| lanes.give_back(&team, Some(false)));
        assert_eq!(places(), 1);
        lanes.give_back(&team, None);
        assert_eq!(places(), 1, "nothing was sent");
        (0..50).for_each(|_| lanes.give_back(&team, Some(true)));
        assert_eq!(places(), WIDEST);
        assert!(lanes.free([&team].into_iter(), true).is_empty(), "it wanted no more than it got");
    }
}
