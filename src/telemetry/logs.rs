//! The access log and the diagnostics.
//!
//! Invariants: a request never waits for a log (a line that finds no room is dropped and counted); every line has
//! passed the scrubber before it is written; what was logged before [`LogWriter`] is dropped is written, if the sink
//! takes it.

use parking_lot::{Mutex, MutexGuard};
use std::cell::RefCell;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime};

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use uuid::Uuid;

use crate::base::clock::Clock;
use crate::base::name::TenantName;
use crate::iluma::route_name::RouteName;
use crate::telemetry::CacheOutcome;
use crate::telemetry::redact::Redactor;

/// What one thread may have waiting: some 800 lines, a second's worth of a busy thread at ten wake-ups a second.
const ROOM: usize = 256 * 1024;

/// The longest line without its two texts (method and reason): the keys are 181 bytes, the values 310 at most.
const LONGEST: usize = 544;

/// How long a line waits before it is written, at most.
const PERIOD: Duration = Duration::from_millis(100);

/// How much is collected before it is written, at most; a write of this size costs next to nothing per line.
const BATCH: usize = 1024 * 1024;

/// How long the end waits for a sink that does not take what is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the access log says about a request. Nothing else gets in: no path, no header, no body.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request came.
    pub time: SystemTime,
    /// The request's id, as in the header `x-request-id`.
    pub request_id: Uuid,
    /// Who asked, if the key was known.
    pub tenant: Option<&'a TenantName>,
    /// The row of the route table.
    pub route: RouteName,
    /// The method, from the fixed list of those that routes know.
    pub method: &'static str,
    /// The status of the answer; 499 if the caller hung up before.
    pub status: u16,
    /// What the cache did.
    pub cache: CacheOutcome,
    /// From the request's head to the last byte of the answer.
    pub duration: Duration,
    /// What of it was spent waiting for upstream.
    pub upstream_duration: Option<Duration>,
    /// What of it was spent waiting for Redis.
    pub redis_duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Upstream's status, if it was asked and answered.
    pub upstream_status: Option<u16>,
    /// Why the gateway itself refused, as in the header `x-gateway-error`.
    pub reason: Option<&'static str>,
}

/// One JSON line per request. Cheap to clone, never blocks, never fails.
#[derive(Clone, Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

/// Writes what [`AccessLog`] was given. Dropping it writes what is left and ends the log.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    done: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    /// Tells the logs of one process apart (tests have several).
    id: u64,
    seats: Mutex<Seats>,
    dropped: AtomicU64,
    closing: AtomicBool,
    writer: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct Seats {
    pages: Vec<Arc<Mutex<Page>>>,
    closed: bool,
}

/// The lines of one thread that wait for the writer.
#[derive(Debug, Default)]
struct Page {
    lines: Vec<u8>,
    closed: bool,
}

impl AccessLog {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(out: Box<dyn Write + Send>, redactor: Redactor) -> io::Result<(Self, LogWriter)> {
        Self::start_with(out, redactor, PERIOD)
    }

