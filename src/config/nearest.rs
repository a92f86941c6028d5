//! Suggests the intended word for a typing mistake.

/// Returns the candidate that differs from `typed` by the fewest letters. Returns `None` if every candidate differs by
/// too many letters.
pub(super) fn nearest<'c>(typed: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // A text with more than a third of wrong letters is another word, not a mistake.
    let most = (typed.chars().count() / 3).clamp(1, 3);
    if typed.len() > MAX_SHOWN_NAME {
        return None;
    }
    candidates
        .map(|known| (distance(typed, known), known))
        .filter(|(far, _)| *far <= most)
        .min()
        .map(|(_, known)| known)
}

/// Returns the number of letters to insert, remove or replace to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (left, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[to.len()]
}

/// The longest typed name that faults show, in bytes.
pub(super) const MAX_SHOWN_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_few_letters_away() {
        let known = ["listen", "max_headers", "tls"];
        for (typed, near) in
            [("lisen", Some("listen")), ("max_header", Some("max_headers")), ("tsl", None), ("colour", None)]
        {
            assert_eq!(nearest(typed, known.into_iter()), near, "{typed}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
