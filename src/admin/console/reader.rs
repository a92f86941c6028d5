//! The operator who reads a page of the console.

use crate::admin::audit::Order;
use crate::config::Role;
use crate::pages::Session;

/// The operator who reads a page, with the lists that the page's forms offer.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) session: &'a Session<Role>,
    /// This node's name.
    pub(super) node: &'a str,
    /// The name of the time zone in which the ledger's days begin.
    pub(super) time_zone: &'a str,
    /// The teams of the configuration.
    pub(super) teams: &'a [&'a str],
    /// The callback types of Iluma.
    pub(super) types: &'a [&'static str],
    /// The names of the rows of the route table.
    pub(super) routes: &'a [&'static str],
}

impl Reader<'_> {
    /// Returns true if the reader may give an order.
    pub(super) fn may(&self, order: Order) -> bool {
        self.session.standing >= order.role()
    }

    /// Returns the names of the orders that the reader may give, with spaces in between, for the JavaScript modules.
    pub(super) fn orders(&self) -> String {
        let given: Vec<&str> = Order::ALL.into_iter().filter(|order| self.may(*order)).map(Order::as_str).collect();
        given.join(" ")
    }
}
