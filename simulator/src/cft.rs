//! The watchlist: invented people on an invented list.

use serde_json::{Value, json};
use uuid::Uuid;

use super::call::Call;
use super::check::Check;
use super::problem::Problem;
use super::reply::Reply;
use super::seed::Seed;

/// A word in the name that gives one match.
const ONE: &str = "HANTUMALAM";
/// A word in the name that gives two matches.
const TWO: &str = "HANTULAUT";

/// Answers `POST /v1/identity/cft/individual_watchlist`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let (given, surname) = (check.required("given_name"), check.optional("surname"));
    check.finish()?;
    let name = match surname.filter(|surname| !surname.is_empty()) {
        Some(surname) => format!("{given} {surname}"),
        None => given,
    };
    let results: Vec<Value> = (0..matches(&name)).map(person).collect();
    Ok(Reply::json(&json!({ "request_name": name, "results": results, "id": Uuid::new_v4().to_string() }))
        .charged(true))
}

fn matches(name: &str) -> usize {
    let upper = name.to_uppercase();
    let has = |word| upper.split_whitespace().any(|part| part == word);
    if has(TWO) {
        2
    } else if has(ONE) {
        1
    } else {
        0
    }
}

fn person(number: usize) -> Value {
    let seed = Seed::of(&["watchlist", &number.to_string()]);
    let alias = Seed::of(&["alias", &number.to_string()]);
    json!({
        "pid": format!("dttot_{}", 900_000 + number),
        "name": format!("{} {}", seed.given_name(), if number == 0 { ONE } else { TWO }),
        "aliases": [alias.name(), format!("{} {ONE}", alias.given_name())],
        "place_of_birth": "Kota Rekaan",
        "date_of_birth": "31-Feb-51",
        "nationality": "Indonesia",
        "origin": "DTTOT",
        "country_code": "ID",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_decide() {
        assert_eq!(matches("Arunika hantumalam"), 1);
        assert_eq!(matches("HANTULAUT"), 2);
        assert_eq!(matches("Hantumalamku"), 0);
        assert_eq!(matches("Abdul Aziz"), 0);
    }
}
