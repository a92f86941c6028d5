//! Paths that match no row, if `upstream.unknown_routes` allows them: streamed, with a scan of the answer.
//!
//! Invariant: a JSON answer that shows another team's record, by its reference or by its id, is withheld.

use super::exchange::Exchange;
use super::ownership::Known;
use super::replies::of_parts;
use super::streamed;
use crate::base::name::TenantName;
use crate::iluma::mentions::Mentions;
use crate::reference::{FingerprintedBody, ReferencePrefix, ReferencePrefixes};
use crate::reply::{Rejection, ReplyBody};
use futures_util::future::try_join_all;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;

/// Streams a request to Iluma, and its answer back, unless the answer shows another team's record.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    mut request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let headers = request.headers_mut();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // A partial answer could not be parsed.
    headers.remove(RANGE);
    headers.remove(IF_RANGE);
    let response = streamed::forward(&mut exchange, request.map(FingerprintedBody::plain)).await?;
    if !is_json(response.headers()) {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let ReplyBody::Upstream(body) = body else { return Ok(Response::from_parts(head, body)) };
    let answer = exchange.collect(Response::from_parts(head, *body)).await?.collected;
    if shows_another_teams(&exchange, &answer.body).await? {
        exchange.account().metrics.withheld();
        return Err(Rejection::NotFound);
    }
    Ok(of_parts(answer.status, answer.headers, ReplyBody::full(answer.body)))
}

/// Returns true if an answer contains a reference with another team's prefix, or an id that only another team is known
/// to own.
async fn shows_another_teams(exchange: &Exchange<'_>, body: &[u8]) -> Result<bool, Rejection> {
    let mentions = Mentions::of(body);
    if let Some((own, teams)) = exchange.prefix()
        && (mentions.references.iter().any(|reference| is_another_teams(reference, &own, teams))
            || (mentions.is_garbled && quotes_another_teams(body, &own, teams)))
    {
        return Ok(true);
    }
    let (tenant, owners) = (exchange.tenant, &exchange.gateway.owners);
    let is_taken = async |id: &String| match Known::of(owners.of(&tenant.name, &tenant.account, id).await) {
        Known::Own(_) => Ok(false),
        Known::Unknown { taken } => Ok(taken),
        Known::Unavailable => Err(Rejection::OwnerUnknown),
    };
    Ok(try_join_all(mentions.ids.iter().map(is_taken)).await?.contains(&true))
}

/// Returns true if a reference begins with the prefix of another team of the account.
fn is_another_teams(reference: &str, own: &ReferencePrefix, teams: &ReferencePrefixes) -> bool {
    let team = reference.split_once(':').and_then(|(name, _)| teams.tenant(name));
    team.is_some_and(|team| team != own.tenant())
}

/// Returns true if an answer that is not valid JSON has a quoted text that begins with another team's prefix.
fn quotes_another_teams(body: &[u8], own: &ReferencePrefix, teams: &ReferencePrefixes) -> bool {
    let begins = |quote: usize| {
        let text = &body[quote + 1..];
        let reference = &text[..text.len().min(TenantName::LONGEST + 1)];
        let end = reference.iter().position(|byte| *byte == b':').map_or(0, |colon| colon + 1);
        std::str::from_utf8(&reference[..end]).is_ok_and(|reference| is_another_teams(reference, own, teams))
    };
    memchr::memchr_iter(b'"', body).any(begins)
}

/// Returns true for a JSON content type. Without a content type it returns true as well, because many clients then read
/// JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let essence = kind.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence.ends_with(b"json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_belongs_to_another_team_by_its_prefix() {
        let names = ["lending", "payments"].map(|name| name.parse().unwrap());
        let (own, teams) = (ReferencePrefix::of(&names[0]), ReferencePrefixes::of(names.clone()));
        for (reference, expected) in [
            ("payments:1", true),
            ("payments:", true),
            ("lending:1", false),
            ("payments", false),
            ("visa:1", false),
            ("", false),
        ] {
            assert_eq!(is_another_teams(reference, &own, &teams), expected, "{reference}");
            let garbled = format!(r#"{{"reference_id":"{reference}"#);
            assert_eq!(quotes_another_teams(garbled.as_bytes(), &own, &teams), expected, "{garbled}");
        }
    }

    #[test]
    fn json_is_told_by_its_type() {
        let kind = |text: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]);
        for (text, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/html", false),
            ("application/pdf", false),
        ] {
            assert_eq!(is_json(&kind(text)), expected, "{text}");
        }
        assert!(is_json(&HeaderMap::new()));
    }
}
