//! The declaration of an operation of the API: the handler that the router serves, and its description.
//!
//! Invariants: only an [`Operation`] serves a path of the API, so every path has a description; statuses and reasons of
//! refusals are those of [`Refusal`]; a POST or DELETE is an order, which has a role and an entry in the audit log.

use super::answer::Refusal;
use super::audit::Order;
use super::context::Context;
use crate::config::Role;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;

pub(super) const JSON: &str = "application/json";

/// An operation of the API: one method of one path.
#[derive(Debug)]
pub struct Operation {
    /// The method.
    pub method: &'static str,
    /// The path; `{name}` matches any one segment.
    pub path: &'static str,
    /// The purpose, in a few words.
    pub summary: &'static str,
    pub(super) access: Access,
    /// The names of the query's parameters, as `openapi/components.json` has them.
    pub(super) query: &'static [&'static str],
    /// The name of the body's schema, and a flag that is true if a body is required. `None` if the operation takes no
    /// body.
    pub(super) body: Option<(&'static str, bool)>,
    pub(super) answers: Vec<Answer>,
    pub(super) handler: MethodRouter<Arc<Context>>,
}

/// The right that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The operation needs no token.
    Open,
    /// The operation needs a token of any role.
    Viewer,
    /// The operation needs a token that has at least the order's role.
    Order(Order),
}

/// A possible answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    /// The name of the JSON schema; `None` for an answer that is not JSON.
    pub(super) schema: Option<&'static str>,
    /// The value of the header `x-gateway-error`; `None` for a success.
    pub(super) reason: Option<&'static str>,
    /// The meaning of the answer.
    pub(super) text: String,
}

impl Operation {
    /// Declares a GET that needs no token. `content_type` is the type of its successful answer.
    pub(super) fn open(
        path: &'static str,
        handler: MethodRouter<Arc<Context>>,
        summary: &'static str,
        content_type: &'static str,
    ) -> Self {
        Self::new("GET", path, (Access::Open, handler), summary).or_as(content_type)
    }

    /// Declares a GET that every role may send. `schema` names the schema of its answer.
    pub(super) fn get<H: Handler<T, Arc<Context>>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
        schema: &'static str,
    ) -> Self {
        Self::new("GET", path, (Access::Viewer, get(handler)), summary).answering(schema)
    }

    /// Declares a GET that every role may send. Its successful answer has the given type, which is not JSON.
    pub(super) fn get_as<H: Handler<T, Arc<Context>>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
        content_type: &'static str,
    ) -> Self {
        Self::new("GET", path, (Access::Viewer, get(handler)), summary).or_as(content_type)
    }

    /// Declares an order that is sent by POST.
    pub(super) fn post<H: Handler<T, Arc<Context>>, T: 'static>(
        order: Order,
        path: &'static str,
        handler: H,
        summary: &'static str,
        schema: &'static str,
    ) -> Self {
        Self::new("POST", path, (Access::Order(order), post(handler)), summary).answering(schema)
    }

    /// Declares an order that is sent by DELETE.
    pub(super) fn delete<H: Handler<T, Arc<Context>>, T: 'static>(
        order: Order,
        path: &'static str,
        handler: H,
        summary: &'static str,
        schema: &'static str,
    ) -> Self {
        Self::new("DELETE", path, (Access::Order(order), delete(handler)), summary).answering(schema)
    }

    fn new(
        method: &'static str,
        path: &'static str,
        (access, handler): (Access, MethodRouter<Arc<Context>>),
        summary: &'static str,
    ) -> Self {
        let operation = Self { method, path, summary, access, query: &[], body: None, answers: Vec::new(), handler };
        let always = [Refusal::invalid("the request is not valid; the message says why"), Refusal::Method];
        let operation = operation.refusing(always).refusing([Refusal::Internal, Refusal::Late]);
        let operation = match access {
            Access::Open => return operation,
            Access::Viewer => operation,
            Access::Order(order) => operation.refusing([Refusal::Role(order.role()), unavailable()]),
        };
        let operation =
            operation.refusing([Refusal::Off, Refusal::Unauthorized, Refusal::TooManyFailures(Duration::ZERO)]);
        let operation = if path.contains('{') { operation.refusing([Refusal::UnknownPath]) } else { operation };
        if path.contains("{tenant}") { operation.refusing([Refusal::UnknownTenant]) } else { operation }
    }

    fn answering(self, schema: &'static str) -> Self {
        self.with(Answer {
            status: StatusCode::OK,
            content_type: JSON,
            schema: Some(schema),
            reason: None,
            text: "Done".to_owned(),
        })
    }

    /// Adds a success answer of another content type.
    pub(super) fn or_as(self, content_type: &'static str) -> Self {
        self.with(Answer { status: StatusCode::OK, content_type, schema: None, reason: None, text: "Done".to_owned() })
    }

    /// Sets the names of the query's parameters.
    pub(super) fn query(self, names: &'static [&'static str]) -> Self {
        Self { query: names, ..self }
    }

    /// Sets the schema of a required body, and adds the refusals that a body can get.
    pub(super) fn body(self, schema: &'static str) -> Self {
        Self { body: Some((schema, true)), ..self }.refusing([Refusal::TooLarge, Refusal::TooSlow, Refusal::CutOff])
    }

    /// Sets the schema of an optional body, and adds the refusals that a body can get.
    pub(super) fn optional_body(self, schema: &'static str) -> Self {
        let described = self.body(schema);
        Self { body: Some((schema, false)), ..described }
    }

    /// Adds refusals to the possible answers.
    pub(super) fn refusing(self, refusals: impl IntoIterator<Item = Refusal>) -> Self {
        refusals.into_iter().fold(self, |operation, refusal| {
            let (status, _, reason) = refusal.shape();
            let schema = if status == StatusCode::BAD_REQUEST { "InvalidRequest" } else { "Error" };
            let text = refusal.to_string();
            operation.with(Answer { status, content_type: JSON, schema: Some(schema), reason: Some(reason), text })
        })
    }

    /// Adds the refusal that is given while state, the ledger or the other nodes can't be read.
    pub(super) fn reading(self) -> Self {
        self.refusing([unavailable()])
    }

    /// Adds the answer to an order that could not be carried out everywhere.
    pub(super) fn leaving(self) -> Self {
        self.with(Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            content_type: JSON,
            schema: Some("Incomplete"),
            reason: Some("incomplete"),
            text: "the order was not carried out everywhere; left names what could not be reached".to_owned(),
        })
    }

    /// Adds an answer in plain text.
    pub(super) fn or_text(self, status: StatusCode, reason: &'static str, text: &str) -> Self {
        let text = text.to_owned();
        self.with(Answer { status, content_type: "text/plain", schema: None, reason: Some(reason), text })
    }

    fn with(mut self, answer: Answer) -> Self {
        self.answers.push(answer);
        self
    }

    /// Returns the lowest role that may use the operation; `None` if the operation needs no token.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self.access {
            Access::Open => None,
            Access::Viewer => Some(Role::Viewer),
            Access::Order(order) => Some(order.role()),
        }
    }
}

fn unavailable() -> Refusal {
    Refusal::Unavailable("state, the ledger or the audit log can't be reached; try again".to_owned())
}
