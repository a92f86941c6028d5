//! The labels of HTTP statuses: a frequent status has its own label, and any other status has the label of its class.

/// The statuses with a label of their own; all others have the label of their class.
const STATUSES: [(u16, &str); 25] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (301, "301"),
    (302, "302"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (431, "431"),
    (499, "499"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The number of labels: one for each frequent status, one for each class, and one for a request without an answer.
pub(super) const LABELS: usize = STATUSES.len() + CLASSES.len() + 1;
/// The index of the label of a request without an answer.
pub(super) const NO_ANSWER: usize = LABELS - 1;

/// The index of the label of each status from 0 to 599. A status below 100 has the label of 5xx.
static PLACES: [u8; 600] = {
    let mut places = [0; 600];
    let mut status = 0;
    while status < 600 {
        let class = if status < 100 { 5 } else { status / 100 };
        places[status] = (STATUSES.len() + class - 1) as u8;
        status += 1;
    }
    let mut place = 0;
    while place < STATUSES.len() {
        places[STATUSES[place].0 as usize] = place as u8;
        place += 1;
    }
    places
};

/// Returns the index of a status's label. An invalid status counts as 5xx: its sender is broken.
pub(super) fn place(status: u16) -> usize {
    PLACES.get(usize::from(status)).map_or(NO_ANSWER - 1, |place| usize::from(*place))
}

/// Returns the label at an index.
pub(super) fn label(place: usize) -> &'static str {
    match STATUSES.get(place) {
        Some((_, label)) => label,
        None => CLASSES.get(place - STATUSES.len()).copied().unwrap_or("error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_a_bounded_set_of_labels() {
        let labels: std::collections::BTreeSet<_> = (0..=u16::MAX).map(|status| label(place(status))).collect();
        assert_eq!(labels.len(), STATUSES.len() + CLASSES.len());
        for (status, expected) in [
            (100, "1xx"),
            (200, "200"),
            (299, "2xx"),
            (307, "3xx"),
            (418, "4xx"),
            (501, "5xx"),
            (0, "5xx"),
            (999, "5xx"),
        ] {
            assert_eq!(label(place(status)), expected);
        }
        for (status, expected) in STATUSES {
            assert_eq!((label(place(status)), expected), (expected, status.to_string().as_str()));
        }
        assert_eq!(label(NO_ANSWER), "error");
    }
}
