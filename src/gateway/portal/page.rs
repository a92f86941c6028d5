//! The page of a team, which is rendered on the server.
//!
//! The page has headings, forms, examples, and empty places that its JavaScript module fills.

use super::assets::ASSETS;
use super::examples::{Example, examples};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::routes::{PORTAL_LOG_IN, PORTAL_LOG_OUT};
use crate::pages::{self, Login};
use crate::tenant::Tenant;
use maud::{DOCTYPE, Markup, html};

/// The sections of the page: id and heading.
const SECTIONS: [(&str, &str); 5] = [
    ("usage", "Usage"),
    ("limits", "Limits"),
    ("callbacks", "Callbacks"),
    ("secret", "Secret"),
    ("examples", "Examples"),
];

/// The reader of the page, and the data that the page shows to this reader.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// The session's CSRF token, which the page's orders carry.
    pub(super) csrf: &'a str,
    pub(super) tenant: &'a Tenant,
    /// The base URL of the gateway, to which examples add a path.
    pub(super) base: &'a str,
    /// The time zone in which days begin.
    pub(super) time_zone: &'a str,
    /// The contact for help.
    pub(super) contact: Option<&'a str>,
}

/// Returns the log-in page, which has a form for a key. `refused` is the reason of a refused log-in, which the page
/// shows.
pub(super) fn login(refused: Option<&str>, contact: Option<&str>) -> Markup {
    let mut help =
        "Log in with an API key of your team. The session ends after half an hour without a request.".to_owned();
    if let Some(contact) = contact {
        help.push_str(" For help: ");
        help.push_str(contact);
    }
    let form = Login { assets: &ASSETS, action: PORTAL_LOG_IN, field: "key", label: "Key", help: &help };
    pages::login(form, refused)
}

/// Returns the page of a team.
pub(super) fn page(reader: &Reader<'_>) -> Markup {
    let name = reader.tenant.name.as_str();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (pages::document_head(name, &ASSETS))
                meta name="csrf-token" content=(reader.csrf);
                meta name="time-zone" content=(reader.time_zone);
                script type="module" src=(ASSETS.module()) {}
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                div class="frame" {
                    (side(reader, name))
                    main id="content" {
                        h1 { "Team " (name) }
                        (pages::refusal())
                        div id="outcome" role="status" {}
                        (section(SECTIONS[0], &place("usage-of-month")))
                        (section(SECTIONS[1], &place("limits-and-use")))
                        (section(SECTIONS[2], &callbacks()))
                        (section(SECTIONS[3], &secret()))
                        (section(SECTIONS[4], &shown(&examples(|route| reader.tenant.may_use(route), reader.base))))
                    }
                }
                (pages::confirm_dialog())
            }
        }
    }
}

fn side(reader: &Reader<'_>, name: &str) -> Markup {
    html! {
        div class="side" {
            div {
                strong { "iluma-gateway" }
                nav aria-label="Sections" {
                    ul { @for (id, heading) in SECTIONS { li { a href={ "#" (id) } { (heading) } } } }
                }
                div class="who" {
                    p { "Team " (name) }
                    @if let Some(contact) = reader.contact { p { "Help: " (contact) } }
                    form method="post" action=(PORTAL_LOG_OUT) {
                        input type="hidden" name="csrf" value=(reader.csrf);
                        button type="submit" { "Log out" }
                    }
                }
            }
        }
    }
}

fn section((id, heading): (&str, &str), content: &Markup) -> Markup {
    html! { section id=(id) aria-labelledby={ (id) "-heading" } { h2 id={ (id) "-heading" } { (heading) } (content) } }
}

/// Returns an empty element, which the page's JavaScript module fills.
fn place(id: &str) -> Markup {
    html! { div id=(id) { p class="empty" { "Loading…" } } }
}

fn callbacks() -> Markup {
    html! {
        form {
            label for="callback-state" { "State"
                select id="callback-state" { @for state in ["dead", "queued", "delivered"] { option value=(state) { (state) } } }
            }
        }
        (place("callback-list"))
        h3 { "Endpoints" }
        p { "An endpoint is your URL for a type. A pause stops attempts; a test sends a signed delivery to the URL of the type." }
        div id="paused" {}
        div class="scroll" tabindex="0" role="region" aria-label="Endpoints" {
            table {
                thead { tr { th scope="col" { "Type" } th scope="col" { "Orders" } } }
                tbody {
                    @for kind in CallbackType::ALL.map(CallbackType::as_str) {
                        tr {
                            td { code { (kind) } }
                            td {
                                @for order in ["Send test", "Pause", "Resume"] {
                                    button type="button" data-order=(order) data-type=(kind) { (order) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn secret() -> Markup {
    html! {
        p { "The secret signs the callbacks that you get. A program that has it can send callbacks in the name of the gateway." }
        button id="reveal" type="button" { "Reveal" }
        div id="secret-text" {}
        h3 { "API key" }
        p { "A new key replaces the one that you logged in with. The old key works until its time is over." }
        form id="rotate" {
            label for="grace" { "The old key works for" input id="grace" name="grace" value="24h" required; }
            button type="submit" { "Rotate" }
        }
        div id="new-key" {}
    }
}

fn shown(examples: &[Example]) -> Markup {
    html! {
        p { "Put your key into the environment variable " code { "ILUMA_GATEWAY_KEY" } ". Values are invented." }
        @for Example { title, route, curl, node, python } in examples {
            details {
                summary { code { (title) } " (" (route) ")" }
                h3 { "curl" }
                pre tabindex="0" { (curl) }
                h3 { "Node" }
                pre tabindex="0" { (node) }
                h3 { "Python" }
                pre tabindex="0" { (python) }
            }
        }
    }
}
