//! All Lua scripts that Redis runs for the gateway: one file for each script, one folder for each feature.
//!
//! A script runs atomically. `KEYS` contains at least one key, by which a cluster finds the node that owns the slot;
//! every other key of the script has the same hash tag.

/// Declares scripts. Each script consists of one or more files, with the shared prelude first.
macro_rules! scripts {
    ($($name:ident = [$($file:literal),+];)*) => {
        $(
            #[doc = concat!("The script of ", $("`", $file, "` ",)+ "below `src/redis/scripts`.")]
            pub static $name: LazyLock<Script> =
                LazyLock::new(|| Script::new(concat!($(include_str!(concat!("scripts/", $file)), "\n"),+)));
        )*
    };
}

/// Scripts of the cache.
pub mod cache {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        BEGIN_CHANGE = ["cache/changes.lua", "cache/begin_change.lua"];
        CATCH_UP = ["cache/changes.lua", "cache/catch_up.lua"];
        CLAIM = ["text.lua", "cache/claim.lua"];
        DISCARD = ["cache/discard.lua"];
        ERASE_TAGGED = ["cache/erase_tagged.lua"];
        HEARTBEAT = ["cache/heartbeat.lua"];
        LAND = ["text.lua", "cache/land.lua"];
        MEMBERSHIP = ["cache/membership.lua"];
        RELEASE = ["text.lua", "cache/release.lua"];
        RENEW = ["text.lua", "cache/renew.lua"];
        STORE = ["text.lua", "cache/store.lua"];
    }
}

/// Scripts of the layout.
pub mod layout {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        CHECK = ["layout/check.lua"];
    }
}

/// Scripts of the ledger.
pub mod ledger {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        DAY = ["text.lua", "ledger/day_text.lua", "ledger/day.lua"];
        MEET = ["ledger/meet.lua"];
        PUBLISH = ["ledger/day_text.lua", "ledger/publish.lua"];
        REPORT = ["ledger/report.lua"];
    }
}

/// Scripts of limits and quotas.
pub mod limit {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        BACKOFF = ["limit/backoff.lua"];
        CORRECT = ["limit/correct.lua"];
        FAIR_QUEUE = ["limit/fair_queue.lua"];
        HEARTBEAT = ["limit/heartbeat.lua"];
        REFUSING = ["limit/refusing.lua"];
        RESERVE = ["limit/reserve.lua"];
    }
}

/// Scripts of a node's identity and membership.
pub mod node {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        HEARTBEAT = ["node/heartbeat.lua"];
        REPORTS = ["node/reports.lua"];
        SENTINELS = ["node/sentinels.lua"];
    }
}

/// Scripts of logs: the audit log, and the receipts of erasures.
pub mod log {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        LIST = ["log/list.lua"];
        PUT = ["log/put.lua"];
    }
}

/// Scripts of the registry of keys and suspensions.
pub mod registry {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        MERGE = ["registry/merge.lua"];
        READ = ["registry/read.lua"];
    }
}

/// Scripts of durable state.
pub mod state {
    use redis::Script;
    use std::sync::LazyLock;

    scripts! {
        CLAIM = ["state/prelude.lua", "state/claim.lua"];
        CLAIM_KEY = ["state/prelude.lua", "state/claim_key.lua"];
        CLOSE_SESSION = ["state/prelude.lua", "state/close_session.lua"];
        CONCLUDE = ["state/prelude.lua", "state/conclude.lua"];
        DELETE = ["state/prelude.lua", "state/delete.lua"];
        END_CLAIM = ["state/prelude.lua", "state/end_claim.lua"];
        ENQUEUE = ["state/prelude.lua", "state/enqueue.lua"];
        ERASE = ["state/prelude.lua", "state/erase.lua"];
        EXPIRE_PAUSED = ["state/prelude.lua", "state/expire_paused.lua"];
        FIND = ["state/prelude.lua", "state/find.lua"];
        LIST = ["state/prelude.lua", "state/list.lua"];
        OPEN_SESSION = ["state/prelude.lua", "state/open_session.lua"];
        OWN = ["state/prelude.lua", "state/own.lua"];
        OWNERS = ["state/prelude.lua", "state/owners.lua"];
        PAUSE = ["state/prelude.lua", "state/pause.lua"];
        PAUSES = ["state/prelude.lua", "state/pauses.lua"];
        QUEUES = ["state/prelude.lua", "state/queues.lua"];
        RECEIVE = ["state/prelude.lua", "state/receive.lua"];
        RELEASE = ["state/prelude.lua", "state/release.lua"];
        RENEW_URL = ["state/renew_url.lua"];
        REPLAY = ["state/prelude.lua", "state/replay.lua"];
        RESUME = ["state/prelude.lua", "state/resume.lua"];
        SESSION = ["state/prelude.lua", "state/session.lua"];
        SETTLE = ["state/prelude.lua", "state/settle.lua"];
        SWEEP = ["state/prelude.lua", "state/sweep.lua"];
        TIME = ["state/prelude.lua", "state/time.lua"];
        WAITING = ["state/prelude.lua", "state/waiting.lua"];
    }
}