    fn start_with(out: Box<dyn Write + Send>, redactor: Redactor, period: Duration) -> io::Result<(Self, LogWriter)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let shared = Arc::new(Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            seats: Mutex::default(),
            dropped: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            writer: OnceLock::new(),
        });
        let (end, done) = sync_channel(1);
        let pen = Pen { shared: shared.clone(), out, redactor, period, line: Vec::new(), batch: Vec::new(), lines: 0 };
        let thread = thread::Builder::new().name("access-log".into()).spawn(move || pen.run(&end))?;
        // Only set here, so it is empty.
        let _ = shared.writer.set(thread.thread().clone());
        Ok((Self { shared: shared.clone() }, LogWriter { shared, thread: Some(thread), done }))
    }

    /// Logs a request. Takes about a tenth of a microsecond.
    pub fn write(&self, record: &Record<'_>) {
        let kept = SEAT.try_with(|seat| {
            let mut seat = seat.try_borrow_mut().ok()?;
            let seat = match &mut *seat {
                Some(seat) if seat.log == self.shared.id => seat,
                other => other.insert(self.shared.seat()?),
            };
            seat.write(record, &self.shared)
        });
        if !matches!(kept, Ok(Some(()))) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were lost: they found no room, the log had ended, or the sink did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl LogWriter {
    /// Writes everything that was logged before and ends the log, as dropping does. Waits five seconds at most.
    pub fn finish(self) {}
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.closing.store(true, Ordering::Release);
        thread.thread().unpark();
        // A sink that takes nothing must not keep the process from ending.
        if self.done.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn seat(&self) -> Option<Seat> {
        let mut seats = lock(&self.seats);
        if seats.closed {
            return None;
        }
        let page = Arc::default();
        seats.pages.push(Arc::clone(&page));
        Some(Seat { log: self.id, page, second: u64::MAX, stamp: [0; STAMP] })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole after every step, so a panic elsewhere leaves nothing broken.
    mutex.lock()
}

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// A thread's place in a log. When the thread ends its page has one owner left, the writer, and is given up.
struct Seat {
    log: u64,
    page: Arc<Mutex<Page>>,
    /// The second that `stamp` shows, since 1970.
    second: u64,
    stamp: [u8; STAMP],
}

impl Seat {
    fn write(&mut self, record: &Record<'_>, shared: &Shared) -> Option<()> {
        let since = record.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            self.stamp = stamp(self.second);
        }
        let mut page = lock(&self.page);
        let before = page.lines.len();
        let need = LONGEST + record.method.len() + record.reason.map_or(0, str::len);
        if page.closed || before + need > ROOM {
            return None;
        }
        line(&mut page.lines, record, &self.stamp, since.subsec_millis());
        let half_full = before < ROOM / 2 && page.lines.len() >= ROOM / 2;
        drop(page);
        if half_full && let Some(writer) = shared.writer.get() {
            writer.unpark();
        }
        Some(())
    }
}

fn line(out: &mut Vec<u8>, record: &Record<'_>, stamp: &[u8; STAMP], millis: u32) {
    let mut numbers = itoa::Buffer::new();
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamp);
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis)]);
    out.extend_from_slice(b"Z\",\"request_id\":\"");
    out.extend_from_slice(record.request_id.hyphenated().encode_lower(&mut id).as_bytes());
    match record.tenant {
        Some(tenant) => {
            out.extend_from_slice(b"\",\"tenant\":\"");
            out.extend_from_slice(tenant.as_str().as_bytes());
            out.extend_from_slice(b"\",\"route\":\"");
        }
        None => out.extend_from_slice(b"\",\"tenant\":null,\"route\":\""),
    }
    out.extend_from_slice(record.route.as_str().as_bytes());
    out.extend_from_slice(b"\",\"method\":\"");
    word(out, record.method);
    out.extend_from_slice(b"\",\"status\":");
    out.extend_from_slice(numbers.format(record.status).as_bytes());
    out.extend_from_slice(b",\"cache\":\"");
    out.extend_from_slice(record.cache.as_str().as_bytes());
    out.extend_from_slice(b"\",\"duration_us\":");
    out.extend_from_slice(numbers.format(micros(record.duration)).as_bytes());
    if let Some(duration) = record.upstream_duration {
        out.extend_from_slice(b",\"upstream_us\":");
        out.extend_from_slice(numbers.format(micros(duration)).as_bytes());
    }
    if !record.redis_duration.is_zero() {
        out.extend_from_slice(b",\"redis_us\":");
        out.extend_from_slice(numbers.format(micros(record.redis_duration)).as_bytes());
    }
    out.extend_from_slice(b",\"request_bytes\":");
    out.extend_from_slice(numbers.format(record.request_bytes).as_bytes());
    out.extend_from_slice(b",\"response_bytes\":");
    out.extend_from_slice(numbers.format(record.response_bytes).as_bytes());
    if let Some(status) = record.upstream_status {
        out.extend_from_slice(b",\"upstream_status\":");
        out.extend_from_slice(numbers.format(status).as_bytes());
    }
    if let Some(reason) = record.reason {
        out.extend_from_slice(b",\"reason\":\"");
        word(out, reason);
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
}

