//! The pages of the console, rendered on the server: headings, forms and empty places that the modules fill.

use super::assets::ASSETS;
use crate::config::Role;
use crate::pages::{self, Login, Session};
use maud::{DOCTYPE, Markup, html};

/// A view of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Teams,
    Cache,
    Callbacks,
    Erasure,
    Money,
    Nodes,
}

impl View {
    pub(super) const ALL: [Self; 7] =
        [Self::Overview, Self::Teams, Self::Cache, Self::Callbacks, Self::Erasure, Self::Money, Self::Nodes];

    /// Returns the path, the name that the modules know, and the heading.
    pub(super) const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Overview => ("/", "overview", "Overview"),
            Self::Teams => ("/console/teams", "teams", "Teams & keys"),
            Self::Cache => ("/console/cache", "cache", "Cache"),
            Self::Callbacks => ("/console/callbacks", "callbacks", "Callbacks"),
            Self::Erasure => ("/console/erasure", "erasure", "Erasure"),
            Self::Money => ("/console/money", "money", "Money"),
            Self::Nodes => ("/console/nodes", "nodes", "Nodes & audit"),
        }
    }

    fn content(self, reader: &Reader<'_>) -> Markup {
        match self {
            Self::Overview => overview(),
            Self::Teams => teams(reader),
            Self::Cache => cache(reader),
            Self::Callbacks => callbacks(reader),
            Self::Erasure => erasure(reader),
            Self::Money => money(),
            Self::Nodes => nodes(),
        }
    }
}

/// The reader of a page.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) session: &'a Session<Role>,
    /// This node's name.
    pub(super) node: &'a str,
    /// The teams of the configuration.
    pub(super) teams: &'a [&'a str],
    /// The callback types of Iluma.
    pub(super) types: &'a [&'static str],
}

impl Reader<'_> {
    /// Returns true if the reader may give the orders of a role.
    fn may(&self, role: Role) -> bool {
        self.session.standing >= role
    }
}

/// The sentences below the form for a token.
const HELP: &str =
    "Tokens are those of [admin.tokens] in the configuration. The session ends after half an hour without a request.";

/// Returns the page with the form for a token.
pub(super) fn login(refused: Option<&str>) -> Markup {
    let form = Login { assets: &ASSETS, action: "/console/login", field: "token", label: "Token", help: HELP };
    pages::login(form, refused)
}

/// Returns the page of a view.
pub(super) fn page(view: View, reader: &Reader<'_>) -> Markup {
    let (_, name, heading) = view.names();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (pages::document_head(heading, &ASSETS))
                meta name="csrf-token" content=(reader.session.csrf);
                script type="module" src=(ASSETS.module()) {}
            }
            body data-view=(name) data-role=(reader.session.standing.as_str()) {
                a class="skip" href="#content" { "Skip to the content" }
                div class="frame" {
                    div class="side" {
                        strong { "iluma-gateway" }
                        nav aria-label="Views" {
                            ul {
                                @for other in View::ALL {
                                    @let (path, _, heading) = other.names();
                                    li { a href=(path) aria-current=[(other == view).then_some("page")] { (heading) } }
                                }
                            }
                        }
                        div class="who" {
                            p { "Node " (reader.node) }
                            p { "Token " (reader.session.holder) ", role " (reader.session.standing.as_str()) }
                            form method="post" action="/console/logout" {
                                input type="hidden" name="csrf" value=(reader.session.csrf);
                                button type="submit" { "Log out" }
                            }
                        }
                    }
                    main id="content" {
                        h1 { (heading) }
                        (pages::refusal())
                        (view.content(reader))
                        div id="outcome" role="status" {}
                    }
                }
                (pages::confirm_dialog())
            }
        }
    }
}

/// Returns a section with a heading and an empty element, which a module fills.
fn place(id: &str, heading: &str) -> Markup {
    html! {
        section { h2 { (heading) } div id=(id) { p class="empty" { "Loading…" } } }
    }
}

fn overview() -> Markup {
    html! {
        (place("alarms", "Alarms"))
        (place("today", "Today"))
        (place("month", "This month"))
        p { "Figures are those of all nodes. Days end at midnight in the gateway's time zone." }
    }
}

