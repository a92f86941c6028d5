//! Authentication: it maps a key to its [`Tenant`].
//!
//! Invariants: a key is only ever compared by its SHA-256, with every known hash and in constant time; the result is an
//! existing tenant, so later stages need no look-up by name.

use crate::base::name::{AccountName, TenantName};
use crate::config::{MaxAge, Settings};
use crate::iluma::route_name::RouteName;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// The longest `Authorization` value that is read; keys are far shorter.
const LONGEST_CREDENTIAL: usize = 512;

/// A team, for the request path.
#[derive(Debug)]
pub struct Tenant {
    /// The team's index in [`Tenants`], by which other parts keep their data about it.
    pub index: usize,
    /// The team's name.
    pub name: TenantName,
    /// The team's account.
    pub account: AccountName,
    /// The account's index in the configuration, by which upstream's credential is found.
    pub account_index: usize,
    /// True if the team shares cache entries with the other teams of its account.
    pub share_cache: bool,
    /// The greatest age of stored answers that it takes.
    pub max_age: MaxAge,
    /// True if unprefixed records without a known owner are this team's.
    pub owns_unprefixed: bool,
    routes: BTreeSet<RouteName>,
}

impl Tenant {
    /// Returns true if the team may use a row.
    #[must_use]
    pub fn may_use(&self, route: RouteName) -> bool {
        self.routes.contains(&route)
    }
}

/// The reason why a request has no tenant. Each is answered with a 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The request has no `Authorization`.
    #[error("an API key is required: Basic authentication with the key as user and no password, or Bearer")]
    Missing,
    /// The header is not Basic with an empty password, not Bearer, or given more than once.
    #[error("the authorization header is malformed: send the API key as Basic user with no password, or as Bearer")]
    Malformed,
    /// No tenant has this key.
    #[error("the API key is invalid")]
    Unknown,
}

/// A SHA-256 as words, for a comparison with the fewest processor instructions.
type Hash = [u64; 4];

/// Every team and its keys.
#[derive(Debug)]
pub struct Tenants {
    tenants: Vec<Tenant>,
    keys: Vec<(Hash, u32)>,
}

impl Tenants {
    /// Makes the teams of a configuration, in its order.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (mut tenants, mut keys) = (Vec::new(), Vec::new());
        for (index, (name, tenant)) in settings.tenants.iter().enumerate() {
            keys.extend(tenant.key_sha256.iter().map(|hash| (words(hash), u32::try_from(index).unwrap_or(u32::MAX))));
            tenants.push(Tenant {
                index,
                name: name.clone(),
                account: tenant.account.clone(),
                // Settings have no tenant without an account.
                account_index: settings.accounts.keys().position(|a| *a == tenant.account).unwrap_or_default(),
                share_cache: tenant.share_cache,
                max_age: tenant.max_age,
                owns_unprefixed: tenant.owns_unprefixed,
                routes: tenant.routes.clone(),
            });
        }
        Self { tenants, keys }
    }

    /// Returns the team at an index.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Tenant> {
        self.tenants.get(index)
    }

    /// Returns the team whose key the request carries.
    ///
    /// # Errors
    /// Returns an error if the request carries no key, carries it in an unknown way, or if no team has the key.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<&Tenant, Unauthenticated> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Unauthenticated::Missing)?;
        if values.next().is_some() || value.len() > LONGEST_CREDENTIAL {
            return Err(Unauthenticated::Malformed);
        }
        let mut buffer = [0; LONGEST_CREDENTIAL];
        let key = key_in(value.as_bytes(), &mut buffer).ok_or(Unauthenticated::Malformed)?;
        let index = self.look_up(&words(&Sha256::digest(key).into()));
        usize::try_from(index).ok().and_then(|index| self.tenants.get(index)).ok_or(Unauthenticated::Unknown)
    }

    /// Compares with every key, so that the time reveals nothing.
    fn look_up(&self, hash: &Hash) -> u32 {
        self.keys.iter().fold(u32::MAX, |found, (known, index)| {
            let difference = known.iter().zip(hash).fold(0, |bits, (a, b)| bits | (a ^ b));
            let same: Choice = difference.ct_eq(&0);
            u32::conditional_select(&found, index, same)
        })
    }
}

fn words(hash: &[u8; 32]) -> Hash {
    let mut words = Hash::default();
    for (word, bytes) in words.iter_mut().zip(hash.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Returns the key in an `Authorization` value; `buffer` holds it if it is encoded.
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
        let hash = |(index, (_, key)): (u32, &(&str, &str))| (words(&Sha256::digest(key).into()), index);
        Tenants { tenants: keys.iter().enumerate().map(tenant).collect(), keys: (0..).zip(keys).map(hash).collect() }
    }

    fn asked(authorization: &[&str]) -> Result<String, Unauthenticated> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        let tenants = tenants(&[("lending", "key-one"), ("payments", "key-two")]);
        tenants.authenticate(&headers).map(|tenant| tenant.name.to_string())
    }

    #[test]
    fn a_key_finds_its_team_by_basic_and_by_bearer() {
        let basic = |user_and_password: &str| format!("Basic {}", STANDARD.encode(user_and_password));
        assert_eq!(asked(&[&basic("key-one:")]), Ok("lending".into()));
        assert_eq!(asked(&[&basic("key-two:").replace("Basic", "bAsIc ")]), Ok("payments".into()));
        assert_eq!(asked(&["Bearer key-two"]), Ok("payments".into()));
        assert_eq!(asked(&[&basic("key-three:")]), Err(Unauthenticated::Unknown));
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
