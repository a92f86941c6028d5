//! Authentication: finds the [`Tenant`] of a key.
//!
//! Invariants:
//! - Keys are compared only by their SHA-256, with every known hash and in constant time ([`KeyTable::find`]).
//! - The result is an existing tenant, so later stages need no look-up by name.

use crate::base::name::{AccountName, TenantName};
use crate::config::{self, MaxAge, Settings};
use crate::iluma::route_name::RouteName;
use crate::state::{ActiveKey, KeyTable};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::time::SystemTime;

/// The longest `Authorization` value that is read; keys are far shorter.
const LONGEST_CREDENTIAL: usize = 512;

/// The facts about a team that are needed to serve its requests.
#[derive(Debug)]
pub struct Tenant {
    /// The team's index in [`Tenants`]. Other parts keep their data about the team under this index.
    pub index: usize,
    /// The team's name.
    pub name: TenantName,
    /// The team's account.
    pub account: AccountName,
    /// The account's index in the configuration. Other parts keep their data about the account, such as its credential,
    /// under this index.
    pub account_index: usize,
    /// True if the team shares cache entries with the other teams of its account.
    pub share_cache: bool,
    /// The greatest age of stored answers that the team accepts.
    pub max_age: MaxAge,
    /// True if unprefixed records without a known owner are this team's.
    pub owns_unprefixed: bool,
    routes: BTreeSet<RouteName>,
}

impl Tenant {
    /// Returns true if the team may use a row of the route table.
    #[must_use]
    pub fn may_use(&self, route: RouteName) -> bool {
        self.routes.contains(&route)
    }
}

/// The reason why a request has no tenant. The gateway answers each reason with 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The request has no `Authorization` header.
    #[error("an API key is required: Basic authentication with the key as user and no password, or Bearer")]
    Missing,
    /// The header is neither Basic with an empty password nor Bearer, is too long, or is given more than once.
    #[error("the authorization header is malformed: send the API key as Basic user with no password, or as Bearer")]
    Malformed,
    /// No tenant has this key, or the key has expired or was ended.
    #[error("the API key is invalid")]
    Unknown,
}

/// All teams of the configuration.
#[derive(Debug)]
pub struct Tenants(Vec<Tenant>);

/// A team, and the key with which it authenticated.
#[derive(Debug, Clone, Copy)]
pub struct Authenticated<'t, 'k> {
    /// The team.
    pub tenant: &'t Tenant,
    /// The key with which the team authenticated.
    pub key: &'k ActiveKey,
}

impl Tenants {
    /// Makes the teams of a configuration, in the order of their names.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let team = |(index, (name, tenant)): (usize, (&TenantName, &config::Tenant))| Tenant {
            index,
            name: name.clone(),
            account: tenant.account.clone(),
            // Settings have no tenant without an account.
            account_index: settings.accounts.keys().position(|a| *a == tenant.account).unwrap_or_default(),
            share_cache: tenant.share_cache,
            max_age: tenant.max_age,
            owns_unprefixed: tenant.owns_unprefixed,
            routes: tenant.routes.clone(),
        };
        Self(settings.tenants.iter().enumerate().map(team).collect())
    }

    /// Returns the team at an index.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Tenant> {
        self.0.get(index)
    }

    /// Returns the team of the key in the request, even if the team is suspended.
    ///
    /// # Errors
    /// Returns an error if the request has no key, if its header is malformed, or if no team has the key at the time
    /// `now`.
    pub fn authenticate<'t, 'k>(
        &'t self,
        headers: &HeaderMap,
        keys: &'k KeyTable,
        now: SystemTime,
    ) -> Result<Authenticated<'t, 'k>, Unauthenticated> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Unauthenticated::Missing)?;
        if values.next().is_some() || value.len() > LONGEST_CREDENTIAL {
            return Err(Unauthenticated::Malformed);
        }
        let mut buffer = [0; LONGEST_CREDENTIAL];
        let key = key_in(value.as_bytes(), &mut buffer).ok_or(Unauthenticated::Malformed)?;
        self.with_key(&Sha256::digest(key).into(), keys, now)
    }

    /// Returns the team of the key with this SHA-256, even if the team is suspended.
    ///
    /// # Errors
    /// Returns an error if no team has the key at the time `now`.
    pub fn with_key<'t, 'k>(
        &'t self,
        sha256: &[u8; 32],
        keys: &'k KeyTable,
        now: SystemTime,
    ) -> Result<Authenticated<'t, 'k>, Unauthenticated> {
        let key = keys.find(sha256, now).ok_or(Unauthenticated::Unknown)?;
        let place = self.0.binary_search_by(|tenant| tenant.name.cmp(&key.tenant));
        // The registry may still have keys of a team that was removed from the configuration.
        let tenant = place.ok().and_then(|place| self.0.get(place)).ok_or(Unauthenticated::Unknown)?;
        Ok(Authenticated { tenant, key })
    }
}

