//! Warnings about valid but probably unintended settings.

use super::fault::Fault;
use super::settings::{Listener, Settings};
use crate::base::clock::Clock;
use http::Uri;
use secrecy::ExposeSecret as _;
use std::net::{IpAddr, SocketAddr};

/// Returns the warnings about settings, each with its key.
pub(super) fn of(settings: &Settings) -> Vec<Fault> {
    let mut warnings = Vec::new();
    let mut clear = |key: &str, url: &Uri, example: Option<&str>| {
        if let Some(host) = in_clear(url) {
            let example = example.map_or_else(|| format!("https://{host}"), str::to_owned);
            let problem = format!("personal data and keys go to {host} in clear; use https://, such as {example}");
            warnings.push(Fault::new(key, problem));
        }
    };
    clear("upstream.base_url", &settings.upstream.base_url, Some("https://api.iluma.ai"));
    if let Some(url) = &settings.callbacks.public_url {
        clear("callbacks.public_url", url, None);
    }
    for (name, tenant) in &settings.tenants {
        for (kind, url) in &tenant.callback_urls {
            clear(&format!("tenants.{name}.callback_urls.{kind}"), url, None);
        }
    }
    let admin = &settings.admin.listener;
    if admin.tls.is_none() && !admin.listen.ip().is_loopback() {
        let (listen, safe) = (admin.listen, SocketAddr::from(([127, 0, 0, 1], admin.listen.port())));
        let problem = format!(
            "other machines reach {listen}, and without TLS the token goes in clear; give admin.tls, or listen on {safe}"
        );
        warnings.push(Fault::new("admin.listen", problem));
    }
    warnings.extend(listeners(settings).into_iter().filter_map(|(name, listener)| expired(name, listener)));
    for (name, account) in &settings.accounts {
        if let Some(problem) = wrong_kind(name.as_str(), account.api_key.expose_secret()) {
            warnings.push(Fault::new(&format!("accounts.{name}.api_key"), problem));
        }
    }
    warnings
}

/// Returns the listeners, each with the name of its section.
fn listeners(settings: &Settings) -> Vec<(&'static str, &Listener)> {
    let (server, callbacks, admin) =
        (&settings.server.listener, &settings.callbacks.listener, &settings.admin.listener);
    let all = [("server", server), ("callbacks", callbacks), ("admin", admin)].into_iter();
    all.chain(settings.status.as_ref().map(|status| ("status", status))).collect()
}

/// Returns a warning if the certificate of a listener has expired, because clients that check it can't connect.
fn expired(name: &str, listener: &Listener) -> Option<Fault> {
    let end = listener.tls.as_ref()?.expires?;
    let since = Clock::system().wall().duration_since(end).ok().filter(|since| !since.is_zero())?;
    let problem = match since.as_secs() / (24 * 3600) {
        0 => "the certificate has expired today".to_owned(),
        days => format!("the certificate expired {days} days ago"),
    };
    Some(Fault::new(&format!("{name}.tls.cert"), format!("{problem}; clients refuse it: give a newer one")))
}

/// Returns the host of a URL if the URL leads to another machine without TLS.
fn in_clear(url: &Uri) -> Option<&str> {
    let host = url.host().filter(|_| url.scheme_str() == Some("http"))?;
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let own = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
    (!own).then_some(host)
}

/// Returns a warning if the kind of a key does not fit the name of its account: a development key in an account with a
/// live name, or a live key in an account with a development name.
fn wrong_kind(name: &str, key: &str) -> Option<String> {
    let named = |words: &[&'static str]| words.iter().find(|word| name.contains(**word)).copied();
    if let (Some(word), true) = (named(&["live", "prod"]), key.starts_with("iluma_development_")) {
        return Some(format!(
            "a development key (iluma_development_…) in an account whose name has {word:?}; give the live key, which \
             begins with iluma_live_, or name the account dev"
        ));
    }
    let live = ["iluma_live_", "iluma_production_"].into_iter().find(|kind| key.starts_with(kind));
    if let (Some(word), Some(kind)) = (named(&["dev", "test", "sandbox"]), live) {
        return Some(format!(
            "a live key ({kind}…) in an account whose name has {word:?}; give the development key, which begins with \
             iluma_development_, or name the account live"
        ));
    }
    None
}
