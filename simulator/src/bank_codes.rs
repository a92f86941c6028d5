//! Banks and their codes, such as `BCA`; from v2.2 on the code is `ID_BCA`.

use serde_json::{Value, json};

use super::call::Call;
use super::reply::Reply;
use super::route::Version;

/// The banks' codes and names, in the order of the answer.
const BANKS: [(&str, &str); 24] = [
    ("BCA", "Bank Central Asia"),
    ("BNI", "Bank Negara Indonesia"),
    ("BRI", "Bank Rakyat Indonesia"),
    ("MANDIRI", "Bank Mandiri"),
    ("CIMB", "Bank CIMB Niaga"),
    ("PERMATA", "Bank Permata"),
    ("MAYBANK", "Maybank Indonesia"),
    ("NOBU", "Nobu Bank"),
    ("SINARMAS", "Bank Sinarmas"),
    ("BTPN", "Bank BTPN"),
    ("BTN", "Bank Tabungan Negara"),
    ("DANAMON", "Bank Danamon"),
    ("BJB", "Bank BJB"),
    ("ARTHA", "Bank Artha Graha"),
    ("HSBC", "HSBC Indonesia"),
    ("BSI", "Bank Syariah Indonesia"),
    ("MUAMALAT", "Bank Muamalat"),
    ("MEGA", "Bank Mega"),
    ("OCBC", "Bank OCBC NISP"),
    ("PANIN", "Bank Panin"),
    ("UOB", "UOB Indonesia"),
    ("JAGO", "Bank Jago"),
    ("DBS", "DBS Indonesia"),
    ("BUKOPIN", "Bank Bukopin"),
];

/// Answers `GET /bank/available_bank_codes`.
pub(super) fn get(call: &Call<'_>) -> Reply {
    let prefix = prefix(call.version);
    let list = BANKS.iter().map(|(code, name)| json!({ "code": format!("{prefix}{code}"), "name": name }));
    Reply::json(&list.collect::<Vec<Value>>())
}

/// Returns the plain code, such as `BCA`, of the bank that `code` names in this version; `None` for an unknown bank.
pub(super) fn bank(version: Version, code: &str) -> Option<&'static str> {
    let plain = code.strip_prefix(prefix(version))?;
    BANKS.iter().map(|(code, _)| *code).find(|code| *code == plain)
}

fn prefix(version: Version) -> &'static str {
    if version >= Version::V2_2 { "ID_" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_a_country_from_v2_2_on() {
        assert_eq!(bank(Version::V1_1, "BCA"), Some("BCA"));
        assert_eq!(bank(Version::V2_2, "ID_BCA"), Some("BCA"));
        assert_eq!(bank(Version::V2_2, "BCA"), None);
        assert_eq!(bank(Version::V2, "ID_BCA"), None);
        assert_eq!(bank(Version::V2, "NONE"), None);
    }
}
