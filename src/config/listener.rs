//! Keys that every listener has: its address, its TLS, and the load balancers in front of it.

use super::reader::{Entry, Section};
use super::settings::Listener;
use super::tls;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The largest number of networks in a list. The largest providers of load balancers have some hundreds.
const MAX_NETWORKS: usize = 1000;

/// Reads the keys that every listener has.
pub(super) fn read(section: &Section<'_>) -> Option<Listener> {
    let listen = section.get("listen", Entry::address);
    let tls = section.maybe("tls", |tls| tls::server_tls(&tls.table()?));
    let trusted = section.maybe("trusted_proxies", networks).unwrap_or_default();
    let proxy_protocol = section.maybe("proxy_protocol", Entry::flag).unwrap_or_default();
    Some(Listener { listen: listen?, tls, trusted_proxies: trusted.into(), proxy_protocol })
}

/// Reads a list of networks, such as `["10.0.0.0/8", "203.0.113.7"]`.
pub(super) fn networks(list: &Entry<'_>) -> Option<Vec<IpNet>> {
    list.each(0..=MAX_NETWORKS, network)
}

fn network(entry: &Entry<'_>) -> Option<IpNet> {
    let text = entry.text()?;
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(network) = network else {
        entry.fault("must be a network or an address, such as \"10.0.0.0/8\" or \"203.0.113.7\"");
        return None;
    };
    if network.trunc() != network {
        entry.fault(format!("the address has bits beyond the network's prefix; write \"{}\"", network.trunc()));
        return None;
    }
    Some(network)
}

/// Records a fault for each listener that could not bind its port, because an earlier listener in the list uses it.
pub(super) fn distinct(root: &Section<'_>, listeners: &[(&str, SocketAddr)]) {
    for (place, (name, address)) in listeners.iter().enumerate() {
        let clash = listeners[..place].iter().find(|(_, other)| {
            let all = address.ip().is_unspecified() || other.ip().is_unspecified();
            address.port() != 0 && address.port() == other.port() && (all || address.ip() == other.ip())
        });
        if let Some((other, _)) = clash {
            root.section(name).fault_at("listen", format!("the same address as {other}.listen; give it another port"));
        }
    }
}
