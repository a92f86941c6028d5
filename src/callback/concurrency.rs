//! Concurrency of deliveries that adapts to each team's endpoint: each team has a lane of its own.
//!
//! Invariants: a team has [`WIDEST`] deliveries under way at most, all teams together [`MOST_AT_ONCE`]; a team whose
//! endpoint fails soon has one, so that it takes next to nothing from the others.

use crate::base::name::TenantName;
use crate::state::Delivery;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::Notify;

/// Deliveries to one team at once: an endpoint that takes 100 ms gets 160 a second.
const WIDEST: usize = 16;
/// The width that a lane begins with.
const WIDTH: usize = 4;
/// Deliveries at once, of all teams: 32 of them at their widest, or 512 with dead endpoints.
const MOST_AT_ONCE: usize = 512;

/// The deliveries under way, by team.
#[derive(Debug, Default)]
pub(super) struct AdaptiveConcurrency {
    lanes: Mutex<BTreeMap<TenantName, Lane>>,
    /// Tells that a place is free for a team that may have more deliveries due.
    pub(super) freed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    width: usize,
    under_way: usize,
    /// True if the last claim gave as many as were wanted: more may be due.
    full: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self { width: WIDTH, under_way: 0, full: false }
    }
}

impl AdaptiveConcurrency {
    /// Returns how many more deliveries each of these teams may have under way; with `only_full`, of full lanes alone.
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

    /// Notes what was claimed of what was wanted.
    pub(super) fn take(&self, wanted: &[(TenantName, usize)], taken: &[Delivery]) {
        let mut lanes = self.lanes.lock();
        for (team, places) in wanted {
            let lane = lanes.entry(team.clone()).or_default();
            let count = taken.iter().filter(|delivery| delivery.tenant == *team).count();
            lane.under_way += count;
            lane.full = count == *places;
        }
    }

    /// Notes the end of one delivery. A lane widens by one with a success, and is halved by a failure.
    pub(super) fn give_back(&self, team: &TenantName, succeeded: bool) {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(team.clone()).or_default();
        lane.under_way = lane.under_way.saturating_sub(1);
        lane.width = if succeeded { (lane.width + 1).min(WIDEST) } else { (lane.width / 2).max(1) };
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
        (0..3).for_each(|_| lanes.give_back(&team, false));
        assert_eq!(places(), 1);
        (0..50).for_each(|_| lanes.give_back(&team, true));
        assert_eq!(places(), WIDEST);
        assert!(lanes.free([&team].into_iter(), true).is_empty(), "it wanted no more than it got");
    }
}