/// Returns the key in an `Authorization` value; `None` if the value is malformed. A key in Basic credentials is decoded
/// into `buffer`.
fn key_in<'a>(value: &'a [u8], buffer: &'a mut [u8; LONGEST_CREDENTIAL]) -> Option<&'a [u8]> {
    let at = value.iter().position(|b| *b == b' ')?;
    let (scheme, rest) = (&value[..at], value[at..].trim_ascii());
    let key = if scheme.eq_ignore_ascii_case(b"basic") {
        let length = STANDARD.decode_slice(rest, buffer).ok()?;
        buffer[..length].strip_suffix(b":")?
    } else if scheme.eq_ignore_ascii_case(b"bearer") {
        rest
    } else {
        return None;
    };
    (!key.is_empty() && !key.contains(&b':')).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(keys: &[(&str, &str)]) -> Tenants {
        let name = |text: &str| text.parse::<TenantName>().unwrap();
        let tenant = |(index, (who, _)): (usize, &(&str, &str))| Tenant {
            index,
            name: name(who),
            account: "live".parse().unwrap(),
            account_index: 0,
            share_cache: true,
            max_age: MaxAge::default(),
            owns_unprefixed: false,
            routes: BTreeSet::from([RouteName::Bank]),
        };
        Tenants(keys.iter().enumerate().map(tenant).collect())
    }

    fn asked(authorization: &[&str]) -> Result<String, Unauthenticated> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        let keys = [("lending", "key-one"), ("payments", "key-two"), ("gone", "key-four")];
        let (tenants, table) = (tenants(&keys[..2]), KeyTable::of(&keys));
        let who = tenants.authenticate(&headers, &table, SystemTime::UNIX_EPOCH);
        who.map(|who| who.tenant.name.to_string())
    }

    #[test]
    fn a_key_finds_its_team_by_basic_and_by_bearer() {
        let basic = |user_and_password: &str| format!("Basic {}", STANDARD.encode(user_and_password));
        assert_eq!(asked(&[&basic("key-one:")]), Ok("lending".into()));
        assert_eq!(asked(&[&basic("key-two:").replace("Basic", "bAsIc ")]), Ok("payments".into()));
        assert_eq!(asked(&["Bearer key-two"]), Ok("payments".into()));
        assert_eq!(asked(&[&basic("key-three:")]), Err(Unauthenticated::Unknown));
        assert_eq!(asked(&["Bearer key-four"]), Err(Unauthenticated::Unknown), "its team is not configured");
        assert_eq!(asked(&["Bearer key-"]), Err(Unauthenticated::Unknown));
        assert_eq!(asked(&[]), Err(Unauthenticated::Missing));
        for odd in [
            "key-one",
            "Basic",
            "Basic ",
            "Basic !!!",
            "Digest key-one",
            &basic("key-one"),
            &basic("key-one:x"),
            &basic(":"),
            &format!("Bearer {}", "x".repeat(600)),
        ] {
            assert_eq!(asked(&[odd]), Err(Unauthenticated::Malformed), "{odd}");
        }
        assert_eq!(asked(&["Bearer key-one", "Bearer key-one"]), Err(Unauthenticated::Malformed));
    }
}
