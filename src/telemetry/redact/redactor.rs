//! Scrubs lines: replaces the finds of the rules and the secrets, and counts them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use secrecy::SecretString;

use super::secrets::Secrets;
use super::spans::cut;

/// The largest number of passes over a line. A line with finds takes two passes, of which the second finds nothing. A
/// line that still has finds after eight passes was made to defeat the scrubber, and is replaced as a whole.
const PASSES: usize = 8;

/// Scrubs lines. Clones share the secrets and the count.
#[derive(Clone)]
pub struct Redactor {
    shared: Arc<Shared>,
}

struct Shared {
    secrets: ArcSwap<Secrets>,
    total: AtomicU64,
}

impl Redactor {
    /// Makes a scrubber that removes these secrets, in addition to the finds of its rules. Secrets of fewer than four
    /// bytes are not searched, because they would match ordinary text.
    #[must_use]
    pub fn new(secrets: Vec<SecretString>) -> Self {
        Self { shared: Arc::new(Shared { secrets: ArcSwap::from_pointee(Secrets::new(&secrets)), total: 0.into() }) }
    }

    /// Replaces the known secrets with these, in every clone.
    pub fn replace(&self, secrets: Vec<SecretString>) {
        self.shared.secrets.store(Arc::new(Secrets::new(&secrets)));
    }

