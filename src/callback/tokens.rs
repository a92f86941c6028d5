//! Replaces the account's callback token in Iluma's answer by the team's own token.
//!
//! Invariant: a known token is replaced exactly, at any position; if none is found, every text that could be a token is
//! replaced, because the account may have a token that is newer than those of the configuration.

use serde_json::Value;

/// The length from which a text counts as a token, in bytes. Shorter texts are words, such as an environment's name.
const SHORTEST_TOKEN: usize = 16;

/// The replacement of the tokens in one answer.
pub(super) struct TokenSubstitution<'a> {
    known: &'a [&'a str],
    own: &'a str,
    /// True if the answer contains a known token.
    is_exact: bool,
}

impl<'a> TokenSubstitution<'a> {
    /// Searches `answer` for the `known` tokens, which `own` replaces.
    pub(super) fn new(answer: &Value, known: &'a [&'a str], own: &'a str) -> Self {
        Self { known, own, is_exact: contains(answer, known) }
    }

    /// Returns the answer with the team's own token.
    pub(super) fn apply(&self, answer: Value) -> Value {
        self.replace(None, answer)
    }

    fn replace(&self, name: Option<&str>, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(name, text)),
            Value::Array(items) => items.into_iter().map(|item| self.replace(name, item)).collect(),
            Value::Object(members) => {
                let replaced = members.into_iter().map(|(name, value)| {
                    let value = self.replace(Some(&name), value);
                    (self.exactly(name), value)
                });
                replaced.collect()
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }

    fn text(&self, name: Option<&str>, text: String) -> String {
        let is_long = text.len() >= SHORTEST_TOKEN && !text.contains(' ');
        let is_named = name.is_some_and(|name| name.to_ascii_lowercase().contains("token"));
        let text = self.exactly(text);
        let is_unknown_token = if self.is_exact {
            // Another token may be beside the known one, such as the token from before a change.
            is_named && is_long && !text.contains(self.own)
        } else {
            is_named || is_long
        };
        if is_unknown_token { self.own.to_owned() } else { text }
    }

    fn exactly(&self, text: String) -> String {
        self.known
            .iter()
            .fold(text, |text, token| if text.contains(token) { text.replace(token, self.own) } else { text })
    }
}

fn contains(value: &Value, known: &[&str]) -> bool {
    let has = |text: &str| known.iter().any(|token| text.contains(token));
    match value {
        Value::String(text) => has(text),
        Value::Array(items) => items.iter().any(|item| contains(item, known)),
        Value::Object(members) => members.iter().any(|(name, value)| has(name) || contains(value, known)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replaced(answer: Value, known: &[&str]) -> Value {
        TokenSubstitution::new(&answer, known, "OWN").apply(answer)
    }

    #[test]
    fn a_known_token_is_replaced_exactly_wherever_it_stands() {
        let known = ["the-token"];
        for (answer, expected) in [
            (
                json!({ "callback_authentication_token": "the-token" }),
                json!({ "callback_authentication_token": "OWN" }),
            ),
            (json!({ "value": "the-token" }), json!({ "value": "OWN" })),
            (json!({ "the-token": { "header": "Bearer the-token" } }), json!({ "OWN": { "header": "Bearer OWN" } })),
            // Texts that are no tokens are unchanged.
            (
                json!({ "token": "the-token", "token_type": "callback", "id": "59e608887eb26d005d44aeb8" }),
                json!({ "token": "OWN", "token_type": "callback", "id": "59e608887eb26d005d44aeb8" }),
            ),
            (json!({ "tokens": ["the-token", "an-older-token-of-it"] }), json!({ "tokens": ["OWN", "OWN"] })),
        ] {
            assert_eq!(replaced(answer, &known), expected);
        }
    }

    #[test]
    fn an_unknown_token_is_replaced_whatever_the_shape() {
        for (answer, expected) in [
            (json!({ "callback_authentication_token": "secret" }), json!({ "callback_authentication_token": "OWN" })),
            (
                json!({ "tokens": ["a", { "value": "0123456789abcdef" }] }),
                json!({ "tokens": ["OWN", { "value": "OWN" }] }),
            ),
            (
                json!({ "data": { "Token": "x", "environment": "LIVE", "n": 1 } }),
                json!({ "data": { "Token": "OWN", "environment": "LIVE", "n": 1 } }),
            ),
        ] {
            assert_eq!(replaced(answer.clone(), &[]), expected);
            assert_eq!(replaced(answer, &["the-token"]), expected);
        }
    }
}
