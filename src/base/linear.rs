//! A check, for tests, that the time of some work is at most linear in the size of its input.

use cpu_time::ThreadTime;
use std::time::Duration;

/// The size of the small input, in bytes.
const SMALL: usize = 64 << 10;
/// The size of the large input, in bytes: 16 times the small one.
const LARGE: usize = 1 << 20;
/// The largest ratio of the two times. Linear work takes 16 times as long, and quadratic work 256 times.
const MOST: u32 = 40;

/// The shortest time that is compared: shorter times are noise of the clock.
const SHORTEST: Duration = Duration::from_micros(100);

/// The number of runs. The fastest run counts.
const RUNS: usize = 5;

/// Asserts that the CPU time of `work` is at most linear in the size of its input. `make` makes an input of a given
/// size.
pub(crate) fn assert_linear<T>(name: &str, make: impl Fn(usize) -> T, work: impl Fn(&T)) {
    let time = |input: &T| {
        let start = ThreadTime::now();
        work(input);
        start.elapsed()
    };
    let (small, large) = (make(SMALL), make(LARGE));
    let best = (0..RUNS).map(|_| time(&small)).min().unwrap_or_default().max(SHORTEST);
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        least = least.min(time(&large));
        if least <= best * MOST {
            return;
        }
    }
    panic!("{name}: 64 KiB take {best:?}, 1 MiB takes {least:?}, more than {MOST} times as long");
}

/// Returns a text of at most `size` bytes that repeats `piece` between `before` and `behind` as often as it fits.
pub(crate) fn repeated(before: &str, piece: &str, behind: &str, size: usize) -> String {
    let count = size.saturating_sub(before.len() + behind.len()) / piece.len();
    [before, &piece.repeat(count), behind].concat()
}
