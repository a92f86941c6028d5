//! A team of the demo.

use super::endpoint::Endpoint;
use crate::base::name::TenantName;
use crate::cli::keygen::{self, TeamKey};
use std::io;

/// A team, with a key that was made for this run and an endpoint for its callbacks.
pub(super) struct Team {
    pub(super) name: &'static str,
    pub(super) key: TeamKey,
    pub(super) endpoint: Endpoint,
}

impl Team {
    pub(super) async fn new(name: &'static str) -> io::Result<Self> {
        // All callers give valid names.
        let tenant: Result<TenantName, _> = name.parse();
        let key = tenant.map(|tenant| keygen::team_key(&tenant));
        let key = key.unwrap_or_else(|_| unreachable!("the demo's teams have proper names"));
        Ok(Self { name, key, endpoint: Endpoint::start().await? })
    }

    pub(super) fn hash(&self) -> String {
        hex::encode(self.key.sha256)
    }

    pub(super) fn name_with(&self, other: &Self) -> String {
        format!("{} and {}.", self.name, other.name)
    }
}
