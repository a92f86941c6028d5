//! Tables of the embedded engine.

/// The migrations of this part, for `Database::open`.
///
/// - `callbacks.standing`: 0 waits for its fan-out; 1 was fanned out, and is kept for late owners; 2 is unowned; 3 has
///   no content any more, and its name is kept to recognise a repeat. `due` is the time of the next step: for 0 the
///   fan-out, for 1 the removal of the content, for 2 the removal of the row. For 3 the retention is counted from
///   `due`.
/// - `deliveries.standing`: 0 is queued; 1 is dead; 2 is delivered; 3 has no content any more, and its id is kept to
///   recognise a repeat. For 0 `due` is the time of the next attempt. For the others `due` is the time from which the
///   retention is counted: the end of the delivery, the deletion of a dead letter, or the former `due` of an erased
///   delivery.
/// - Times are in milliseconds since 1970.
pub const MIGRATIONS: (&str, &[&str]) = (
    "state",
    &[
        "
    CREATE TABLE owners (record BLOB NOT NULL, tenant TEXT NOT NULL, kind TEXT, reference BLOB, since INTEGER NOT NULL,
        erased INTEGER NOT NULL, PRIMARY KEY (record, tenant)) WITHOUT ROWID;
    CREATE INDEX owners_since ON owners (since);
    CREATE TABLE awaiting (record BLOB NOT NULL, tenant TEXT NOT NULL, name BLOB NOT NULL, reference BLOB,
        PRIMARY KEY (record, tenant, name)) WITHOUT ROWID;
    CREATE TABLE callbacks (name BLOB NOT NULL PRIMARY KEY, record BLOB NOT NULL, account TEXT NOT NULL, kind TEXT,
        content BLOB, standing INTEGER NOT NULL, due INTEGER NOT NULL, received INTEGER NOT NULL,
        touched INTEGER NOT NULL DEFAULT 0, fleeting INTEGER NOT NULL);
    CREATE INDEX callbacks_record ON callbacks (record);
    CREATE INDEX callbacks_due ON callbacks (standing, due);
    CREATE TABLE deliveries (id BLOB NOT NULL PRIMARY KEY, record BLOB NOT NULL, tenant TEXT NOT NULL,
        account TEXT NOT NULL, kind TEXT NOT NULL, content BLOB, standing INTEGER NOT NULL, due INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, received INTEGER NOT NULL, fleeting INTEGER NOT NULL);
    CREATE INDEX deliveries_record ON deliveries (record);
    CREATE INDEX deliveries_due ON deliveries (standing, due, id);
    CREATE INDEX deliveries_tenant ON deliveries (standing, tenant, due, id);
    CREATE INDEX deliveries_oldest ON deliveries (received) WHERE standing = 0;
    CREATE TABLE persons (person BLOB NOT NULL, record BLOB NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (person, record)) WITHOUT ROWID;
    CREATE INDEX persons_at ON persons (at);
    CREATE TABLE erased (person BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE urls (tenant TEXT NOT NULL, kind TEXT NOT NULL, url BLOB NOT NULL,
        PRIMARY KEY (tenant, kind)) WITHOUT ROWID;
    ",
        "
    -- Size of each team's queued deliveries, kept by the triggers below whichever statement moves a delivery.
    CREATE TABLE outboxes (tenant TEXT NOT NULL PRIMARY KEY, deliveries INTEGER NOT NULL, bytes INTEGER NOT NULL)
        WITHOUT ROWID;
    INSERT INTO outboxes SELECT tenant, count(*), ifnull(sum(length(content)), 0) FROM deliveries
        WHERE standing = 0 GROUP BY tenant;
    CREATE TRIGGER outbox_insert AFTER INSERT ON deliveries WHEN NEW.standing = 0 BEGIN
        INSERT OR IGNORE INTO outboxes VALUES (NEW.tenant, 0, 0);
        UPDATE outboxes SET deliveries = deliveries + 1, bytes = bytes + ifnull(length(NEW.content), 0)
            WHERE tenant = NEW.tenant;
    END;
    CREATE TRIGGER outbox_delete AFTER DELETE ON deliveries WHEN OLD.standing = 0 BEGIN
        UPDATE outboxes SET deliveries = deliveries - 1, bytes = bytes - ifnull(length(OLD.content), 0)
            WHERE tenant = OLD.tenant;
    END;
    CREATE TRIGGER outbox_leave AFTER UPDATE OF standing, content ON deliveries WHEN OLD.standing = 0 BEGIN
        UPDATE outboxes SET deliveries = deliveries - 1, bytes = bytes - ifnull(length(OLD.content), 0)
            WHERE tenant = OLD.tenant;
    END;
    CREATE TRIGGER outbox_return AFTER UPDATE OF standing, content ON deliveries WHEN NEW.standing = 0 BEGIN
        INSERT OR IGNORE INTO outboxes VALUES (NEW.tenant, 0, 0);
        UPDATE outboxes SET deliveries = deliveries + 1, bytes = bytes + ifnull(length(NEW.content), 0)
            WHERE tenant = NEW.tenant;
    END;
    -- Fingerprints of the keys that this state was written with.
    CREATE TABLE key_sentinels (name TEXT NOT NULL PRIMARY KEY, fingerprint BLOB NOT NULL) WITHOUT ROWID;
    ",
        "
    -- Failed attempts that were probes; when it was queued, or replayed; its newest attempts, `time:result:duration` each.
    ALTER TABLE deliveries ADD COLUMN probes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE deliveries ADD COLUMN queued INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE deliveries ADD COLUMN history TEXT NOT NULL DEFAULT '';
    UPDATE deliveries SET queued = received;
    CREATE INDEX deliveries_kind ON deliveries (tenant, kind, due, id) WHERE standing = 0;
    CREATE INDEX deliveries_age ON deliveries (tenant, kind, queued) WHERE standing = 0;
    -- An endpoint that fails or is paused: since when it has failed without a success, why and since when it is paused, and
    -- when it is probed next.
    CREATE TABLE endpoints (tenant TEXT NOT NULL, kind TEXT NOT NULL, failing INTEGER, pause TEXT, since INTEGER,
        probe INTEGER, PRIMARY KEY (tenant, kind)) WITHOUT ROWID;
    ",
        "
    -- Idempotency keys: the claim's token, the keyed hash of the request, the process that makes the call, the standing of
    -- the key, the answer, and when the key was claimed.
    CREATE TABLE claims (name BLOB NOT NULL PRIMARY KEY, token BLOB NOT NULL, request BLOB NOT NULL, holder TEXT NOT NULL,
        standing TEXT NOT NULL, content BLOB, at INTEGER NOT NULL);
    CREATE INDEX claims_at ON claims (at);
    ",
        "
    -- Sessions of people: the kind and name of the holder, about its secret, the end without a request, the latest end.
    CREATE TABLE sessions (name BLOB NOT NULL PRIMARY KEY, holder TEXT NOT NULL, secret BLOB NOT NULL, ends INTEGER NOT NULL,
        last INTEGER NOT NULL);
    CREATE INDEX sessions_ends ON sessions (ends);
    CREATE INDEX sessions_holder ON sessions (holder, ends);
    ",
        "
    -- The persons that entries name, by the day of the mention in days since 1970, with half of the person's hash. The rows of
    -- a day are together: new rows touch few pages, and need no index by their age.
    CREATE TABLE persons_by_day (day INTEGER NOT NULL, person BLOB NOT NULL, record BLOB NOT NULL,
        PRIMARY KEY (day, person, record)) WITHOUT ROWID;
    INSERT OR IGNORE INTO persons_by_day SELECT at / 86400000, substr(person, 1, 16), record FROM persons;
    DROP TABLE persons;
    ",
    ],
);
