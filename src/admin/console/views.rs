//! The contents of the views: headings, forms, and elements that the JavaScript modules fill.

use super::reader::Reader;
use crate::admin::audit::Order;
use maud::{Markup, html};

/// Returns a section with a heading and the element `id`, which a JavaScript module fills.
fn place(id: &str, heading: &str) -> Markup {
    html! {
        section { h2 { (heading) } div id=(id) { p class="empty" { "Loading…" } } }
    }
}

/// Returns the form of an order, or the reason why the reader may not give the order. `purpose` is the subject of the
/// sentence that gives the reason: "`purpose` needs the role operator".
fn form_of(order: Order, reader: &Reader<'_>, purpose: &str, form: &Markup) -> Markup {
    html! {
        @if reader.may(order) {
            (form)
        } @else {
            p class="empty" {
                (purpose) " needs the role " (order.role().as_str()) "; your token has the role "
                (reader.session.standing.as_str()) "."
            }
        }
    }
}

/// Returns a select for a team. `any` is the text of the option for all teams. If `any` is `None`, the reader must
/// choose a team.
fn team_select(id: &str, any: Option<&str>, reader: &Reader<'_>) -> Markup {
    html! {
        label for=(id) { "Team"
            select id=(id) name="tenant" required[any.is_none()] {
                @if let Some(any) = any { option value="" { (any) } }
                @for team in reader.teams { option value=(team) { (team) } }
            }
        }
    }
}

/// Returns a select with an id, a name and a label. Each option shows its own value. `any` is the text of the first
/// option, whose value is empty.
fn select((id, name, label): (&str, &str, &str), any: &str, options: &[&str]) -> Markup {
    html! {
        label for=(id) { (label)
            select id=(id) name=(name) {
                option value="" { (any) }
                @for option in options { option value=(option) { (option) } }
            }
        }
    }
}

pub(super) fn overview() -> Markup {
    html! {
        (place("alarms", "Alarms"))
        (place("today", "Today"))
        (place("month", "This month"))
    }
}

pub(super) fn teams(reader: &Reader<'_>) -> Markup {
    let create = html! {
        form id="create-key" {
            (team_select("new-key-team", None, reader))
            label for="note" { "Note" input id="note" name="note" maxlength="200"; }
            label for="expires" { "Expires in, such as 90d" input id="expires" name="expires_in"; }
            button class="main" type="submit" { "Create key" }
        }
    };
    html! {
        section {
            h2 { "Teams" }
            form id="find-team" role="search" {
                label for="team-name" { "Find a team" input id="team-name" name="name" type="search" autocomplete="off"; }
            }
            div id="teams" { p class="empty" { "Loading…" } }
        }
        section {
            h2 { "Keys" }
            form { (team_select("key-team", None, reader)) }
            div id="keys" {}
        }
        section {
            h2 { "New key" }
            (form_of(Order::CreateKey, reader, "Creating, rotating and revoking keys", &create))
            div id="new-key" {}
        }
    }
}

pub(super) fn live(reader: &Reader<'_>) -> Markup {
    html! {
        section {
            h2 { "Requests as they end" }
            p {
                "Lines of the access log of the node " strong { (reader.node) } ". They hold nothing personal: no path, no header, no body."
            }
            form id="follow" {
                (team_select("live-team", Some("all teams"), reader))
                (select(("live-route", "route", "Route"), "all routes", reader.routes))
                (select(("live-status", "status", "Status"), "every status", &["2xx", "4xx", "5xx", "429", "499"]))
                button id="live-pause" type="button" { "Pause the list" }
                button id="live-clear" type="button" { "Clear" }
            }
            p id="live-state" role="status" { "Connecting…" }
            div id="live" {}
        }
    }
}

pub(super) fn cache(reader: &Reader<'_>) -> Markup {
    let purge = html! {
        form id="purge" {
            label for="what" { "Answers of"
                select id="what" name="what" {
                    @for route in ["bank", "cft", "bank_codes"] { option value=(route) { "the route " (route) } }
                    option value="tenant" { "one team alone" }
                    option value="all" { "everything" }
                }
            }
            (team_select("purge-team", None, reader))
            button class="danger" type="submit" { "Purge" }
        }
        p class="empty" { "The answers are counted first; nothing is removed before you confirm." }
    };
    html! {
        (place("size", "Size"))
        (place("rates", "Hit rate by route"))
        section { h2 { "Purge" } (form_of(Order::Purge, reader, "Purging answers", &purge)) }
    }
}

pub(super) fn callbacks(reader: &Reader<'_>) -> Markup {
    html! {
        section {
            h2 { "Callbacks" }
            form id="callback-filter" {
                label for="callback-state" { "State"
                    select id="callback-state" name="state" {
                        @for state in ["dead", "queued", "delivered", "unowned"] { option value=(state) { (state) } }
                    }
                }
                (team_select("callback-team", Some("all teams"), reader))
                (select(("callback-type", "type", "Type"), "all types", reader.types))
            }
            div id="callbacks" { p class="empty" { "Loading…" } }
        }
        (place("paused", "Paused endpoints"))
        section { h2 { "Endpoints of a team" } (form_of(Order::PauseCallbacks, reader, "Pausing, resuming and testing endpoints", &endpoint(reader))) }
        section { h2 { "Replay a window" } (form_of(Order::Replay, reader, "Replaying callbacks", &window(reader))) }
    }
}

