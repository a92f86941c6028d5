//! Passes lines to a sink that may be slow, stuck or closed.
//!
//! Invariants: adding a line never waits for the sink; each thread has a bounded page of waiting lines; lines without
//! room, and lines that the sink refuses, are counted; each line passes the scrubber.

use parking_lot::Mutex;
use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crate::base::clock::Clock;
use crate::telemetry::redact::Redactor;

/// The largest number of bytes that wait in the page of one thread: some 800 lines. A busy thread logs this number of
/// lines in a second, and the writer wakes ten times a second.
pub(super) const ROOM: usize = 256 * 1024;

/// The interval at which the writer wakes, and so the longest time that a line waits for it.
pub(super) const PERIOD: Duration = Duration::from_millis(100);

/// The number of bytes after which a batch is written. A write of this size costs next to nothing for each line.
const BATCH: usize = 1024 * 1024;

/// The longest time for which the end of a log waits for a sink that accepts no bytes.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A function that appends the writer's own lines to a buffer. Its first argument is true at the end of the log.
pub(super) type Tick = Box<dyn FnMut(bool, &mut Vec<u8>) + Send>;

/// A bounded channel to a sink. It drops lines that find no room, and counts them. Clones share the channel.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

/// Writes the lines of one log. Dropping it writes the remaining lines and ends the log.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    done: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    /// The number that distinguishes the logs of one process: a process has two logs, and tests have more.
    id: u64,
    pages: Mutex<Pages>,
    dropped: AtomicU64,
    closing: AtomicBool,
    writer: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct Pages {
    open: Vec<Arc<Mutex<Page>>>,
    closed: bool,
}

/// The waiting lines of one thread.
#[derive(Debug, Default)]
struct Page {
    lines: Vec<u8>,
    closed: bool,
}