/// A text of the program's own that goes between quotes as it is.
fn word(out: &mut Vec<u8>, text: &'static str) {
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.push(b'?');
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

/// The length of `2026-11-23T09:15:00`.
const STAMP: usize = 19;

/// A second since 1970 as the beginning of an RFC 3339 timestamp in UTC.
fn stamp(second: u64) -> [u8; STAMP] {
    let (days, rest) = (second / 86_400, second % 86_400);
    // The civil calendar from a count of days: years begin in March, so that the leap day is their last, and 400 of
    // them have 146 097 days. 719 468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, wrapped) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = (era * 400 + year + wrapped).min(9999);
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, number: u64| {
        text[at] = digit((number / 10) as u32);
        text[at + 1] = digit((number % 10) as u32);
    };
    put(0, year / 100);
    put(2, year % 100);
    put(5, month);
    put(8, day);
    put(11, rest / 3600);
    put(14, rest / 60 % 60);
    put(17, rest % 60);
    text
}

/// The writer's thread.
struct Pen {
    shared: Arc<Shared>,
    out: Box<dyn Write + Send>,
    redactor: Redactor,
    period: Duration,
    line: Vec<u8>,
    batch: Vec<u8>,
    /// Lines in `batch`.
    lines: u64,
}

impl Pen {
    fn run(mut self, end: &SyncSender<()>) {
        let mut taken = Vec::new();
        let mut free = Vec::new();
        loop {
            let last = self.shared.closing.load(Ordering::Acquire);
            self.take(last, &mut taken, &mut free);
            for mut lines in taken.drain(..) {
                self.copy(&lines);
                lines.clear();
                free.push(lines);
            }
            self.send();
            if last {
                let _ = end.try_send(());
                return;
            }
            thread::park_timeout(self.period);
        }
    }

    /// Takes every page's lines and leaves an empty buffer with the room of an earlier one.
    fn take(&self, last: bool, taken: &mut Vec<Vec<u8>>, free: &mut Vec<Vec<u8>>) {
        let mut seats = lock(&self.shared.seats);
        seats.closed |= last;
        seats.pages.retain(|shared| {
            // Asked before the lines are taken: with one owner nobody is left who could add to them.
            let ended = Arc::strong_count(shared) == 1;
            let mut page = lock(shared);
            page.closed |= last;
            if !page.lines.is_empty() {
                taken.push(std::mem::replace(&mut page.lines, free.pop().unwrap_or_default()));
            }
            !ended
        });
        // Threads that ended leave their buffers; no more are kept than there are threads.
        free.truncate(seats.pages.len());
    }

    fn copy(&mut self, lines: &[u8]) {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', lines) {
            self.line.clear();
            self.line.extend_from_slice(&lines[from..=end]);
            self.redactor.scrub(&mut self.line);
            self.batch.extend_from_slice(&self.line);
            self.lines += 1;
            from = end + 1;
            if self.batch.len() >= BATCH {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        if self.lines == 0 {
            return;
        }
        if self.out.write_all(&self.batch).and_then(|()| self.out.flush()).is_err() {
            self.shared.dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.batch.clear();
        self.lines = 0;
    }
}

/// Sends diagnostics to standard error as JSON lines, and panics with their place alone (their message may quote
/// what a caller sent). The environment variable `RUST_LOG` overrides `level`; other crates than this one are capped
/// at `warn` whatever it says. Returns whether it did: where a subscriber is set already, everything stays as it is.
pub fn diagnostics(level: tracing::Level, redactor: Redactor) -> bool {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let subscriber =
        subscriber(level, directives.as_deref(), Scrubbing { redactor: redactor.clone(), out: io::stderr });
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return false;
    }
    panic::set_hook(Box::new(move |panic| {
        let mut line = panic_line(Clock::system().wall(), panic.location());
        redactor.scrub(&mut line);
        let _ = io::stderr().lock().write_all(&line);
    }));
    true
}

fn subscriber<M>(level: tracing::Level, directives: Option<&str>, out: M) -> impl Subscriber + Send + Sync
where
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = directives
        .filter(|directives| !directives.is_empty())
        .and_then(|directives| EnvFilter::builder().parse(directives).ok())
        .unwrap_or_else(|| EnvFilter::default().add_directive(level.into()));
    let cap = Targets::new().with_target("iluma_gateway", LevelFilter::TRACE).with_default(LevelFilter::WARN);
    let lines = tracing_subscriber::fmt::layer().json().with_writer(out).log_internal_errors(false);
    tracing_subscriber::registry().with(lines.with_filter(wanted.and(cap)))
}

fn panic_line(time: SystemTime, place: Option<&panic::Location<'_>>) -> Vec<u8> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let stamp = stamp(since.as_secs());
    let line = serde_json::json!({
        "timestamp": format!("{}.{:03}Z", String::from_utf8_lossy(&stamp), since.subsec_millis()),
        "level": "ERROR",
        "target": "iluma_gateway",
        "fields": {
            "message": "panic",
            "file": place.map(panic::Location::file),
            "line": place.map(panic::Location::line),
        },
    });
    format!("{line}\n").into_bytes()
}

/// Scrubs each line on its way to `out`.
struct Scrubbing<F> {
    redactor: Redactor,
    out: F,
}

struct ScrubbedLine<'a, W> {
    redactor: &'a Redactor,
    out: W,
}

impl<'a, W: Write + 'a, F: Fn() -> W> MakeWriter<'a> for Scrubbing<F> {
    type Writer = ScrubbedLine<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        ScrubbedLine { redactor: &self.redactor, out: (self.out)() }
    }
}

