//! Errors of a call to Iluma that has no whole answer.

/// The error of a call without a whole answer: the outcome of the request, as far as it is known. The status at the end
/// of each comment is the one that the team gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection could be made: nothing was sent. The status is 503.
    #[error("Iluma cannot be reached; nothing was sent. Try again.")]
    Unreachable,
    /// Iluma proved that it processed nothing of the request, and the request could not be sent again here. The proof
    /// is REFUSED_STREAM, or a GOAWAY with a lower stream id (RFC 9113, sections 6.8 and 8.7). The status is 503.
    #[error("Iluma refused the request before processing any of it; it was not charged. Try again.")]
    NotProcessed,
    /// The request was sent, and no answer came in time: its outcome is unknown. The status is 504.
    #[error("Iluma did not answer in time; whether Iluma acted on the request is unknown")]
    TimedOut,
    /// The request was sent, and the connection broke before the answer: its outcome is unknown. The status is 504.
    #[error("Iluma closed the connection without an answer; whether Iluma acted on the request is unknown")]
    Broken,
    /// The request was sent, and the answer is not HTTP, or not in the encoding that it names. The status is 504.
    #[error("Iluma's answer cannot be understood; whether Iluma acted on the request is unknown")]
    Garbled,
    /// The request was sent, and its answer ended early. The status is 504.
    #[error("Iluma's answer was cut off; whether Iluma acted on the request is unknown")]
    Truncated,
    /// The request was sent, and Iluma's answer, which is read whole, has more than 8 MiB. The status is 504.
    #[error("Iluma's answer is too large to be read; whether Iluma acted on the request is unknown")]
    TooLarge,
    /// The client stopped sending its body: Iluma received a part of it, without an end. The status is 408.
    #[error("the request body did not arrive in time")]
    ClientTooSlow,
    /// The client's body was cut off: Iluma received a part of it, without an end. The status is 400, which the
    /// client probably does not read.
    #[error("the request body was cut off")]
    ClientCutOff,
}

impl CallError {
    /// Returns the number that names the error in data that nodes share. It stays the same in all versions.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Unreachable => 1,
            Self::TimedOut => 2,
            Self::Broken => 3,
            Self::Garbled => 4,
            Self::Truncated => 5,
            Self::TooLarge => 6,
            Self::ClientTooSlow => 7,
            Self::ClientCutOff => 8,
            Self::NotProcessed => 9,
        }
    }

    /// Returns the error of a number. An unknown number, from a later version, is `Broken`.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unreachable,
            2 => Self::TimedOut,
            4 => Self::Garbled,
            5 => Self::Truncated,
            6 => Self::TooLarge,
            7 => Self::ClientTooSlow,
            8 => Self::ClientCutOff,
            9 => Self::NotProcessed,
            _ => Self::Broken,
        }
    }

    /// Returns true if Iluma certainly processed nothing of the request. Such a call counts neither in the ledger nor
    /// in the limits.
    #[must_use]
    pub const fn is_unprocessed(self) -> bool {
        match self {
            Self::Unreachable | Self::NotProcessed => true,
            Self::TimedOut
            | Self::Broken
            | Self::Garbled
            | Self::Truncated
            | Self::TooLarge
            | Self::ClientTooSlow
            | Self::ClientCutOff => false,
        }
    }

    /// Returns true if the error is Iluma's fault, which the circuit breaker counts.
    #[must_use]
    pub const fn is_upstreams_fault(self) -> bool {
        match self {
            // A refusal that proves "not processed" is orderly: a restart, or too many streams.
            Self::NotProcessed | Self::ClientTooSlow | Self::ClientCutOff => false,
            Self::Unreachable | Self::TimedOut | Self::Broken | Self::Garbled | Self::Truncated | Self::TooLarge => {
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_number_of_its_own_and_a_newer_one_is_a_broken_call() {
        for number in 1..=9 {
            assert_eq!(CallError::from_number(number).number(), number);
        }
        assert_eq!(CallError::from_number(0), CallError::Broken);
        assert_eq!(CallError::from_number(200), CallError::Broken);
    }
}