impl Lines {
    /// Starts a thread with this name, which writes lines to `out` and wakes at least once in each `period`. `tick`
    /// adds the writer's own lines.
    ///
    /// # Errors
    /// Returns an error if the system can't start a thread.
    pub(super) fn start(
        name: &str,
        out: Box<dyn Write + Send>,
        redactor: Redactor,
        period: Duration,
        tick: Option<Tick>,
    ) -> io::Result<(Self, LogWriter)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let shared = Arc::new(Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            pages: Mutex::default(),
            dropped: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            writer: OnceLock::new(),
        });
        let (end, done) = sync_channel(1);
        let batch = Batch { shared: shared.clone(), out, redactor, line: Vec::new(), bytes: Vec::new(), lines: 0 };
        let thread = thread::Builder::new().name(name.into()).spawn(move || batch.run(period, tick, &end))?;
        // The writer is set only here, so this can't fail.
        let _ = shared.writer.set(thread.thread().clone());
        Ok((Self { shared: shared.clone() }, LogWriter { shared, thread: Some(thread), done }))
    }

    /// Adds the line that `fill` appends to the buffer, including its newline. The line has at most `most` bytes. If
    /// there is no room for this number, the line is dropped and counted.
    pub(super) fn push(&self, most: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let kept = OPEN.try_with(|open| {
            let mut open = open.try_borrow_mut().ok()?;
            let place = match open.iter().position(|page| page.log == self.shared.id) {
                Some(place) => place,
                None => {
                    // A log that has ended accepts no more lines of this thread.
                    open.retain(|page| !page.page.lock().closed);
                    open.push(self.shared.page()?);
                    open.len() - 1
                }
            };
            open[place].add(most, fill, &self.shared)
        });
        if !matches!(kept, Ok(Some(()))) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of lost lines: there was no room for them, the log had ended, or the sink refused them.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl LogWriter {
    /// Writes all logged lines and ends the log, as dropping does. Waits five seconds at most.
    pub fn finish(self) {}

    /// Ends several logs. Together they wait five seconds at most.
    pub fn finish_all(writers: impl IntoIterator<Item = Self>) {
        let mut writers: Vec<Self> = writers.into_iter().collect();
        writers.iter().for_each(Self::close);
        let clock = Clock::system();
        let end = clock.now() + TIMEOUT;
        for writer in &mut writers {
            writer.wait(end.saturating_duration_since(clock.now()));
        }
    }

    /// Returns a function that reads the number of lines that this log has lost.
    pub fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.dropped.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Waits until the writer's thread ends, but at most for the time `most`, so that a stuck sink can't keep the
    /// process from ending.
    fn wait(&mut self, most: Duration) {
        let Some(thread) = self.thread.take() else { return };
        if self.done.recv_timeout(most) != Err(RecvTimeoutError::Timeout) {
            let _ = thread.join();
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.close();
        self.wait(TIMEOUT);
    }
}

impl Shared {
    fn page(&self) -> Option<OwnPage> {
        let mut pages = self.pages.lock();
        if pages.closed {
            return None;
        }
        let page = Arc::default();
        pages.open.push(Arc::clone(&page));
        Some(OwnPage { log: self.id, page })
    }
}

thread_local! {
    /// The thread's page in each log that it has written to.
    static OPEN: RefCell<Vec<OwnPage>> = const { RefCell::new(Vec::new()) };
}

/// A thread's page in a log. After the end of the thread, only the writer owns the page, and removes it.
struct OwnPage {
    log: u64,
    page: Arc<Mutex<Page>>,
}

impl OwnPage {
    fn add(&self, most: usize, fill: impl FnOnce(&mut Vec<u8>), shared: &Shared) -> Option<()> {
        let mut page = self.page.lock();
        let before = page.lines.len();
        if page.closed || before + most > ROOM {
            return None;
        }
        fill(&mut page.lines);
        let half_full = before < ROOM / 2 && page.lines.len() >= ROOM / 2;
        drop(page);
        if half_full && let Some(writer) = shared.writer.get() {
            writer.unpark();
        }
        Some(())
    }
}

/// The lines that the writer's thread writes next.
struct Batch {
    shared: Arc<Shared>,
    out: Box<dyn Write + Send>,
    redactor: Redactor,
    line: Vec<u8>,
    bytes: Vec<u8>,
    /// The number of lines in `bytes`.
    lines: u64,
}

impl Batch {
    fn run(mut self, period: Duration, mut tick: Option<Tick>, end: &SyncSender<()>) {
        let (mut taken, mut free, mut own) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let last = self.shared.closing.load(Ordering::Acquire);
            self.take(last, &mut taken, &mut free);
            for mut lines in taken.drain(..) {
                self.copy(&lines);
                lines.clear();
                free.push(lines);
            }
            if let Some(tick) = &mut tick {
                tick(last, &mut own);
                self.copy(&own);
                own.clear();
            }
            self.send();
            if last {
                let _ = end.try_send(());
                return;
            }
            thread::park_timeout(period);
        }
    }

    /// Moves the lines of every page to `taken`, and gives the page an empty buffer from `free`. If `last` is true, it
    /// also closes the pages.
    fn take(&self, last: bool, taken: &mut Vec<Vec<u8>>, free: &mut Vec<Vec<u8>>) {
        let mut pages = self.shared.pages.lock();
        pages.closed |= last;
        pages.open.retain(|shared| {
            // This is checked before the lines are taken: a page with one owner gets no further lines.
            let ended = Arc::strong_count(shared) == 1;
            let mut page = shared.lock();
            page.closed |= last;
            if !page.lines.is_empty() {
                taken.push(std::mem::replace(&mut page.lines, free.pop().unwrap_or_default()));
            }
            !ended
        });
        // Threads that ended leave their buffers; at most one for each live thread is kept.
        free.truncate(pages.open.len());
    }

    fn copy(&mut self, lines: &[u8]) {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', lines) {
            self.line.clear();
            self.line.extend_from_slice(&lines[from..=end]);
            self.redactor.scrub(&mut self.line);
            self.bytes.extend_from_slice(&self.line);
            self.lines += 1;
            from = end + 1;
            if self.bytes.len() >= BATCH {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        if self.lines == 0 {
            return;
        }
        if self.out.write_all(&self.bytes).and_then(|()| self.out.flush()).is_err() {
            self.shared.dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.bytes.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use parking_lot::Condvar;

    use super::*;

    /// A sink that tests can read, stop and break.
    #[derive(Clone, Default)]
    pub(in super::super) struct Sink(Arc<(Mutex<SinkState>, Condvar)>);

    #[derive(Default)]
    pub(in super::super) struct SinkState {
        pub(in super::super) bytes: Vec<u8>,
        pub(in super::super) stopped: bool,
        pub(in super::super) broken: bool,
        pub(in super::super) writes: usize,
    }

    impl Sink {
        pub(in super::super) fn set(&self, change: impl FnOnce(&mut SinkState)) {
            change(&mut self.0.0.lock());
            self.0.1.notify_all();
        }

        pub(in super::super) fn wait_for(&self, what: impl Fn(&SinkState) -> bool) {
            self.0.1.wait_while(&mut self.0.0.lock(), |state| !what(state));
        }

        pub(in super::super) fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().bytes.clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.set(|state| state.writes += 1);
            let mut state = self.0.0.lock();
            self.0.1.wait_while(&mut state, |state| state.stopped);
            if state.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            state.bytes.extend_from_slice(bytes);
            self.0.1.notify_all();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LINE: &[u8] = &{
        let mut line = [b'x'; 250];
        line[249] = b'\n';
        line
    };

    fn start(sink: &Sink) -> (Lines, LogWriter) {
        Lines::start("test", Box::new(sink.clone()), Redactor::new(Vec::new()), PERIOD, None).unwrap()
    }

    fn push(lines: &Lines) {
        lines.push(LINE.len(), |out| out.extend_from_slice(LINE));
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_counted() {
        let sink = Sink::default();
        sink.set(|state| state.stopped = true);
        let (log, writer) = start(&sink);
        push(&log);
        sink.wait_for(|state| state.writes > 0);
        // The writer hangs in the sink; this thread's page fills up.
        for _ in 0..2000 {
            push(&log);
        }
        let dropped = log.dropped();
        assert_eq!(dropped, 2000 - (ROOM / LINE.len()) as u64);
        assert_eq!(writer.dropped()(), dropped, "both count the same");
        sink.set(|state| state.stopped = false);
        writer.finish();
        assert_eq!(sink.text().lines().count() as u64, 2001 - dropped);
        push(&log);
        assert_eq!(log.dropped(), dropped + 1, "a line after the end is lost");
    }

    #[test]
    fn a_broken_sink_counts_what_it_lost() {
        let sink = Sink::default();
        sink.set(|state| state.broken = true);
        let (log, writer) = start(&sink);
        push(&log);
        push(&log);
        writer.finish();
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn several_stuck_sinks_are_waited_for_once() {
        let sinks = [Sink::default(), Sink::default(), Sink::default()];
        let writers: Vec<_> = sinks.iter().map(start).map(|(log, writer)| (push(&log), writer).1).collect();
        sinks.iter().for_each(|sink| sink.set(|state| state.stopped = true));
        let (clock, began) = (Clock::system(), Clock::system().now());
        LogWriter::finish_all(writers);
        let took = clock.now() - began;
        assert!(took < TIMEOUT * 2, "{took:?}");
        sinks.iter().for_each(|sink| sink.set(|state| state.stopped = false));
    }

    #[test]
    fn a_half_full_page_wakes_the_writer() {
        let sink = Sink::default();
        let hour = Duration::from_secs(3600);
        let (log, _writer) =
            Lines::start("test", Box::new(sink.clone()), Redactor::new(Vec::new()), hour, None).unwrap();
        for _ in 0..ROOM / 2 / LINE.len() + 1 {
            push(&log);
        }
        sink.wait_for(|state| !state.bytes.is_empty());
    }

    #[test]
    fn threads_write_whole_lines_and_leave_nothing_behind() {
        let sink = Sink::default();
        let (log, writer) = start(&sink);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || (0..500).for_each(|_| push(&log)))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        sink.wait_for(|state| memchr::memchr_iter(b'\n', &state.bytes).count() == 4000);
        // The page of each thread is removed at the next wake-up after the thread's end.
        while !log.shared.pages.lock().open.is_empty() {
            writer.thread.as_ref().unwrap().thread().unpark();
            thread::yield_now();
        }
        writer.finish();
        assert!(sink.text().lines().all(|line| line.len() == LINE.len() - 1));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn one_thread_writes_to_two_logs_with_one_page_in_each() {
        let (one, two) = (Sink::default(), Sink::default());
        let ((log_one, writer_one), (log_two, writer_two)) = (start(&one), start(&two));
        for _ in 0..10 {
            push(&log_one);
            push(&log_two);
        }
        assert_eq!([&log_one, &log_two].map(|log| log.shared.pages.lock().open.len()), [1, 1]);
        drop((writer_one, writer_two));
        assert_eq!((one.text().lines().count(), two.text().lines().count()), (10, 10));
    }

    #[test]
    fn the_writer_adds_lines_of_its_own_until_the_end() {
        let sink = Sink::default();
        let tick: Tick = Box::new(|last, out| out.extend_from_slice(if last { b"last\n" } else { b"tick\n" }));
        let (_log, writer) =
            Lines::start("test", Box::new(sink.clone()), Redactor::new(Vec::new()), PERIOD, Some(tick)).unwrap();
        sink.wait_for(|state| state.bytes.starts_with(b"tick\n"));
        writer.finish();
        assert!(sink.text().ends_with("tick\nlast\n"), "{}", sink.text());
    }
}