impl<W: Write> Write for ScrubbedLine<'_, W> {
    /// Called once per event, with the whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut clean = line.to_vec();
        self.redactor.scrub(&mut clean);
        self.out.write_all(&clean)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Condvar;

    use super::*;

    /// A sink that tests can read, stop and break.
    #[derive(Clone, Default)]
    struct Sink(Arc<(Mutex<SinkState>, Condvar)>);

    #[derive(Default)]
    struct SinkState {
        bytes: Vec<u8>,
        stopped: bool,
        broken: bool,
        writes: usize,
    }

    impl Sink {
        fn set(&self, change: impl FnOnce(&mut SinkState)) {
            change(&mut self.0.0.lock());
            self.0.1.notify_all();
        }

        fn wait_for(&self, what: impl Fn(&SinkState) -> bool) {
            self.0.1.wait_while(&mut self.0.0.lock(), |state| !what(state));
        }

        fn text(&self) -> String {
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

    fn start(sink: &Sink) -> (AccessLog, LogWriter) {
        AccessLog::start(Box::new(sink.clone()), Redactor::new(Vec::new())).unwrap()
    }

    fn record(tenant: Option<&TenantName>) -> Record<'_> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_416_716_007),
            request_id: "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse().unwrap(),
            tenant,
            route: RouteName::Bank,
            method: "POST",
            status: 200,
            cache: CacheOutcome::Hit,
            duration: Duration::from_nanos(15_999),
            upstream_duration: None,
            redis_duration: Duration::ZERO,
            request_bytes: 143,
            response_bytes: 412,
            upstream_status: None,
            reason: None,
        }
    }

    #[test]
    fn a_line_has_the_fields_of_its_record_and_nothing_else() {
        let (sink, tenant) = (Sink::default(), "lending".parse().unwrap());
        let (log, writer) = start(&sink);
        log.write(&record(Some(&tenant)));
        log.write(&Record {
            status: 429,
            cache: CacheOutcome::None,
            duration: Duration::from_secs(12),
            upstream_duration: Some(Duration::from_micros(11_234_567)),
            redis_duration: Duration::from_micros(812),
            response_bytes: 123_456_789,
            upstream_status: Some(503),
            reason: Some("rate_limited"),
            ..record(None)
        });
        writer.finish();
        assert_eq!(
            sink.text(),
            concat!(
                r#"{"time":"2026-11-23T06:51:56.007Z","request_id":"3f2504e0-4f89-41d3-9a0c-0305e82c3301","#,
                r#""tenant":"lending","route":"bank","method":"POST","status":200,"cache":"hit","duration_us":15,"#,
                r#""request_bytes":143,"response_bytes":412}"#,
                "\n",
                r#"{"time":"2026-11-23T06:51:56.007Z","request_id":"3f2504e0-4f89-41d3-9a0c-0305e82c3301","#,
                r#""tenant":null,"route":"bank","method":"POST","status":429,"cache":"-","duration_us":12000000,"#,
                r#""upstream_us":11234567,"redis_us":812,"request_bytes":143,"response_bytes":123456789,"upstream_status":503,"#,
                r#""reason":"rate_limited"}"#,
                "\n",
            )
        );
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn the_longest_line_fits_the_room_that_is_kept_for_it() {
        let tenant = "t".repeat(32).parse().unwrap();
        let most = Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 100),
            status: u16::MAX,
            route: RouteName::CallbackToken,
            cache: CacheOutcome::Collapsed,
            duration: Duration::MAX,
            upstream_duration: Some(Duration::MAX),
            redis_duration: Duration::MAX,
            request_bytes: u64::MAX,
            response_bytes: u64::MAX,
            upstream_status: Some(u16::MAX),
            reason: Some("\"not a word\""),
            ..record(Some(&tenant))
        };
        let mut out = Vec::new();
        line(&mut out, &most, &stamp(u64::from(u32::MAX) * 100), 999);
        assert!(out.len() <= LONGEST, "{}", out.len());
        assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    }

    #[test]
    fn every_line_passes_the_scrubber() {
        let (sink, tenant) = (Sink::default(), "team-081234567890".parse().unwrap());
        let redactor = Redactor::new(Vec::new());
        let (log, writer) = AccessLog::start(Box::new(sink.clone()), redactor.clone()).unwrap();
        log.write(&record(Some(&tenant)));
        writer.finish();
        assert!(sink.text().contains(r#""tenant":"team-[redacted]""#), "{}", sink.text());
        assert_eq!(redactor.total(), 1);
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_counted() {
        let sink = Sink::default();
        sink.set(|state| state.stopped = true);
        let (log, writer) = start(&sink);
        log.write(&record(None));
        sink.wait_for(|state| state.writes > 0);
        // The writer hangs in the sink; this thread's page takes what it has room for.
        for _ in 0..2000 {
            log.write(&record(None));
        }
        let dropped = log.dropped();
        assert!((500..1900).contains(&dropped), "{dropped}");
        sink.set(|state| state.stopped = false);
        writer.finish();
        assert_eq!(sink.text().lines().count() as u64, 2001 - dropped);
        log.write(&record(None));
        assert_eq!(log.dropped(), dropped + 1, "a line after the end is lost");
    }

    #[test]
    fn a_broken_sink_counts_what_it_lost() {
        let sink = Sink::default();
        sink.set(|state| state.broken = true);
        let (log, writer) = start(&sink);
        log.write(&record(None));
        log.write(&record(None));
        writer.finish();
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn a_half_full_page_wakes_the_writer() {
        let sink = Sink::default();
        let hour = Duration::from_secs(3600);
        let (log, _writer) = AccessLog::start_with(Box::new(sink.clone()), Redactor::new(Vec::new()), hour).unwrap();
        for _ in 0..ROOM / 2 / 200 {
            log.write(&record(None));
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
                thread::spawn(move || (0..500).for_each(|_| log.write(&record(None))))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        sink.wait_for(|state| memchr::memchr_iter(b'\n', &state.bytes).count() == 4000);
        // Each thread is struck off with the wake-up after its end.
        while !lock(&log.shared.seats).pages.is_empty() {
            writer.thread.as_ref().unwrap().thread().unpark();
            thread::yield_now();
        }
        writer.finish();
        assert!(sink.text().lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn one_thread_may_write_to_two_logs() {
        let (one, two) = (Sink::default(), Sink::default());
        let ((log_one, writer_one), (log_two, writer_two)) = (start(&one), start(&two));
        for _ in 0..10 {
            log_one.write(&record(None));
            log_two.write(&record(None));
        }
        drop((writer_one, writer_two));
        assert_eq!((one.text().lines().count(), two.text().lines().count()), (10, 10));
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
        ] {
            assert_eq!(std::str::from_utf8(&stamp(second)).unwrap(), text);
        }
    }

    /// What of some events reaches the log.
    fn diagnosed(directives: Option<&str>) -> String {
        let sink = Sink::default();
        let out = {
            let sink = sink.clone();
            Scrubbing { redactor: Redactor::new(Vec::new()), out: move || sink.clone() }
        };
        tracing::subscriber::with_default(subscriber(tracing::Level::INFO, directives, out), || {
            tracing::info!(target: "iluma_gateway::cache", account = 1_234_567_890_u64, "for siti@example.com");
            tracing::debug!(target: "iluma_gateway::cache", "own debug");
            tracing::warn!(target: "hyper", "foreign warning");
            tracing::info!(target: "hyper", "foreign info");
        });
        sink.text()
    }

    #[test]
    fn diagnostics_are_scrubbed_and_foreign_ones_capped() {
        let text = diagnosed(None);
        assert!(text.contains(r#""message":"for [redacted]""#) && text.contains(r#""account":"[redacted]""#), "{text}");
        assert!(text.contains("foreign warning") && text.contains(r#""timestamp":"2"#), "{text}");
        assert!(!text.contains("foreign info") && !text.contains("own debug"), "{text}");
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));

        let text = diagnosed(Some("trace"));
        assert!(text.contains("own debug") && !text.contains("foreign info"), "{text}");
        let text = diagnosed(Some("hyper=trace"));
        assert!(text.contains("foreign warning") && !text.contains("foreign info") && !text.contains("siti"), "{text}");
        assert!(diagnosed(Some("a=b=c")).contains("foreign warning"), "what cannot be read counts as not set");
    }

    #[test]
    fn diagnostics_are_installed_once() {
        let _ = diagnostics(tracing::Level::WARN, Redactor::new(Vec::new()));
        assert!(!diagnostics(tracing::Level::WARN, Redactor::new(Vec::new())));
    }

    #[test]
    fn a_panic_tells_its_place_alone() {
        let line = panic_line(SystemTime::UNIX_EPOCH, Some(panic::Location::caller()));
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["fields"]["message"], "panic");
        assert_eq!(line["fields"]["file"], "src/telemetry/logs.rs");
        assert!(line["fields"]["line"].is_number());
    }
}