fn team_select(id: &str, reader: &Reader<'_>) -> Markup {
    html! {
        label for=(id) { "Team"
            select id=(id) name="team" required { @for team in reader.teams { option value=(team) { (team) } } }
        }
    }
}

fn teams(reader: &Reader<'_>) -> Markup {
    html! {
        (place("teams", "Teams"))
        section {
            h2 { "Keys" }
            form { label for="key-team" { "Keys of" select id="key-team" {} } }
            div id="keys" {}
            @if reader.may(Role::Admin) {
                form id="create-key" {
                    (team_select("new-key-team", reader))
                    label for="note" { "Note" input id="note" name="note" maxlength="200"; }
                    label for="expires" { "Expires in, such as 90d" input id="expires" name="expires_in"; }
                    button class="main" type="submit" { "Create key" }
                }
            }
            div id="new-key" {}
        }
    }
}

fn cache(reader: &Reader<'_>) -> Markup {
    html! {
        (place("size", "Size"))
        (place("rates", "Hit rate by route"))
        @if reader.may(Role::Operator) {
            section {
                h2 { "Purge" }
                form id="purge" {
                    label for="what" { "Answers of"
                        select id="what" name="what" {
                            @for route in ["bank", "cft", "bank_codes"] { option value=(route) { "route " (route) } }
                            option value="tenant" { "one team alone" }
                            option value="all" { "everything" }
                        }
                    }
                    (team_select("tenant", reader))
                    button class="danger" type="submit" { "Purge" }
                }
            }
        }
    }
}

fn callbacks(reader: &Reader<'_>) -> Markup {
    html! {
        section {
            h2 { "Callbacks" }
            form {
                label for="callback-state" { "State"
                    select id="callback-state" { @for state in ["dead", "queued", "delivered", "unowned"] { option value=(state) { (state) } } }
                }
            }
            div id="callbacks" {}
        }
        @if reader.may(Role::Operator) {
            section {
                h2 { "Endpoint of a team" }
                form id="endpoint" {
                    (team_select("endpoint-team", reader))
                    label for="type" { "Type"
                        select id="type" name="type" {
                            option value="" { "all types" }
                            @for kind in reader.types { option value=(kind) { (kind) } }
                        }
                    }
                    @for order in ["Pause", "Resume", "Test"] { button type="submit" value=(order) { (order) } }
                }
            }
            section {
                h2 { "Replay a window" }
                form id="replay" {
                    (team_select("replay-team", reader))
                    label for="since" { "Since" input id="since" name="since" type="datetime-local" required; }
                    label for="until" { "Until" input id="until" name="until" type="datetime-local"; }
                    button type="submit" { "Replay" }
                }
            }
        }
    }
}

fn erasure(reader: &Reader<'_>) -> Markup {
    html! {
        @if reader.may(Role::Admin) {
            section {
                h2 { "Erase a person" }
                p { "Give what identifies the person. Nothing of it is kept, shown or logged." }
                form id="erase" autocomplete="off" {
                    label for="account-number" { "Account number" input id="account-number" name="bank_account_number"; }
                    label for="bank-code" { "Bank code" input id="bank-code" name="bank_code"; }
                    label for="nik" { "NIK" input id="nik" name="nik" inputmode="numeric"; }
                    label for="given-name" { "Given name" input id="given-name" name="given_name"; }
                    label for="surname" { "Surname" input id="surname" name="surname"; }
                    button class="danger" type="submit" { "Erase" }
                }
                div id="receipt" {}
            }
        }
        p { "Every erasure is in the audit log, without the person." }
    }
}

fn money() -> Markup {
    html! {
        section {
            h2 { "Spent and saved" }
            form id="range" {
                label for="from" { "From" input id="from" type="date"; }
                button type="submit" { "Show" }
            }
            div id="chart" {}
        }
        (place("books", "Books"))
        (place("unknown", "Unknown calls"))
    }
}

fn nodes() -> Markup {
    html! {
        (place("audit", "Audit log"))
    }
}
