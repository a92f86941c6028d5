//! The ends of calls in the journal: by their own answer, by the id of their record, or by its reference.

use super::charge::Outcome;
use super::journal::{self, By, Changes, OpenRow};
use super::references::{self, Known, Report};
use super::settlement::{Call, CallName, Closing, End, Rules};
use rusqlite::{Connection, OptionalExtension as _};

/// Ends the calls that a closing is about. Returns false if no call matched now, but a call whose answer is still to
/// come may match later.
pub(super) fn close(
    connection: &Connection,
    closing: &Closing,
    rules: Rules,
    changes: &mut Changes,
) -> rusqlite::Result<bool> {
    match closing.call {
        Call::Booked(number) => {
            let columns = OpenRow::COLUMNS;
            let mut find = connection.prepare_cached(&format!("SELECT {columns} FROM ledger_calls WHERE id = ?1"))?;
            let Some(row) = find.query_row([number], journal::open_row).optional()? else { return Ok(false) };
            end_own(connection, &row, closing, rules, changes)?;
            Ok(true)
        }
        Call::Named(name) => {
            let found = close_named(connection, name, closing.end, changes)?;
            if let (false, false, End::Outcome(outcome, _)) = (found, rules.is_alone, closing.end) {
                // A call of another node may have the name.
                references::note(connection, Report { name, reference: None, outcome }, rules)?;
            }
            Ok(found)
        }
        Call::NamedElsewhere(name) => {
            let found = close_named(connection, name, closing.end, changes)?;
            if let End::Outcome(outcome, _) = closing.end {
                // The reported outcome has settled the call, or the call was settled before.
                references::note_used(connection, name, closing.reference, outcome, rules)?;
            }
            Ok(found)
        }
        Call::Referenced(name, reference) => {
            let found = close_named(connection, name, closing.end, changes)?;
            let End::Outcome(outcome, _) = closing.end else { return Ok(true) };
            if found {
                // Another node may have got the same outcome, and would settle a lost call with it.
                references::note_used(connection, name, Some(reference), outcome, rules)?;
                return Ok(true);
            }
            references::note(connection, Report { name, reference: Some(reference), outcome }, rules)?;
            if rules.is_alone {
                references::pair(connection, reference, rules, changes)?;
            }
            Ok(rules.is_alone || outcome == Outcome::Unknown)
        }
        Call::Paired(name, call) => {
            journal::forget_name(connection, name)?;
            references::use_up(connection, name, rules)?;
            let lost = call.map_or(Ok(None), |call| journal::lost_call(connection, call, rules))?;
            if let (Some(lost), End::Outcome(outcome, _)) = (lost, closing.end) {
                references::settle(connection, &lost, (name, outcome), changes)?;
                // Redis may lose its newest writes. This tells it again that the outcome is used.
                references::note_used(connection, name, lost.reference, outcome, rules)?;
            }
            Ok(true)
        }
    }
}

/// Ends one call of the journal: by its own answer, by an operator's order, or as a call that was never sent.
fn end_own(
    connection: &Connection,
    row: &OpenRow,
    closing: &Closing,
    rules: Rules,
    changes: &mut Changes,
) -> rusqlite::Result<()> {
    let reference = closing.reference.or(row.reference);
    match closing.end {
        End::Withdrawn => journal::finish(connection, row, By::Withdrawal, changes)?,
        End::Outcome(outcome, name) => {
            let known = name.map_or(Ok(Known::Nothing), |name| references::own_answer(connection, name))?;
            // If the call or its process had ended before, the outcome is an operator's order.
            let is_report = closing.is_early || row.ended || row.id < rules.first_new;
            let is_said = closing.is_early || matches!(known, Known::Waiting(_));
            let (outcome, name, is_report) = match (outcome, known) {
                // A lost call was settled by the outcome of this record, so this call stays unknown in place of the
                // lost one.
                (_, Known::Used) => (Outcome::Unknown, None, is_report),
                (Outcome::Unknown, Known::Waiting(report)) => (report, name, true),
                (outcome, Known::Nothing | Known::Waiting(_)) => (outcome, name, is_report),
            };
            if let (Some(name), Some(_), true) = (name, reference, is_said) {
                references::note_used(connection, name, reference, outcome, rules)?;
            }
            match outcome {
                Outcome::Unknown => {
                    journal::leave_open(connection, row.id, (name, reference))?;
                    changes.end(row, Some(outcome));
                }
                Outcome::Billable | Outcome::NotBillable => {
                    let by = if is_report { By::Report(outcome) } else { By::Answer(outcome) };
                    journal::finish(connection, row, by, changes)?;
                }
            }
        }
    }
    match reference {
        Some(reference) if rules.is_alone => references::pair(connection, reference, rules, changes),
        Some(_) | None => Ok(()),
    }
}

