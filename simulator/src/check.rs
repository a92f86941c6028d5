//! Checks the fields of a request and collects everything that is wrong with them.

use serde_json::Value;

use super::body::{File, Form};
use super::problem::{FieldError, Problem};

/// The longest text that a field may hold. The longest documented limit is 100 characters.
const MAX_TEXT: usize = 512;

/// A reader of a form's fields that collects what is missing or wrong. `finish` returns all of it as one error.
pub(super) struct Check<'a> {
    form: &'a Form,
    errors: Vec<FieldError>,
}

impl<'a> Check<'a> {
    pub(super) fn new(form: &'a Form) -> Self {
        Self { form, errors: Vec::new() }
    }

    pub(super) fn wrong(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
    }

    /// Returns a required string. If it is missing or empty, notes an error and returns an empty text.
    pub(super) fn required(&mut self, field: &str) -> String {
        match self.optional(field) {
            Some(text) if !text.is_empty() => text,
            // A field that is there and is not a valid string was reported already.
            None if self.errors.iter().any(|error| error.field == field) => String::new(),
            _ => {
                self.wrong(field, format!("{field} is required"));
                String::new()
            }
        }
    }

    /// Returns an optional string; `None` if it is missing or null. For another type, or for a string that is too long,
    /// notes an error and returns `None`.
    pub(super) fn optional(&mut self, field: &str) -> Option<String> {
        match self.form.fields.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.chars().count() > MAX_TEXT => {
                self.wrong(field, format!("{field} is too long"));
                None
            }
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => {
                self.wrong(field, format!("{field} must be a string"));
                None
            }
        }
    }

    /// Returns a required number as text. The documented type is a string. A JSON number is accepted too, because
    /// careless clients send numbers.
    pub(super) fn numeric(&mut self, field: &str) -> String {
        match self.form.fields.get(field) {
            Some(Value::Number(number)) => number.to_string(),
            _ => self.required(field),
        }
    }

    /// Returns a required string, which must be one of `choices`.
    pub(super) fn choice(&mut self, field: &str, choices: &[&str]) -> String {
        let text = self.required(field);
        if !text.is_empty() && !choices.contains(&text.as_str()) {
            self.wrong(field, format!("{field} must be one of {}", choices.join(", ")));
        }
        text
    }

    /// Reads a required list: an array, or comma-separated text. Notes an error if the list is empty or has an item
    /// that is not in `choices`.
    pub(super) fn choices(&mut self, field: &str, choices: &[&str]) -> Vec<String> {
        let items: Vec<String> = match self.form.fields.get(field) {
            Some(Value::Array(items)) if items.len() <= choices.len() => {
                items.iter().map(|item| item.as_str().unwrap_or("").to_owned()).collect()
            }
            Some(Value::String(text)) => text.split(',').take(16).map(|item| item.trim().to_owned()).collect(),
            None | Some(Value::Null) => {
                self.wrong(field, format!("{field} is required"));
                return Vec::new();
            }
            Some(_) => Vec::new(),
        };
        if items.is_empty() || items.iter().any(|item| !choices.contains(&item.as_str())) {
            self.wrong(field, format!("{field} must be an array of {}", choices.join(", ")));
        }
        items
    }

    /// Returns a required file. If it is missing, notes an error and returns `None`.
    pub(super) fn file(&mut self, field: &str) -> Option<&'a File> {
        let file = self.form.files.get(field);
        if file.is_none() {
            self.wrong(field, format!("{field} is required"));
        }
        file
    }

    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::validation(self.errors)) }
    }
}

/// Returns true if the text consists of ASCII digits and their number is within `digits`.
pub(super) fn is_digits(text: &str, digits: std::ops::RangeInclusive<usize>) -> bool {
    digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn form(value: Value) -> Form {
        Form { fields: value.as_object().cloned().unwrap(), ..Form::default() }
    }

    #[test]
    fn everything_wrong_is_listed_once() {
        let form = form(json!({"a": 1, "b": "", "c": null, "d": "x", "e": ["P", 3]}));
        let mut check = Check::new(&form);
        check.required("a");
        check.required("b");
        assert_eq!(check.optional("c"), None);
        check.choice("d", &["P", "Q"]);
        check.choices("e", &["P", "Q"]);
        let errors = check.finish().unwrap_err().errors;
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["a", "b", "d", "e"]);
    }

    #[test]
    fn numbers_may_be_strings_or_numbers() {
        let form = form(json!({"a": 123, "b": "0123", "c": [1]}));
        let mut check = Check::new(&form);
        assert_eq!((check.numeric("a"), check.numeric("b")), ("123".into(), "0123".into()));
        check.numeric("c");
        assert!(check.finish().is_err());
    }

    #[test]
    fn digits_are_ascii() {
        assert!(is_digits("12", 2..=2) && !is_digits("1x", 2..=2) && !is_digits("١٢", 1..=9));
    }
}
