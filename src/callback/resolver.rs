//! Looks up the hosts of teams' URLs.
//!
//! Invariant: no connection is made to a forbidden address, whatever name leads to it.

use crate::iluma::callback_url::is_forbidden;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::Service;

/// The reason why a host name has no permitted address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    /// The resolver knows no address, or does not answer.
    #[error("the host name has no address")]
    NoAddress,
    /// All addresses of the host are forbidden.
    #[error("the host has no address that callbacks may go to")]
    Forbidden,
}

/// A resolver that asks the system's resolver and drops forbidden addresses.
#[derive(Clone)]
pub(super) struct Permitted(GaiResolver);

impl Permitted {
    pub(super) fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Permitted {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move {
            let found = found.await.map_err(|_| io::Error::other(Unresolved::NoAddress))?;
            only_permitted(found)
        })
    }
}

fn only_permitted(found: impl Iterator<Item = SocketAddr>) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let permitted: Vec<_> = found.filter(|address| !is_forbidden(address.ip())).collect();
    if permitted.is_empty() {
        return Err(io::Error::other(Unresolved::Forbidden));
    }
    Ok(permitted.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_no_forbidden_address() {
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let good = ["10.0.0.1:0", "[fd00::1]:0"];
        let bad = ["169.254.1.1:0", "[fe80::1]:0", "[64:ff9b::a9fe:1]:0", "0.0.0.0:0", "[fd00:ec2::254]:0"];
        let mixed = addresses(&[&good[..], &bad].concat());
        assert_eq!(only_permitted(mixed.into_iter()).unwrap().collect::<Vec<_>>(), addresses(&good));
        assert!(only_permitted(addresses(&bad).into_iter()).is_err());
    }
}
