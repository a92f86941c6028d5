//! Collects the references and ids in a JSON answer, at any depth.
//!
//! The references and ids show whether the answer of an undocumented route contains another team's record.
//!
//! One pass reads the answer: its time is linear in the length.

use super::record_id::LONGEST_ID;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// The largest number of ids that are looked up for one answer; no documented list has more on a page.
pub const MOST_IDS: usize = 256;

/// References and ids of one answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// All strings that are the value of a member `reference_id`.
    pub references: BTreeSet<String>,
    /// The first [`MOST_IDS`] strings that are the value of a member `id` or `*_id`, except `reference_id`.
    pub ids: BTreeSet<String>,
    /// True if a part of the text is not JSON. That part may contain further references and ids.
    pub is_garbled: bool,
}

impl Mentions {
    /// Reads one JSON text, or several in a row. A byte order mark at the beginning is skipped, because many readers
    /// skip it.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let mut mentions = Self::default();
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let mut values = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
        while let Some(value) = values.next() {
            let whole = match value {
                Ok(value) => value.get().as_bytes(),
                Err(_) => {
                    mentions.is_garbled = true;
                    &text[values.byte_offset().min(text.len())..]
                }
            };
            mentions.read(whole);
            if mentions.is_garbled {
                break;
            }
        }
        mentions
    }

    /// Collects the references and ids of one JSON text, up to its first syntax error.
    fn read(&mut self, text: &[u8]) {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let _ = Walk { mentions: self, name: Name::Other }.deserialize(&mut reader);
    }

    fn take(&mut self, name: Name, text: &str) {
        match name {
            Name::Reference => drop(self.references.insert(text.to_owned())),
            Name::Id if self.ids.len() < MOST_IDS && (1..=LONGEST_ID).contains(&text.len()) => {
                self.ids.insert(text.to_owned());
            }
            Name::Id | Name::Other => {}
        }
    }
}

/// The kind of the member whose value is read.
#[derive(Clone, Copy)]
enum Name {
    Reference,
    Id,
    Other,
}

impl Name {
    fn of(text: &str) -> Self {
        match text {
            "reference_id" => Self::Reference,
            "id" => Self::Id,
            text if text.ends_with("_id") => Self::Id,
            _ => Self::Other,
        }
    }
}

struct Walk<'a> {
    mentions: &'a mut Mentions,
    name: Name,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            map.next_value_seed(Walk { mentions: &mut *self.mentions, name: Name::of(&name) })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk { mentions: &mut *self.mentions, name: self.name })?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.mentions.take(self.name, text);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(IgnoredAny).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_ids_are_found_at_any_depth() {
        let mentions = Mentions::of(
            br#" {"id":"a","x":[{"business_id":"b","reference_id":"lending:1"},{"ids":["no"],"parent_id":["c",1,null]}],
                 "reference_id":"\u006cending:2","amount_idr":"no","y":{"id":{"id":"d"}},"z":1.5,"w":true} "#,
        );
        let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
        let (references, ids) = (set(&["lending:1", "lending:2"]), set(&["a", "b", "c", "d"]));
        assert_eq!(mentions, Mentions { references, ids, is_garbled: false });
        for (text, ids, is_garbled) in [
            ("", &[][..], false),
            ("\u{feff}{\"id\":\"a\"}", &["a"], false),
            ("{\"id\":\"a\"}\n{\"id\":\"b\"}\n", &["a", "b"], false),
            ("[{\"id\":\"a\"},{\"id\":\"b\"", &["a", "b"], true),
            ("{\"id\":\"a\"} x {\"id\":\"b\"}", &["a"], true),
            ("<html>", &[], true),
        ] {
            let expected = Mentions { references: BTreeSet::new(), ids: set(ids), is_garbled };
            assert_eq!(Mentions::of(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_is_read_in_linear_time() {
        use crate::base::linear::{assert_linear, repeated};
        for (before, piece, behind) in
            [("", "1 ", ""), ("", "{\"id\":\"a\"}\n", ""), ("[", "[1],", ""), ("{", "\"a\":1,", "x")]
        {
            assert_linear(
                &format!("{before}{piece}"),
                |size| repeated(before, piece, behind, size),
                |text| drop(Mentions::of(text.as_bytes())),
            );
        }
    }

    #[test]
    fn the_ids_of_one_answer_are_bounded() {
        let many: Vec<_> = (0..MOST_IDS * 2).map(|n| format!(r#"{{"id":"{n}"}}"#)).collect();
        assert_eq!(Mentions::of(format!("[{}]", many.join(",")).as_bytes()).ids.len(), MOST_IDS);
    }
}
