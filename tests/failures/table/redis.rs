//! Redis, and whoever else uses it.

use super::{Failure, shown};

const REMOVED: &str = concat!(
    "groups::pending_entries_that_somebody_removed_are_told",
    "_and_hold_the_floor_until_the_group_lets_go"
);

pub(super) const FAILURES: &[Failure] = &[
    shown(
        14,
        "Redis without persistence is killed",
        &[
            "redis_loss::redis_comes_back_empty",
            "groups::under_load_and_loss_after_loss_no_group_skips_an_entry",
        ],
    ),
    shown(
        15,
        "Redis is killed and its append-only file lacks its end",
        &[
            "redis_loss::the_end_of_an_append_only_file_is_lost_and_its_range_is_told",
            "redis_lives::an_append_only_file_that_lost_its_end",
        ],
    ),
    shown(
        16,
        "… and is cut in the middle of a transaction",
        &[
            "redis_lives::an_append_only_file_that_lost_its_end",
        ],
    ),
    shown(
        17,
        "FLUSHALL, FLUSHDB, SWAPDB while the connection lives",
        &[
            "redis_loss::flushall_under_load",
            "redis_loss::a_loss_is_noticed_by_the_next_append_without_any_audit",
            "redis_lives::databases_are_swapped_and_streams_renamed_or_expired",
        ],
    ),
    shown(
        18,
        "one stream is deleted, renamed, or expires",
        &[
            "redis_loss::one_stream_is_deleted",
            "redis_loss::the_loss_of_an_idle_stream_is_noticed_by_the_audit",
            "redis_lives::databases_are_swapped_and_streams_renamed_or_expired",
        ],
    ),
    shown(
        19,
        "… and a consumer makes its group again at the end",
        &[
            "groups::a_group_that_a_consumer_made_again_at_the_end_is_put_back",
            "redis_loss::one_stream_is_deleted_and_made_again_by_a_consumer",
        ],
    ),
    shown(
        20,
        "a stream goes back to an older state",
        &[
            "redis_loss::an_older_state_of_a_stream_comes_back",
            "redis_loss::redis_comes_back_with_an_older_snapshot",
        ],
    ),
    shown(
        21,
        "a replica that lags is promoted",
        &[
            "redis_lives::a_replica_that_lags_is_promoted",
        ],
    ),
    shown(
        22,
        "… behind a proxy that hides it from the client",
        &[
            "redis_lives::a_replica_that_lags_is_promoted_behind_a_connection_that_stays_open",
            "redis_lives::an_older_state_under_the_same_connection_is_noticed",
        ],
    ),
    shown(
        23,
        "Sentinel fails over while the old primary is cut off",
        &["sentinel::the_primary_is_killed_and_it_goes_on_at_the_one_that_the_sentinels_name"],
    )
    .but("There it is killed; what one that lives on does to the data is shown by 21, 22 and 24."),
    shown(
        24,
        "the primary becomes a replica",
        &[
            "redis_errors::a_primary_that_becomes_a_replica_and_primary_again",
            "input::servers::a_redis_that_evicts_streams_or_is_a_replica_is_refused",
        ],
    ),
    shown(
        25,
        "Redis is loading its dump",
        &[
            "redis_errors::a_redis_that_is_loading_its_dump_is_waited_for",
        ],
    ),
    shown(
        26,
        "Redis stands still: a pause, a busy script, a stopped process",
        &[
            "redis_errors::a_redis_stalled_for_seconds_is_waited_for",
            "redis_errors::while_a_script_of_somebody_blocks_redis_it_keeps_its_lease",
            "network::a_frozen_redis_carries_old_requests_out_after_the_relay_gave_them_up",
        ],
    ),
    shown(
        27,
        "no memory, and then some, in the middle of batches",
        &[
            "redis_errors::memory_that_comes_and_goes_leaves_no_hole_in_a_batch",
            "redis_errors::without_memory_rows_are_sealed_and_wait_in_order",
            "limits::a_full_redis_gets_room_by_what_is_acknowledged",
        ],
    ),
    shown(
        28,
        "Redis evicts streams",
        &[
            "redis_errors::a_redis_that_evicts_streams_is_refused_at_start",
            "redis_lives::streams_that_are_evicted_come_back",
        ],
    ),
    shown(
        29,
        "a key of another type",
        &[
            "redis_errors::a_key_of_another_type_halts_its_stream_alone_until_it_is_deleted",
            "nights::a_key_has_the_wrong_type",
        ],
    ),
    shown(
        30,
        "a right is taken away, a password changed",
        &[
            "redis_errors::without_the_right_to_run_scripts_it_waits_and_resumes",
            "redis_errors::without_the_right_to_append_it_waits_and_resumes",
            "redis_errors::a_password_that_is_changed_is_told_and_it_resumes_when_it_is_right_again",
        ],
    )
    .but("A URL in a file is read again at each connect; one in a variable needs a restart."),
    shown(
        31,
        "SCRIPT FLUSH",
        &[
            "redis_errors::scripts_that_are_flushed_under_load_are_sent_again",
        ],
    ),
    shown(
        32,
        "Cluster: MOVED, ASK, TRYAGAIN, CLUSTERDOWN",
        &[
            "cluster::a_slot_moves_under_load_and_nothing_is_lost_or_given_again",
            "cluster::a_primary_that_gets_slot_after_slot_is_the_same_all_the_time",
            "cluster::a_primary_is_killed_and_its_replica_takes_over",
            "cluster::any_node_leads_to_all_primaries",
        ],
    )
    .but("TRYAGAIN can only meet `rebuild`, which has two keys; it says so and can be run again."),
    shown(
        33,
        "Cluster: one shard loses its data",
        &[
            "cluster::one_primary_that_is_emptied_gets_its_streams_back_and_others_keep_theirs",
            "cluster::a_primary_that_comes_back_empty_gets_its_streams_back",
        ],
    ),
    shown(
        34,
        "Redis wants replicas that are not there",
        &[
            "redis_errors::without_the_replicas_that_redis_wants_rows_are_sealed_and_wait",
        ],
    ),
    shown(
        35,
        "the disk of Redis is full",
        &[
            "nights::the_disk_of_redis_is_full",
        ],
    )
    .but(
        "A dump that cannot be written, which is what Redis looks at; the disk itself is not filled.",
    ),
    shown(
        36,
        "a backup of Redis older than the purge",
        &[
            "purge::a_redis_backup_older_than_the_purge_moves_on_to_the_floor",
        ],
    ),
    shown(
        37,
        "another Redis, or the streams of another relay",
        &[
            "input::servers::a_redis_of_another_outbox_is_refused_and_both_are_named",
            "operate::two_copies_of_an_outbox_do_not_share_a_redis",
        ],
    ),
    shown(
        38,
        "somebody else writes to a stream",
        &[
            "redis_loss::an_entry_of_a_stranger_halts_a_busy_stream_until_it_is_deleted",
            "redis_loss::an_entry_of_a_stranger_halts_an_idle_stream_until_it_is_deleted",
            "nights::somebody_else_writes_to_a_stream",
        ],
    ),
    shown(
        39,
        "somebody removes what no group has acknowledged",
        &[
            "groups::entries_that_somebody_trimmed_are_told_and_rebuilt",
            REMOVED,
            "groups::a_stream_that_somebody_emptied_keeps_its_floor_and_is_rebuilt",
        ],
    ),
    shown(
        40,
        "an operator sets a group back",
        &[
            "groups::an_operator_who_sets_a_group_back_is_obeyed",
        ],
    ),
    shown(
        41,
        "pending entries that are gone, a group that nobody uses",
        &[
            REMOVED,
            "limits::a_full_stream_waits_for_its_group_alone_and_says_so",
        ],
    ),
];
