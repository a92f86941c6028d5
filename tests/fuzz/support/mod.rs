//! Helpers that several fuzz targets share.
#![allow(dead_code, reason = "each target uses its part")]

use iluma_gateway::config::Settings;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::path::Path;

/// The key of the only team. The seed inputs contain it.
pub const TEAM_KEY: &str = "igw_lending_fuzz";

/// The account's key. With a colon appended, its base64 ends in padding, as it does for most keys.
pub const API_KEY: &str = "iluma_development_TESTONLY0";

/// Returns settings with one team, one path that the operator added, and upstream at `base_url`.
pub fn settings(base_url: &str) -> Settings {
    let hash: String = Sha256::digest(TEAM_KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(
        r#"
        [upstream]
        base_url = "{base_url}"
        [state]
        root_key = {{ env = "ROOT_KEY" }}
        encryption_keys = [{{ id = "fuzz", key = {{ env = "ENCRYPTION_KEY" }} }}]
        [accounts.live]
        api_key = {{ env = "API_KEY" }}
        [tenants.lending]
        account = "live"
        key_sha256 = ["{hash}"]
        [[routes]]
        method = "POST"
        path = "/v3/identity/bank_checks/:id"
        like = "bank"
        "#
    );
    let env = |name: &str| match name {
        "API_KEY" => Some(API_KEY.to_owned()),
        "ROOT_KEY" => Some("0123456789abcdef".repeat(4)),
        "ENCRYPTION_KEY" => Some("fedcba9876543210".repeat(4)),
        _ => None,
    };
    Settings::parse(&text, Path::new("/"), &env).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The members of a JSON object in their order, including duplicates, read independently of the gateway's own reader.
pub struct Pairs(pub Vec<(String, Box<RawValue>)>);

impl Pairs {
    /// Reads the members; `None` if the text is not one JSON object.
    pub fn read(text: &[u8]) -> Option<Vec<(String, Box<RawValue>)>> {
        serde_json::from_slice(text).ok().map(|Self(pairs)| pairs)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Returns true if `whole` contains `part`.
pub fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}
