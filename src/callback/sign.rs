//! The proof that a callback comes from the gateway: the team's token, and a signature (Standard Webhooks 1.0.0).
//!
//! Invariant: a token or secret that is not configured is derived from the root key, so every node and every start has
//! the same one.

use crate::base::keyring::derive;
use crate::base::name::TenantName;
use crate::config;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The credentials by which a team recognises the gateway's callbacks.
pub(super) struct Credentials {
    pub(super) token: SecretString,
    /// The secrets as the team reads them, each `whsec_` and base64; the first is the current secret.
    pub(super) secrets: Vec<SecretString>,
    macs: Vec<Hmac<Sha256>>,
}

impl Credentials {
    /// Makes the credentials from the configuration. A missing token or secret is derived from the root key `root`.
    pub(super) fn new(root: &[u8; 32], name: &TenantName, tenant: &config::Tenant) -> Self {
        let token = tenant.callback_token.clone().unwrap_or_else(|| {
            let secret = derive::<32>(root, &format!("callback token of {name}"));
            URL_SAFE_NO_PAD.encode(*secret).into()
        });
        let mut secrets = tenant.webhook_secrets.clone();
        if secrets.is_empty() {
            let secret = derive::<32>(root, &format!("webhook secret of {name}"));
            secrets.push(format!("whsec_{}", *Zeroizing::new(STANDARD.encode(*secret))).into());
        }
        // The configuration has checked that the secrets are base64.
        let mac = |secret: &SecretString| {
            let text = secret.expose_secret().strip_prefix("whsec_")?;
            let key = Zeroizing::new(STANDARD.decode(text).ok()?);
            Hmac::new_from_slice(&key).ok()
        };
        let macs = secrets.iter().filter_map(mac).collect();
        Self { token, secrets, macs }
    }

    /// Returns the value of the header `webhook-signature`. It has one signature for each secret, so that a team may
    /// still verify with the old secret while the secret is being replaced.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Option<HeaderValue> {
        let timestamp = timestamp.to_string();
        let signature = |mac: &Hmac<Sha256>| {
            let mut mac = mac.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        HeaderValue::try_from(self.macs.iter().map(signature).collect::<Vec<_>>().join(" ")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(secrets: &[&str]) -> config::Tenant {
        config::Tenant {
            account: "live".parse().unwrap(),
            key_sha256: Vec::new(),
            limits: config::TenantLimits {
                requests_per_second: None,
                burst: None,
                max_in_flight: 1,
                quota_mode: config::QuotaMode::Enforce,
                weight: 1,
                upstream_calls_per_day: None,
                upstream_calls_per_month: None,
                budget_per_month: None,
            },
            routes: Default::default(),
            share_cache: true,
            max_age: config::MaxAge::default(),
            owns_unprefixed: false,
            callback_hosts: Default::default(),
            callback_urls: Default::default(),
            callback_token: None,
            webhook_secrets: secrets.iter().map(|secret| (*secret).into()).collect(),
        }
    }

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The values are the example in the reference implementation's tests.
        let tenant = tenant(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        let credentials = Credentials::new(&[0; 32], &"lending".parse().unwrap(), &tenant);
        let body = br#"{"test": 2432232314}"#;
        let signature = credentials.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_changes_both_sign() {
        let name = "lending".parse().unwrap();
        let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let sign = |secrets: &[&str]| {
            let signature = Credentials::new(&[0; 32], &name, &tenant(secrets)).sign("msg_1", 1, b"x").unwrap();
            signature.to_str().unwrap().to_owned()
        };
        assert_eq!(sign(&[new, old]), format!("{} {}", sign(&[new]), sign(&[old])));
    }

    #[test]
    fn derived_ones_are_the_teams_own_and_stay() {
        let of = |root: u8, name: &str| {
            let credentials = Credentials::new(&[root; 32], &name.parse().unwrap(), &tenant(&[]));
            let secret = credentials.secrets[0].expose_secret().to_owned();
            assert_eq!(STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
            assert_eq!(credentials.macs.len(), 1);
            (credentials.token.expose_secret().to_owned(), secret)
        };
        assert_eq!(of(1, "lending"), of(1, "lending"));
        let all = [of(1, "lending"), of(1, "payments"), of(2, "lending")];
        assert!((0..3).all(|a| (0..a).all(|b| all[a].0 != all[b].0 && all[a].1 != all[b].1)));
    }
}
