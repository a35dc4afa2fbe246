//! The relay and the network.

use super::{Failure, shown};

pub(super) const FAILURES: &[Failure] = &[
    shown(
        1,
        "the relay is killed before a seal",
        &[
            "crash::at_a_step::killed_before_a_seal_it_has_sent_nothing",
            "crash::at_a_step::killed_before_seals_under_load",
        ],
    ),
    shown(
        2,
        "… after a seal, before the append",
        &[
            "crash::at_a_step::killed_after_a_seal_its_successor_sends_it_once",
            "crash::at_a_step::killed_after_seals_under_load",
            "crash::at_a_step::killed_before_appends_under_load",
        ],
    ),
    shown(
        3,
        "… after an append whose reply it never heard",
        &[
            "network::an_append_whose_relay_died_before_it_heard_of_it_is_not_repeated",
            "network::appends_whose_replies_are_lost_are_not_repeated",
        ],
    ),
    shown(
        4,
        "… after the reply, before it has marked",
        &[
            "crash::at_a_step::killed_after_an_append_its_successor_does_not_repeat_it",
            "crash::at_a_step::killed_after_appends_under_load",
        ],
    ),
    shown(
        5,
        "… in a rebuild, a checkpoint, a trim, a purge",
        &[
            "crash::at_a_step::killed_while_it_puts_back_what_redis_lost",
            "crash::at_a_step::killed_while_groups_come_back_with_all_of_redis",
            "crash::at_a_step::killed_while_groups_come_back_with_one_stream",
            "crash::at_a_step::killed_at_checkpoints_and_trims_no_group_skips_an_entry",
            "purge::relays_killed_while_they_purge_leave_nothing_by_halves",
        ],
    ),
    shown(
        6,
        "SIGTERM in the middle of a batch",
        &[
            "crash::a_stop_under_load_drains_and_leaves_nothing_sealed_behind",
            "leader::a_clean_stop_hands_over_long_before_the_lease_ends",
        ],
    ),
    shown(
        7,
        "two relays are started",
        &[
            "leader::a_standby_takes_over_when_the_lease_of_a_killed_leader_runs_out",
            "leader::a_standby_stops_at_once",
        ],
    ),
    shown(
        8,
        "a leader is frozen beyond its lease, and goes on",
        &[
            "leader::a_leader_frozen_beyond_its_lease_does_no_harm_when_it_goes_on",
            "leader::relays_frozen_in_turn_take_over_from_each_other",
        ],
    ),
    shown(
        9,
        "a request that was given up is carried out later",
        &[
            "network::requests_that_arrive_after_their_sender_has_reconnected_change_nothing",
            "network::requests_of_a_dead_relay_that_arrive_late_change_nothing",
            "network::a_frozen_redis_carries_old_requests_out_after_the_relay_gave_them_up",
        ],
    ),
    shown(
        10,
        "the leader's way to Postgres swallows everything",
        &[
            "leader::a_leader_cut_off_from_postgres_is_replaced_and_stands_by_afterwards",
            "network::a_postgres_that_hangs_for_seconds_is_waited_for",
        ],
    ),
    shown(
        11,
        "the way to Redis swallows everything",
        &["network::a_redis_that_vanishes_without_a_word_is_given_up_and_found_again"],
    ),
    shown(
        12,
        "a connection is reset in the middle of a request or a reply",
        &[
            "network::requests_to_redis_are_cut_in_the_middle",
            "network::replies_of_redis_are_cut_in_the_middle",
            "network::requests_to_postgres_are_cut_in_the_middle",
            "network::replies_of_postgres_are_cut_in_the_middle",
        ],
    ),
    shown(
        13,
        "latency, jitter, little bandwidth",
        &[
            "network::a_far_away_redis_costs_latency_and_not_throughput",
            "network::a_narrow_link_that_wavers_is_filled",
            "network::audits_of_a_far_away_redis_do_not_disturb_a_stream_that_is_in_step",
        ],
    ),
];
