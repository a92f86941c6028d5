//! The elements that all pages share: the head, the log-in form, the elements for messages, and the dialog.

use super::assets::Assets;
use maud::{DOCTYPE, Markup, html};

/// The texts and paths of the log-in page, which has a form for a secret.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The files of the pages.
    pub assets: &'a Assets,
    /// The path to which the form is sent.
    pub action: &'a str,
    /// The name of the form's field.
    pub field: &'a str,
    /// The label of the form's field.
    pub label: &'a str,
    /// The sentences below the form.
    pub help: &'a str,
}

/// Returns the log-in page. `refused` is the reason why the last attempt was refused, if there was one.
#[must_use]
pub fn login(form: Login<'_>, refused: Option<&str>) -> Markup {
    let Login { assets, action, field, label, help } = form;
    html! {
        (DOCTYPE)
        html lang="en" {
            head { (document_head("Log in", assets)) }
            body {
                main class="login" {
                    h1 { "iluma-gateway" }
                    div role="alert" { @if let Some(refused) = refused { (refused) } }
                    form method="post" action=(action) {
                        label for=(field) { (label)
                            input id=(field) name=(field) type="password" autocomplete="current-password" required;
                        }
                        button class="main" type="submit" { "Log in" }
                    }
                    p { (help) }
                }
            }
        }
    }
}

/// Returns the elements of a document's head.
#[must_use]
pub fn document_head(title: &str, assets: &Assets) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="referrer" content="same-origin";
        title { (title) " · iluma-gateway" }
        link rel="stylesheet" href=(assets.style());
        link rel="icon" type="image/svg+xml" href=(assets.icon());
    }
}

/// Returns the elements in which the JavaScript modules show messages: one element for refusals, and a notice that the
/// data of other nodes is missing.
#[must_use]
pub fn refusal() -> Markup {
    html! {
        div id="refusal" role="alert" {}
        p id="partial" class="notice" hidden {
            "Redis is out: figures and lists below are those of this node alone, until it is back."
        }
    }
}

/// Returns the dialog in which the JavaScript modules ask the reader to confirm an order.
#[must_use]
pub fn confirm_dialog() -> Markup {
    html! {
        dialog id="confirm" aria-labelledby="confirm-text" {
            p id="confirm-text" {}
            div class="buttons" {
                button id="confirm-cancel" type="button" { "Cancel" }
                button id="confirm-order" type="button" class="main" {}
            }
        }
    }
}
