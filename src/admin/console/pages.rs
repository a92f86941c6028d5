//! The pages of the console, rendered on the server: the frame with the views' names, and the page to log in.

use super::assets::ASSETS;
use super::reader::Reader;
use super::views;
use crate::pages::{self, Login};
use maud::{DOCTYPE, Markup, html};

/// A view of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Teams,
    Live,
    Cache,
    Callbacks,
    Erasure,
    Money,
    Nodes,
}

impl View {
    pub(super) const ALL: [Self; 8] = [
        Self::Overview,
        Self::Teams,
        Self::Live,
        Self::Cache,
        Self::Callbacks,
        Self::Erasure,
        Self::Money,
        Self::Nodes,
    ];

    /// Returns the path of the view, the name by which the JavaScript modules know the view, and its heading.
    pub(super) const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Overview => ("/", "overview", "Overview"),
            Self::Teams => ("/console/teams", "teams", "Teams & keys"),
            Self::Live => ("/console/live", "live", "Live"),
            Self::Cache => ("/console/cache", "cache", "Cache"),
            Self::Callbacks => ("/console/callbacks", "callbacks", "Callbacks"),
            Self::Erasure => ("/console/erasure", "erasure", "Erasure"),
            Self::Money => ("/console/money", "money", "Money"),
            Self::Nodes => ("/console/nodes", "nodes", "Nodes & audit"),
        }
    }

    fn content(self, reader: &Reader<'_>) -> Markup {
        match self {
            Self::Overview => views::overview(),
            Self::Teams => views::teams(reader),
            Self::Live => views::live(reader),
            Self::Cache => views::cache(reader),
            Self::Callbacks => views::callbacks(reader),
            Self::Erasure => views::erasure(reader),
            Self::Money => views::money(reader),
            Self::Nodes => views::nodes(),
        }
    }
}

/// The sentences below the form for a token.
const HELP: &str =
    "Tokens are those of [admin.tokens] in the configuration. The session ends after half an hour without a request.";

/// Returns the page with the form for a token. `refused` is the message of a refused log-in, if there was one.
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
                meta name="time-zone" content=(reader.time_zone);
                script type="module" src=(ASSETS.module()) {}
            }
            body data-view=(name) data-node=(reader.node) data-orders=(reader.orders()) {
                a class="skip" href="#content" { "Skip to the content" }
                div class="frame" {
                    (side(view, reader))
                    main id="content" {
                        h1 { (heading) }
                        (pages::refusal())
                        div id="outcome" role="status" {}
                        (view.content(reader))
                    }
                }
                (pages::confirm_dialog())
            }
        }
    }
}

fn side(view: View, reader: &Reader<'_>) -> Markup {
    html! {
        div class="side" {
            div {
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
                    p id="zones" {}
                    form method="post" action="/console/logout" {
                        input type="hidden" name="csrf" value=(reader.session.csrf);
                        button type="submit" { "Log out" }
                    }
                }
            }
        }
    }
}
