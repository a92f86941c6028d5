//! An answer of Iluma's that was read whole, and parsed once.

use crate::iluma::answer::Answer;
use crate::iluma::person::Persons;
use crate::upstream::Collected;

/// An answer that was read whole: its original head and body, and the parsed content.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) collected: Collected,
    pub(super) answer: Answer,
}

impl Received {
    pub(super) fn new(collected: Collected, persons: &Persons) -> Self {
        let answer = Answer::parse(&collected.body, Some(persons));
        Self { collected, answer }
    }

    /// Returns true for a 2xx status.
    pub(super) fn is_success(&self) -> bool {
        self.collected.status.is_success()
    }
}
