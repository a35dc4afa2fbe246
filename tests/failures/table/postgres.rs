//! Postgres, its rows, and the machine.

use super::{Failure, shown};

pub(super) const FAILURES: &[Failure] = &[
    shown(
        42,
        "Postgres crashes",
        &[
            "postgres_faults::postgres_crashes_under_load",
        ],
    ),
    shown(
        43,
        "commits that nobody waited for vanish, and ids and xids come again",
        &[
            "postgres_faults::commits_that_do_not_wait_for_the_disk_are_in_redis_only_if_they_last",
            "postgres_faults::rows_that_were_read_and_vanished_in_a_crash_are_forgotten",
        ],
    ),
    shown(
        44,
        "failover to a standby that lags",
        &[
            "postgres_standby::a_standby_that_lags_is_promoted_and_what_it_never_got_is_listed",
            "copies::hosts::an_asynchronous_standby_is_promoted_under_load_and_what_it_never_got_is_listed",
            "copies::hosts::a_standby_that_got_rows_and_not_their_places_halts_a_stream_until_it_is_rebuilt",
            "copies::hosts::a_synchronous_standby_is_promoted_under_load_and_nothing_is_lost",
        ],
    ),
    shown(
        45,
        "the old primary lives on with its relay",
        &[
            "postgres_standby::an_old_primary_that_lives_on_beside_the_new_one_cannot_seal",
        ],
    )
    .but(
        "With a synchronous standby. Without one, nothing can keep two primaries apart: both commit.",
    ),
    shown(
        46,
        "the synchronous standby is gone, and a wait for it is cancelled",
        &[
            "postgres_standby::a_seal_whose_wait_for_the_standby_was_cancelled_is_not_sent",
        ],
    ),
    shown(
        47,
        "connections are ended at random, or there is none left",
        &[
            "postgres_faults::each_of_its_connections_may_be_ended",
            "postgres_faults::without_a_free_connection_it_waits_and_goes_on",
        ],
    ),
    shown(
        48,
        "a statement is cancelled, a deadlock, a table locked by a migration",
        &[
            "postgres_faults::each_of_its_statements_may_be_cancelled",
            "postgres_faults::a_deadlock_with_somebody_is_survived",
            "postgres_faults::a_table_locked_by_a_migration_is_waited_for",
        ],
    ),
    shown(
        49,
        "a transaction left open, a prepared one forgotten",
        &[
            "delivery::a_transaction_left_open_holds_up_nobody_and_its_rows_come_last",
            "delivery::a_prepared_transaction_arrives_when_it_is_committed",
            "purge::a_transaction_open_for_long_holds_back_its_own_leaf_and_loses_no_row",
        ],
    ),
    shown(
        50,
        "commits in another order than ids, rollbacks, savepoints",
        &[
            "delivery::commits_in_another_order_than_ids_all_arrive",
            "delivery::what_is_committed_arrives_and_what_is_rolled_back_does_not",
            "delivery::an_id_drawn_long_before_the_transaction_has_an_xid_is_not_skipped",
        ],
    ),
    shown(
        51,
        "a transaction of 100,000 rows, a large backlog",
        &[
            "delivery::a_hundred_thousand_rows_of_one_transaction_arrive_in_order_beside_others",
            "delivery::a_backlog_written_before_the_relay_ran_is_carried_with_a_prefix",
        ],
    )
    .but(
        "A backlog of a million is measured, not tested.",
    ),
    shown(
        52,
        "giant payloads, invalid UTF-8, NUL, empty texts",
        &[
            "fuzz::rows::rows_arrive_to_the_byte_or_are_refused",
            "delivery::payloads_arrive_as_postgres_prints_them",
            "delivery::rows_that_a_hostile_application_can_write_harm_nobody",
            "migrate::bounds::what_just_fits_is_delivered_to_the_byte",
            "migrate::bounds::a_payload_has_at_most_65536_bytes_as_text",
        ],
    ),
    shown(
        53,
        "the clock leaps, milliseconds repeat",
        &[
            "nights::the_clock_is_wrong",
        ],
    )
    .but(
        "The clock that counts is that of Postgres; positions are moved a year ahead rather than the \
         clock.",
    ),
    shown(
        54,
        "the disk of Postgres is full",
        &[
            "resources::while_the_disk_of_postgres_is_full_nothing_is_sealed_by_halves",
        ],
    )
    .but(
        "That of the log; where the WAL has no room, Postgres itself stops, as in 42.",
    ),
    shown(
        55,
        "a dump is restored, an outbox copied or upgraded into another cluster",
        &[
            "operate::restore::a_dump_that_is_restored_elsewhere_goes_on_where_it_was_once_somebody_consents",
            "operate::after_a_restore_into_another_cluster_adopt_lets_every_row_through_once",
            "copies::dump::a_dump_goes_on_where_transactions_are_far_behind_and_when_they_catch_up",
            "copies::dump::a_dump_goes_on_where_transactions_are_far_ahead",
            "copies::logical::a_logical_copy_whose_schema_was_dumped_goes_on_where_it_was",
            "copies::logical::a_logical_copy_whose_schema_was_made_by_migrate_goes_on_where_it_was",
            "copies::upgrade::after_pg_upgrade_it_goes_on_where_it_was_once_somebody_consents",
        ],
    )
    .but(
        "Recovery to a point in time keeps the cluster's identity and is to the relay what 44 is.",
    ),
    shown(
        56,
        "a pooler that shares sessions",
        &[
            "doctor::postgres::a_pooler_that_shares_sessions_is_found",
            "wake::polling_alone_delivers_and_asks_for_nothing",
        ],
    )
    .but(
        "Not supported for the relay, which reads ahead on sessions of its own; `doctor` finds one. \
         The pooler of the test is ours: PgBouncer itself is not run.",
    ),
    shown(
        57,
        "the listener is killed, or stops to listen",
        &[
            "postgres_faults::each_of_its_connections_may_be_ended",
            "wake::a_relay_frozen_in_its_sleep_fills_no_queue_and_fails_no_commit",
            "wake::nobody_is_notified_while_the_relay_is_dead_or_busy",
        ],
    )
    .but(
        "The queue of Postgres, 8 GB, is not filled.",
    ),
    shown(
        58,
        "a standby as the source",
        &[
            "input::servers::a_standby_is_refused_as_a_source",
            "nights::a_standby_is_promoted_under_our_feet",
        ],
    ),
    shown(
        59,
        "another version of the relay, a migration under way",
        &[
            "migrate::an_upgrade_from_the_first_version_keeps_rows_and_gives_its_relay_the_new_rights",
            "migrate::migrating_again_under_load_disturbs_neither_writers_nor_the_relay",
            "input::servers::an_older_schema_is_refused_and_migrate_named",
            "input::servers::a_database_without_the_schema_or_with_a_newer_one_is_refused",
        ],
    )
    .but(
        "There is no earlier release yet to run in turn with this one.",
    ),
    shown(
        60,
        "no memory, no free file, no disk for the log",
        &[
            "resources::a_relay_that_runs_out_of_memory_dies_and_the_next_one_goes_on",
            "resources::without_a_free_file_it_waits_and_goes_on",
            "resources::a_log_that_cannot_be_written_stops_nothing",
        ],
    ),
];