fn endpoint(reader: &Reader<'_>) -> Markup {
    html! {
        form id="endpoint" {
            (team_select("endpoint-team", None, reader))
            (select(("type", "type", "Type"), "all types", reader.types))
            @for order in ["Pause", "Resume", "Test"] { button type="submit" value=(order) { (order) } }
        }
        div id="tests" {}
    }
}

fn window(reader: &Reader<'_>) -> Markup {
    html! {
        form id="replay" {
            (team_select("replay-team", None, reader))
            label for="since" { "Since" input id="since" name="since" type="datetime-local" required; }
            label for="until" { "Until" input id="until" name="until" type="datetime-local"; }
            button type="submit" { "Replay" }
        }
        p class="empty" { "Times are those of your zone. What was delivered in that time is sent again too: a team must expect repetitions." }
    }
}

/// A field of a form: its name, its label, and its input mode.
type Field = (&'static str, &'static str, &'static str);

/// The groups of fields that identify a person, each with its legend.
const PERSON: [(&str, &[Field]); 3] = [
    ("By account", &[("bank_account_number", "Account number", "numeric"), ("bank_code", "Bank code", "text")]),
    (
        "By name",
        &[("given_name", "Given name", "text"), ("surname", "Surname", "text"), ("name", "Whole name", "text")],
    ),
    (
        "By number or address",
        &[
            ("nik", "NIK", "numeric"),
            ("npwp", "NPWP", "numeric"),
            ("passport_number", "Passport number", "text"),
            ("trn_number", "TRN", "text"),
            ("phone_number", "Phone number", "tel"),
            ("email", "E-mail address", "email"),
        ],
    ),
];

pub(super) fn erasure(reader: &Reader<'_>) -> Markup {
    let form = html! {
        p { "Give what identifies the person; one of the three groups is enough. Everything that has any one of the values is erased, \
             so a name also erases other persons of that name. The values are not kept, shown or logged." }
        form id="erase" autocomplete="off" {
            @for (legend, fields) in PERSON {
                fieldset {
                    legend { (legend) }
                    @for (name, label, mode) in fields {
                        label for=(name) { (label) input id=(name) name=(name) inputmode=(mode) autocomplete="off"; }
                    }
                }
            }
            button class="danger" type="submit" { "Erase" }
        }
        div id="receipt" {}
    };
    html! {
        section { h2 { "Erase a person" } (form_of(Order::Erase, reader, "Erasing a person", &form)) }
        section {
            h2 { "History" }
            div id="erasures" { p class="empty" { "Loading…" } }
            p {
                "A backup from before an erasure still has the person. Export the receipts, and give the file to "
                code { "iluma-gateway restore FILE --erasures erasures.jsonl" } "."
            }
            button id="export-erasures" type="button" { "Export for restore" }
        }
    }
}

/// The ways to sum the ledger's lines: each is a value of the parameter `by`, and its text in the form.
const SUMS: [(&str, &str); 4] =
    [("tenant", "team"), ("route", "route"), ("day", "day"), ("day,tenant,route", "day, team and route")];

pub(super) fn money(reader: &Reader<'_>) -> Markup {
    let settle = html! {
        form id="settle" {
            label for="settle-outcome" { "Outcome"
                select id="settle-outcome" name="outcome" required {
                    option value="" { "choose…" }
                    option value="billable" { "billable: Iluma charged it" }
                    option value="not_billable" { "not billable: Iluma did not" }
                }
            }
            label for="settle-note" { "Note, such as the bill's number" input id="settle-note" name="note" maxlength="200"; }
            button type="submit" { "Settle" }
        }
    };
    html! {
        section {
            h2 { "Spent and saved" }
            form id="range" {
                label for="from" { "From" input id="from" name="from" type="date"; }
                label for="to" { "To" input id="to" name="to" type="date"; }
                (team_select("money-team", Some("all teams"), reader))
                label for="by" { "Sum by"
                    select id="by" name="by" {
                        @for (by, name) in SUMS { option value=(by) { (name) } }
                    }
                }
                button class="main" type="submit" { "Show" }
                button id="csv" type="button" { "Download CSV" }
            }
            div id="sums" { p class="empty" { "Loading…" } }
            div id="chart" {}
        }
        (place("books", "Books"))
        (place("budgets", "Budgets"))
        section {
            h2 { "Unknown calls" }
            p { "Iluma may have charged these calls: their answers were lost, or have not come yet. Compare them with Iluma's bill." }
            div id="unknown" { p class="empty" { "Loading…" } }
            (form_of(Order::Settle, reader, "Settling calls", &settle))
        }
    }
}

pub(super) fn nodes() -> Markup {
    html! {
        (place("nodes", "Nodes"))
        section {
            h2 { "Audit log" }
            form id="audit-range" {
                label for="audit-from" { "From" input id="audit-from" name="from" type="date"; }
                label for="audit-to" { "To" input id="audit-to" name="to" type="date"; }
                button type="submit" { "Show" }
            }
            div id="audit" { p class="empty" { "Loading…" } }
        }
    }
}