    /// Returns the number of texts that all clones have removed since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// Removes personal data and secrets from one line of JSON and returns the number of removals. Inside a JSON string
    /// each find becomes `[redacted]`. Outside of strings a number becomes the string `"[redacted]"`.
    ///
    /// It removes: seven or more digits in a row; nine or more digits with single separators between them (seven or
    /// more if they begin with `+62`); e-mail addresses, also percent-encoded; Iluma's and the gateway's keys; `Basic`
    /// and `Bearer` credentials; the known secrets, also as base64 of a Basic credential.
    ///
    /// It keeps: UUIDs; ids of traces and deliveries; RFC 3339 timestamps; IPv4 addresses; numbers (not strings) whose
    /// key ends in `_us`, `_ms` or `_bytes`.
    pub fn scrub(&self, line: &mut Vec<u8>) -> usize {
        let secrets = self.shared.secrets.load();
        let mut count = 0;
        let mut passes = 0;
        while passes < PASSES {
            let spans = secrets.spans(line);
            if spans.is_empty() {
                break;
            }
            count += spans.len();
            cut(line, &spans);
            passes += 1;
        }
        if count > 0 {
            if passes == PASSES && !secrets.spans(line).is_empty() {
                let newline = line.ends_with(b"\n");
                line.clear();
                line.extend_from_slice(b"\"[redacted]\"");
                line.extend_from_slice(if newline { b"\n" } else { b"" });
            }
            self.shared.total.fetch_add(count as u64, Ordering::Relaxed);
        }
        count
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("total", &self.total()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|secret| SecretString::from(*secret)).collect())
    }

    #[test]
    fn a_line_is_scrubbed_in_linear_time() {
        use crate::base::linear::{assert_linear, repeated};
        let secrets: Vec<String> = (0..50).map(|n| format!("{}{n}", "secret".repeat(8))).collect();
        let redactor = redactor(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        for (before, piece, behind) in [
            ("{\"m\":\"", "1234567a", "\"}"),
            ("{\"m\":", "1234567a", "}"),
            ("{\"m\":\"", "1-", "\"}"),
            ("{\"m_us\":", "1.", "}"),
            ("{\"m\":\"", "a@", "\"}"),
            ("{\"m\":\"", "%40", "\"}"),
            ("{\"m\":\"", "basic%20", "\"}"),
            ("{\"m\":\"basic", " ", "\"}"),
            ("{\"m\":\"", "igw_", "\"}"),
            ("{\"m\":\"", "iluma_live_", "\"}"),
            ("{\"m\":\"", "\\u0031", "\"}"),
            ("{\"m\":\"", "secret", "\"}"),
            ("{\"m\":\"", "[redacted", "\"}"),
            ("{\"m\":\"", "2026-01-01T00:00:00", "\"}"),
            ("{\"m\":\"", "00000000-0000-", "\"}"),
            ("", "\"", ""),
            ("", "\\", ""),
        ] {
            assert_linear(
                &format!("{before}{piece}"),
                |size| repeated(before, piece, behind, size),
                |line| _ = redactor.scrub(&mut line.clone().into_bytes()),
            );
        }
    }

    fn scrubbed(redactor: &Redactor, line: &str) -> String {
        let mut bytes = line.as_bytes().to_vec();
        redactor.scrub(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    /// Scrubs a text inside of a JSON string.
    fn text(redactor: &Redactor, text: &str) -> String {
        let line = serde_json::json!({ "message": text }).to_string();
        let clean: serde_json::Value = serde_json::from_str(&scrubbed(redactor, &line)).unwrap();
        clean["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn personal_data_in_texts_is_taken_out() {
        let redactor = redactor(&[]);
        for (dirty, clean) in [
            ("account 1234567 rejected", "account [redacted] rejected"),
            ("a1234567b", "a[redacted]b"),
            ("\t1234567", "\t[redacted]"),
            ("\u{1f}1234567", "\u{1f}[redacted]"),
            ("nik 3171234567890123", "nik [redacted]"),
            ("0812 3456 7890", "[redacted]"),
            ("0812-3456-7890", "[redacted]"),
            ("0812.3456.7890", "[redacted]"),
            ("0812\u{a0}3456\u{2011}7890", "[redacted]"),
            ("0812%203456%207890", "[redacted]"),
            ("0812%2D3456%2D7890", "[redacted]"),
            ("q=%31%32%33%34%35%36%37", "q=%[redacted]"),
            ("npwp 09.254.294.3-407.000", "npwp [redacted]"),
            ("tel:+6281234567", "tel:[redacted]"),
            ("+62 812-345", "[redacted]"),
            ("%2B62 812-345", "[redacted]"),
            ("12 1234567 1", "[redacted]"),
            ("1234567 2026-11-23T09:15:00Z", "[redacted] 2026-11-23T09:15:00Z"),
            ("mail siti.r+x@example.co.id!", "mail [redacted]!"),
            ("q=siti%40example.com&x", "q=[redacted]&x"),
            ("q=siti%2540example.com&x", "q=[redacted]&x"),
            ("\nsiti@example.com", "[redacted]"),
            ("sitié@exämple.com", "[redacted]"),
            ("key iluma_live_abc-DEF_9==.", "key [redacted]"),
            ("iluma_development_x iluma_production_y", "[redacted] [redacted]"),
            ("igw_abcDEF", "[redacted]"),
            ("authorization: Basic aWx1bWE6", "authorization: Basic [redacted]"),
            ("bearer  abc.def-ghi", "bearer  [redacted]"),
            ("Basic%20aWx1bWE6", "Basic%20[redacted]"),
            ("\"Bearer abc\"", "\"Bearer [redacted]\""),
            ("x-3f2504e0-4f89-41d3-9a0c-0305e82c33011234567", "x-3f2504e0-4f89-41d3-9a0c-0305e82c[redacted]"),
            // These are no delivery ids: no letter, too short, a part of something longer.
            ("msg_12345678901234567890123456789012", "msg_[redacted]"),
            ("msg_123456789012345678901234567890a", "msg_[redacted]a"),
            ("msg_12345678901234567890123456789012a", "msg_[redacted]a"),
            ("xmsg_1234567890123456789012345678901a", "xmsg_[redacted]a"),
        ] {
            assert_eq!(text(&redactor, dirty), clean, "{dirty}");
        }
        assert!(redactor.total() > 30);
    }

    #[test]
    fn what_is_not_personal_stays() {
        let redactor = redactor(&["hunter2hunter2"]);
        for clean in [
            "123456 is short",
            "2026-11-23",
            "2026-11-23T09:15:00Z 2026-11-23T09:15:00.123456+07:00",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "a callback msg_1234567890123456789012345678901a is dead",
            "bknv_12345678-1234-4123-8123-123456789012",
            "count 5 12345678-1234-4123-8123-123456789012",
            "connect to 192.168.100.200:8080",
            "took 12345.6789 s",
            "iluma_gateway::cache at 100% of 50",
            "ILUMA_LIVE_API_KEY is not set",
            "igw_ iluma_live_ @ a@ @b Basic ",
            "[redacted]",
        ] {
            assert_eq!(text(&redactor, clean), clean);
        }
        assert_eq!(redactor.total(), 0);
    }

    #[test]
    fn numbers_become_strings_unless_their_key_says_that_they_count() {
        let redactor = redactor(&[]);
        for (dirty, clean) in [
            (r#"{"a":1234567}"#, r#"{"a":"[redacted]"}"#),
            (r#"{"a":-1234567.5e3,"b":1}"#, r#"{"a":"[redacted]","b":1}"#),
            (r#"[1,12345678,2]"#, r#"[1,"[redacted]",2]"#),
            (r#"{"duration_us":12345678}"#, r#"{"duration_us":12345678}"#),
            (r#"{"wait_ms":1.23456789,"a_bytes":123456789}"#, r#"{"wait_ms":1.23456789,"a_bytes":123456789}"#),
            (r#"{"duration_us":"12345678"}"#, r#"{"duration_us":"[redacted]"}"#),
            (r#"{"status":12345678}"#, r#"{"status":"[redacted]"}"#),
            (r#"{"client":"192.168.100.200"}"#, r#"{"client":"192.168.100.200"}"#),
            (r#"{"client":"192.168.100.256"}"#, r#"{"client":"[redacted]"}"#),
            (r#"{"client":"192.168.100.200.1"}"#, r#"{"client":"[redacted]"}"#),
            (r#"{"client":"192.168.1000200"}"#, r#"{"client":"[redacted]"}"#),
            (r#"{"1234567_us":12345678}"#, r#"{"[redacted]_us":12345678}"#),
            (r#"{"igw_a_us":12345678}"#, r#"{"[redacted]":"[redacted]"}"#),
            (r#"{"m":"\"_us\":12345678}"}"#, r#"{"m":"\"_us\":[redacted]}"}"#),
            (r#"{"m":"\u0812345678"}"#, r#"{"m":"[redacted]"}"#),
        ] {
            let out = scrubbed(&redactor, dirty);
            assert_eq!(out, clean);
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
        }
    }

    #[test]
    fn configured_secrets_are_taken_out_in_every_form() {
        let secrets = ["correct-horse-battery", "tok12", "with\"quote\\and-slash", "p[redacted]word", "redacted"];
        let redactor = redactor(&secrets);
        for secret in &secrets[..4] {
            for place in ["", "x", "xyz", "\n", "\\", "é"] {
                assert_eq!(text(&redactor, &format!("{place}{secret}-")), format!("{place}[redacted]-"), "{secret}");
            }
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("{secret}:"));
            assert_eq!(text(&redactor, &format!("is {basic}.")), "is [redacted].");
        }
        assert_eq!(scrubbed(&redactor, "panic tok12"), "panic \"[redacted]\"");
    }

    #[test]
    fn a_reload_replaces_the_secrets_of_every_clone() {
        let redactor = redactor(&["correct-horse-battery"]);
        redactor.clone().replace(vec!["staple-staple-staple".into()]);
        assert_eq!(text(&redactor, "correct-horse-battery"), "correct-horse-battery");
        assert_eq!(text(&redactor, "staple-staple-staple"), "[redacted]");
        assert_eq!(redactor.total(), 1);
    }

    #[test]
    fn a_long_line_of_finds_takes_linear_time() {
        let redactor = redactor(&["correct-horse-battery"]);
        for piece in [
            "a%40b",
            "a@",
            "1-",
            "12345678,",
            "Basic x ",
            "igw_",
            "igw_a ",
            "Basic%20",
            "\\u0812",
            "correct-horse-battery ",
        ] {
            let line = serde_json::json!({ "m": piece.repeat(20_000) }).to_string();
            let out = scrubbed(&redactor, &line);
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{piece}");
        }
    }

    /// Generates texts of patterns that the rules match, and patterns that could confuse them.
    fn nasty() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\\"),
            Just("\""),
            Just("@"),
            Just("%40"),
            Just("%"),
            Just("-"),
            Just(" "),
            Just("."),
            Just("+62"),
            Just("igw_"),
            Just("iluma_live_"),
            Just("Basic "),
            Just("bearer"),
            Just("_us\":"),
            Just("[redacted]"),
            Just("3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
            Just("msg_1234567890123456789012345678901a"),
            Just("2026-11-23T09:15:00.1Z"),
            Just("\u{1}"),
            Just("\n"),
            Just("\\u00"),
            Just("123"),
            Just("0"),
            Just("é"),
            Just("secret-"),
            Just("number-one"),
            Just("ab"),
            Just(","),
            Just("redacted"),
            Just("p]["),
            Just("{}:"),
        ];
        prop_oneof![proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()), ".{0,60}",]
    }

    fn knowing() -> Redactor {
        redactor(&["secret-number-one", "ab0", "[red", "p][red", "0é\"0", "u00e9", "edacted]p"])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn arbitrary_bytes_are_scrubbed_once_and_for_all(mut line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let redactor = knowing();
            redactor.scrub(&mut line);
            let once = line.clone();
            prop_assert_eq!(redactor.scrub(&mut line), 0);
            prop_assert_eq!(line, once);
        }

        #[test]
        fn json_stays_json_and_nothing_is_found_twice(key in nasty(), value in nasty(), number in any::<i64>()) {
            let redactor = knowing();
            let line = format!(
                "{{{}:{},\"n\":{number},\"d_us\":{number}}}",
                serde_json::Value::from(key), serde_json::Value::from(value),
            );
            let once = scrubbed(&redactor, &line);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&once).is_ok(), "{}", once);
            prop_assert_eq!(scrubbed(&redactor, &once), once);
        }

        #[test]
        fn raw_nasty_lines_are_scrubbed_once_and_for_all(line in nasty()) {
            let redactor = knowing();
            let once = scrubbed(&redactor, &line);
            prop_assert_eq!(scrubbed(&redactor, &once), once);
        }

        #[test]
        fn no_account_number_survives(before in nasty(), number in "[0-9]{7,19}", after in nasty(), raw in any::<bool>()) {
            let redactor = redactor(&["secret-number-one"]);
            let planted = format!("{before}{number}{after}");
            let line = if raw { planted } else { serde_json::json!({ "message": planted }).to_string() };
            // In a raw line, which is not a real log line, the number may stand where the value of a counter would.
            prop_assume!(!(raw && before.ends_with("_us\":")));
            let out = scrubbed(&redactor, &line);
            prop_assert!(!out.contains(&number), "{}", out);
        }

        #[test]
        fn no_secret_survives(before in nasty(), secret in "[!-~]{4,40}", after in nasty()) {
            let redactor = redactor(&[&secret]);
            prop_assume!(!"[redacted]".contains(&secret) && !before.contains(&secret) && !after.contains(&secret));
            let out = text(&redactor, &format!("{before}{secret}{after}"));
            prop_assert!(!out.contains(&secret), "{}", out);
        }
    }
}
