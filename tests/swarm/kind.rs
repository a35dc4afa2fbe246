//! What can go wrong, by name.

use std::fmt;
use std::str::FromStr;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Relay,
    Network,
    Redis,
    Postgres,
    Application,
}

macro_rules! kinds {
    ($($kind:ident $name:literal $side:ident $lasts:expr, $rows:expr;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Kind { $($kind,)* }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            pub(crate) fn side(self) -> Side {
                match self { $(Self::$kind => Side::$side,)* }
            }

            /// Milliseconds that it lasts, at least and at most.
            pub(crate) fn lasts(self) -> (u64, u64) {
                match self { $(Self::$kind => $lasts,)* }
            }

            /// The rows of the list of failures that it stands for.
            pub(crate) fn rows(self) -> &'static [u8] {
                match self { $(Self::$kind => &$rows,)* }
            }
        }
    };
}

// Durations are short, so that a run is: the relay gives up an answer of Redis after 10 s, and what
// waits that long is ended by something else, as a crash or a new session.
kinds! {
    RelayKill "relay-kill" Relay (0, 600), [1, 2, 3, 4, 5, 7];
    RelayStop "relay-stop" Relay (0, 600), [6];
    RelayFreeze "relay-freeze" Relay (1_200, 2_600), [8];
    LeaseTaken "lease-taken" Relay (200, 900), [7, 8];
    StreamPaused "stream-paused" Relay (200, 1_200), [];
    RedisDelay "redis-delay" Network (300, 1_500), [13];
    RedisJitter "redis-jitter" Network (300, 1_500), [13];
    RedisHold "redis-hold" Network (600, 2_500), [9];
    RedisSwallow "redis-swallow" Network (50, 400), [3, 11];
    RedisCut "redis-cut" Network (0, 0), [12];
    RedisCutRequest "redis-cut-request" Network (0, 0), [12, 16];
    RedisCutReply "redis-cut-reply" Network (0, 0), [3, 12];
    RedisBlackHole "redis-black-hole" Network (200, 1_200), [11];
    RedisRefuse "redis-refuse" Network (200, 1_000), [11];
    PostgresDelay "postgres-delay" Network (300, 1_200), [13];
    PostgresHold "postgres-hold" Network (300, 1_200), [9, 10];
    PostgresSwallow "postgres-swallow" Network (50, 400), [10];
    PostgresCut "postgres-cut" Network (0, 0), [12];
    PostgresCutRequest "postgres-cut-request" Network (0, 0), [12];
    PostgresCutReply "postgres-cut-reply" Network (0, 0), [2, 12];
    PostgresBlackHole "postgres-black-hole" Network (200, 1_200), [10];
    PostgresRefuse "postgres-refuse" Network (200, 1_000), [47];
    FlushAll "flush-all" Redis (0, 0), [17];
    FlushDb "flush-db" Redis (0, 0), [17];
    SwapDb "swap-db" Redis (0, 0), [17];
    KillEmpty "redis-kill" Redis (0, 500), [14];
    Snapshot "redis-snapshot" Redis (200, 1_500), [15, 20, 36];
    AofCut "aof-cut" Redis (0, 300), [15, 16];
    Reload "redis-reload" Redis (200, 1_500), [20, 22];
    StreamDelete "stream-delete" Redis (0, 0), [18];
    StreamRemade "stream-remade" Redis (0, 0), [19];
    StreamRollback "stream-rollback" Redis (200, 1_500), [20];
    StreamRename "stream-rename" Redis (0, 0), [18];
    StreamExpire "stream-expire" Redis (0, 0), [18, 28];
    ReplicaPromoted "replica-promoted" Redis (200, 1_500), [21, 23];
    HiddenFailover "hidden-failover" Redis (200, 1_500), [22];
    ReplicaOf "replica-of" Redis (200, 1_000), [24];
    ClientKill "client-kill" Redis (0, 0), [12];
    ScriptFlush "script-flush" Redis (0, 0), [31];
    RedisSleep "redis-sleep" Redis (100, 800), [26];
    ClientPause "client-pause" Redis (100, 1_000), [26];
    RedisFreeze "redis-freeze" Redis (100, 1_000), [11, 26];
    OutOfMemory "out-of-memory" Redis (200, 1_000), [27];
    Misconf "misconf" Redis (200, 1_000), [35];
    NoReplicas "no-replicas" Redis (200, 1_000), [34];
    ForeignTrim "foreign-trim" Redis (100, 600), [39];
    GroupRewind "group-rewind" Redis (0, 0), [40];
    GroupDestroy "group-destroy" Redis (0, 0), [41];
    PostgresCrash "postgres-crash" Postgres (0, 400), [42, 43];
    BackendKill "backend-kill" Postgres (0, 0), [47];
    ListenerKill "listener-kill" Postgres (0, 0), [57];
    StatementCancel "statement-cancel" Postgres (0, 0), [48];
    TableLock "table-lock" Postgres (200, 1_500), [48];
    LongTransaction "long-transaction" Postgres (500, 3_000), [49];
    Prepared "prepared-transaction" Postgres (300, 2_000), [49];
    Bulk "bulk-transaction" Application (0, 0), [51];
    ConsumerKill "consumer-kill" Application (0, 400), [5];
    ConsumerSlow "consumer-slow" Application (300, 2_000), [27, 41];
}

impl Kind {
    /// Redis loses data by it.
    pub(crate) fn loses(self) -> bool {
        matches!(
            self,
            Self::FlushAll
                | Self::FlushDb
                | Self::SwapDb
                | Self::KillEmpty
                | Self::Snapshot
                | Self::AofCut
                | Self::Reload
                | Self::StreamDelete
                | Self::StreamRemade
                | Self::StreamRollback
                | Self::StreamRename
                | Self::StreamExpire
                | Self::ReplicaPromoted
                | Self::HiddenFailover
        )
    }

    /// Redis as a whole is another one by it, not one stream.
    pub(crate) fn loses_all(self) -> bool {
        self.loses()
            && !matches!(
                self,
                Self::StreamDelete
                    | Self::StreamRemade
                    | Self::StreamRollback
                    | Self::StreamRename
                    | Self::StreamExpire
            )
    }

    /// An old state comes back by it, with consumer groups that have forgotten what they acknowledged.
    pub(crate) fn goes_back(self) -> bool {
        matches!(
            self,
            Self::Snapshot
                | Self::AofCut
                | Self::Reload
                | Self::StreamRollback
                | Self::ReplicaPromoted
                | Self::HiddenFailover
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| format!("no fault is called {name:?}"))
    }
}