/// Settles the calls whose record has this name. An unknown outcome changes nothing. Returns false if there are no such
/// calls.
pub(super) fn close_named(
    connection: &Connection,
    name: CallName,
    end: End,
    changes: &mut Changes,
) -> rusqlite::Result<bool> {
    let columns = OpenRow::COLUMNS;
    let mut find = connection.prepare_cached(&format!("SELECT {columns} FROM ledger_calls WHERE name = ?1"))?;
    let found: Vec<OpenRow> = find.query_map([name], journal::open_row)?.collect::<rusqlite::Result<_>>()?;
    for row in &found {
        match end {
            End::Outcome(Outcome::Unknown, _) => {}
            End::Outcome(outcome @ (Outcome::Billable | Outcome::NotBillable), _) => {
                journal::finish(connection, row, By::Report(outcome), changes)?;
            }
            End::Withdrawn => {}
        }
    }
    Ok(!found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::selection::Selection;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    const DAY: &str = "2026-11-25";

    /// A step of the model: an event of a call, a record or the process.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A call with one of a few references is booked; it may reach Iluma, which charges for it or not.
        Book { reference: u8, arrives: bool, billable: bool },
        /// A call in flight ends: its answer is lost, pending or final.
        End { which: usize, how: u8 },
        /// A callback or a GET gives the outcome of a record; it may repeat that later.
        Report { which: usize },
        /// The process is killed and starts again.
        Crash,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let book = (0..2_u8, any::<bool>(), any::<bool>());
        let step = prop_oneof![
            3 => book.prop_map(|(reference, arrives, billable)| Step::Book { reference, arrives, billable }),
            3 => (any::<usize>(), 0..3_u8).prop_map(|(which, how)| Step::End { which, how }),
            3 => any::<usize>().prop_map(|which| Step::Report { which }),
            1 => Just(Step::Crash),
        ];
        proptest::collection::vec(step, 1..40)
    }

    /// A call in the model. A call that arrived has made the record of its number.
    #[derive(Debug, Clone, Copy)]
    struct Made {
        reference: CallName,
        arrives: bool,
        billable: bool,
        in_flight: bool,
        /// True once an answer has named the record.
        answered: bool,
        /// True once its outcome was reported or answered.
        known: bool,
    }

    struct World {
        connection: Connection,
        rules: Rules,
        calls: BTreeMap<i64, Made>,
    }

    fn record(number: i64) -> CallName {
        let mut name = [7; 32];
        name[..8].copy_from_slice(&number.to_be_bytes());
        name
    }

    impl World {
        fn new() -> Self {
            let connection = Connection::open_in_memory().unwrap();
            journal::MIGRATIONS.iter().for_each(|migration| connection.execute_batch(migration).unwrap());
            let rules = Rules { first_new: 1, is_alone: true, now: 1, day: DAY.parse().unwrap() };
            Self { connection, rules, calls: BTreeMap::new() }
        }

        fn close(&self, call: Call, outcome: Outcome, name: Option<CallName>) {
            let closing = Closing { call, end: End::Outcome(outcome, name), reference: None, is_early: false };
            close(&self.connection, &closing, self.rules, &mut Changes::default()).unwrap();
        }

        fn take(&mut self, step: Step) {
            self.rules.now += 1;
            let in_flight: Vec<_> = self.calls.iter().filter(|(_, call)| call.in_flight).map(|(at, _)| *at).collect();
            let records: Vec<_> = self.calls.iter().filter(|(_, call)| call.arrives).map(|(at, _)| *at).collect();
            match step {
                Step::Book { reference, arrives, billable } => {
                    let (reference, now) = ([reference; 32], UNIX_EPOCH + Duration::from_millis(self.rules.now as u64));
                    let place = (DAY, "lending", "bank");
                    let links = (None, Some(reference));
                    let number = journal::book(&self.connection, place, 500, now, links).unwrap();
                    let (in_flight, answered, known) = (true, false, false);
                    self.calls.insert(number, Made { reference, arrives, billable, in_flight, answered, known });
                }
                Step::End { which, how } if !in_flight.is_empty() => {
                    self.end(in_flight[which % in_flight.len()], how);
                }
                Step::Report { which } if !records.is_empty() => self.report(records[which % records.len()]),
                Step::Crash => {
                    self.calls.values_mut().for_each(|call| call.in_flight = false);
                    self.rules.first_new = journal::first_new(&self.connection).unwrap();
                    references::pair_all(&self.connection, self.rules, &mut Changes::default()).unwrap();
                }
                Step::End { .. } | Step::Report { .. } => {}
            }
        }

        fn end(&mut self, number: i64, how: u8) {
            let call = self.calls.get_mut(&number).unwrap();
            call.in_flight = false;
            let outcome = if call.billable { Outcome::Billable } else { Outcome::NotBillable };
            let (outcome, name) = match how {
                1 if call.arrives => (Outcome::Unknown, Some(record(number))),
                2 if call.arrives => (outcome, Some(record(number))),
                _ => (Outcome::Unknown, None),
            };
            call.answered = name.is_some();
            call.known |= outcome != Outcome::Unknown;
            self.close(Call::Booked(number), outcome, name);
        }

        fn report(&mut self, number: i64) {
            let call = self.calls.get_mut(&number).unwrap();
            call.known = true;
            let outcome = if call.billable { Outcome::Billable } else { Outcome::NotBillable };
            let (name, reference) = (record(number), call.reference);
            let about = if call.answered { Call::Named(name) } else { Call::Referenced(name, reference) };
            self.close(about, outcome, None);
        }

        /// Returns the numbers of billable and of unknown calls in the journal.
        fn books(&self) -> (usize, usize) {
            let day = DAY.parse().unwrap();
            let rows = journal::rows(&self.connection, &Selection::days(day, day)).unwrap();
            let sum = |number: fn(&super::super::counts::Counts) -> u64| -> usize {
                rows.iter().map(|row| number(&row.counts) as usize).sum()
            };
            (sum(|counts| counts.billable), sum(|counts| counts.unknown))
        }

        fn count(&self, is_meant: impl Fn(&Made) -> bool) -> usize {
            self.calls.values().filter(|call| is_meant(call)).count()
        }
    }

    proptest! {
        #[test]
        fn the_books_have_what_was_said_and_answered_and_the_rest_is_unknown(steps in steps()) {
            let mut world = World::new();
            for step in steps {
                world.take(step);
                let (billable, unknown) = world.books();
                let charged = world.count(|call| call.arrives && call.billable);
                prop_assert!(billable <= charged && charged <= billable + unknown, "{billable} {charged} {unknown}");
            }
            let in_flight: Vec<_> = world.calls.iter().filter(|(_, call)| call.in_flight).map(|(at, _)| *at).collect();
            in_flight.into_iter().for_each(|number| world.end(number, 0));
            let (billable, unknown) = world.books();
            prop_assert_eq!(billable, world.count(|call| call.known && call.billable));
            prop_assert_eq!(unknown, world.count(|call| !call.known));
        }
    }

    #[test]
    fn the_oldest_lost_call_is_settled_and_one_whose_answer_came_is_not() {
        let mut world = World::new();
        let book = |arrives| Step::Book { reference: 0, arrives, billable: true };
        for step in [book(true), book(true), book(true)] {
            world.take(step);
        }
        // The first one's answer came and is pending; the answers of the others are lost.
        world.end(1, 1);
        world.end(2, 0);
        world.end(3, 0);
        let open = |world: &World| -> Vec<i64> {
            let calls = journal::open_calls(&world.connection, None, 0, 9).unwrap();
            calls.into_iter().map(|call| call.id).collect()
        };
        world.report(3);
        assert_eq!(open(&world), [1, 3], "the oldest lost one");
        world.report(3);
        assert_eq!(open(&world), [1, 3], "what is said twice counts once");
        world.report(1);
        assert_eq!(open(&world), [3], "by its id");
        world.report(2);
        assert_eq!((open(&world), world.books()), (Vec::new(), (3, 0)));
    }

    #[test]
    fn a_record_that_is_pending_is_bound_to_its_lost_call_and_settles_it_later() {
        let mut world = World::new();
        world.take(Step::Book { reference: 0, arrives: true, billable: false });
        world.end(1, 0);
        world.close(Call::Referenced(record(1), [0; 32]), Outcome::Unknown, None);
        assert_eq!(world.books(), (0, 1));
        world.close(Call::Named(record(1)), Outcome::NotBillable, None);
        assert_eq!(world.books(), (0, 0));
    }

    #[test]
    fn what_is_said_about_a_record_of_nobody_settles_no_later_call() {
        let mut world = World::new();
        world.close(Call::Referenced(record(99), [0; 32]), Outcome::Billable, None);
        world.take(Step::Book { reference: 0, arrives: false, billable: true });
        world.end(1, 0);
        assert_eq!(world.books(), (0, 1));
    }

    /// Returns the records whose outcomes Redis must forget, each with the reference if the outcome had one.
    fn used(world: &World) -> Vec<(CallName, Option<CallName>)> {
        let mut find = world.connection.prepare("SELECT name, reference FROM ledger_withdrawn ORDER BY name").unwrap();
        let used = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        used.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn a_report_of_another_node_is_on_disk_as_used_with_the_settlement_of_its_call() {
        let reference = Some([0; 32]);
        let report = |call, outcome, reference| {
            let mut world = World::new();
            world.rules.is_alone = false;
            world.take(Step::Book { reference: 0, arrives: true, billable: true });
            world.end(1, 1);
            let end = End::Outcome(outcome, None);
            let closing = Closing { call, end, reference, is_early: false };
            close(&world.connection, &closing, world.rules, &mut Changes::default()).unwrap();
            (world.books(), used(&world))
        };
        let (name, billable) = (record(1), Outcome::Billable);
        assert_eq!(report(Call::NamedElsewhere(name), billable, reference), ((1, 0), vec![(name, reference)]));
        assert_eq!(report(Call::NamedElsewhere(name), billable, None), ((1, 0), vec![(name, None)]));
        assert_eq!(report(Call::Referenced(name, [0; 32]), billable, None), ((1, 0), vec![(name, reference)]));
        // The final outcome of a pending record is still to come.
        assert_eq!(report(Call::Referenced(name, [0; 32]), Outcome::Unknown, None), ((0, 1), Vec::new()));
        assert_eq!(report(Call::Named(name), billable, None), ((1, 0), Vec::new()), "no other node was told");
    }

    #[test]
    fn a_call_takes_what_was_said_about_its_record_unless_redis_has_it_for_a_lost_call() {
        for (sent, expected) in [(0, (1, 0)), (7, (0, 1))] {
            let mut world = World::new();
            world.rules.is_alone = false;
            world.take(Step::Book { reference: 0, arrives: true, billable: true });
            world.report(1);
            references::mark_sent(&world.connection, record(1), sent).unwrap();
            world.end(1, 1);
            assert_eq!(world.books(), expected, "sent at {sent}");
            assert_eq!(used(&world).len(), expected.0);
        }
    }

    #[test]
    fn a_node_that_shares_no_state_any_more_starts_with_outcomes_that_it_kept_for_others() {
        let mut world = World::new();
        world.rules.is_alone = false;
        world.close(Call::Named(record(9)), Outcome::Billable, None);
        world.rules.is_alone = true;
        assert_eq!(references::pair_all(&world.connection, world.rules, &mut Changes::default()), Ok(()));
    }

    #[test]
    fn rows_of_an_earlier_version_are_read() {
        let connection = Connection::open_in_memory().unwrap();
        journal::MIGRATIONS[..4].iter().for_each(|migration| connection.execute_batch(migration).unwrap());
        let insert = "INSERT INTO ledger_calls (day, tenant, route, price, name, booked, ended) VALUES (?1, 'lending', 'bank', 500, ?2, 5, 1)";
        connection.execute(insert, (DAY, Some(record(1)))).unwrap();
        connection.execute(insert, (DAY, None::<CallName>)).unwrap();
        let day = "INSERT INTO ledger_days (day, tenant, route, unknown) VALUES (?1, 'lending', 'bank', 2)";
        connection.execute(day, [DAY]).unwrap();
        journal::MIGRATIONS[4..].iter().for_each(|migration| connection.execute_batch(migration).unwrap());
        let rules = Rules { first_new: 3, is_alone: true, now: 9, day: DAY.parse().unwrap() };
        let world = World { connection, rules, calls: BTreeMap::new() };
        world.close(Call::Referenced(record(9), [0; 32]), Outcome::Billable, None);
        assert_eq!(world.books(), (0, 2), "they have no reference");
        world.close(Call::Referenced(record(1), [0; 32]), Outcome::Billable, None);
        assert_eq!(world.books(), (1, 1), "by its id");
    }
}
