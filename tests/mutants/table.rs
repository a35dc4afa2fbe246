//! Builds with one thing broken. Each is to be caught by an invariant, not by a unit test.

/// Who is to catch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The simulation: it runs the relay's own code.
    Simulation,
    /// The swarm: it runs the SQL and the scripts as well.
    Swarm,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Simulation => "simulation",
            Self::Swarm => "swarm",
        })
    }
}

/// One broken build.
pub(super) struct Mutant {
    /// What is wrong with it.
    pub(super) name: &'static str,
    pub(super) by: By,
    pub(super) file: &'static str,
    /// What stands there, once in the file.
    pub(super) from: &'static str,
    /// What stands there instead.
    pub(super) to: &'static str,
}

const fn simulated(
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { name, by: By::Simulation, file, from, to }
}

const fn swarmed(
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { name, by: By::Swarm, file, from, to }
}

pub(super) const MUTANTS: &[Mutant] = &[
    simulated(
        "send before seal",
        "src/relay/sealer.rs",
        "        failpoint(\"before_seal\");",
        "        if let Some(sealed) = &self.sealed {\n            \
         let _ = sealed.send(plan.batches.clone()).await;\n        }\n        \
         tokio::task::yield_now().await;",
    ),
    simulated(
        "no wait for transactions that were open when writers were asked for wake-ups",
        "src/relay/pace.rs",
        "        self.asking = Asking::Asked { doze: DOZE, look_at: now };",
        "        self.asking = Asking::Over;",
    ),
    simulated(
        "positions of groups put back without the canary",
        "src/relay/session.rs",
        "    known.iter().any(|canary| canary.nonce == *nonce && canary.count >= *count)",
        "    let _ = (nonce, count);\n    !known.is_empty()",
    ),
    simulated(
        "checkpoint of a Redis that went back meanwhile",
        "src/relay/checkpoint.rs",
        "        |now: &Canary, then: &Canary| now.nonce == then.nonce && now.count >= then.count + least;",
        "        |now: &Canary, then: &Canary| now != then || least < 2;",
    ),
    simulated(
        "stale trim floor: it never goes back with a group",
        "src/relay/checkpoint.rs",
        "        let trimmed = due.floor.n.min(view.trimmed());\n        \
         return Ok(floor.min(due.asked.sent.n).max(trimmed));",
        "        let _ = floor;\n        return Ok(due.asked.sent.n.max(due.floor.n));",
    ),
    simulated(
        "floor one too high",
        "src/relay/checkpoint.rs",
        "            let floor = floor(means, &due, &view, now_ms).await?;",
        "            let floor = floor(means, &due, &view, now_ms).await? + 1;",
    ),
    simulated(
        "that groups were lost is forgotten with the relay",
        "src/relay/session.rs",
        "if head.groups_lost || !is_of(",
        "if !is_of(",
    ),
    simulated(
        "pending entries before the entries",
        "src/relay/restore.rs",
        "        if let Some(Comeback { groups, gone }) = comeback.filter(is_there).cloned() {",
        "        let _ = is_there;\n        if let Some(Comeback { groups, gone }) = comeback.cloned() {",
    ),
    simulated(
        "pending entries forgotten",
        "src/relay/restore.rs",
        "    let mut groups = saved.groups;",
        "    let mut groups = saved.groups;\n    \
         groups.iter_mut().for_each(|group| group.pending = Some(Vec::new()));",
    ),
    simulated(
        "groups that are there are left where they are",
        "src/relay/restore.rs",
        "                false => redis.restore(&stream, from, floor, &groups).await?,",
        "                false => redis.restore(&stream, from, floor, &[]).await?,",
    ),
    simulated(
        "marked when it is sent",
        "src/relay/appender.rs",
        "                tickets.push(Ticket::new(progress.epoch(), &append, mark));",
        "                let _ = self.notes.send(Note::Arrived(mark.clone()));\n                \
         tickets.push(Ticket::new(progress.epoch(), &append, mark));",
    ),
    simulated(
        "the clock of Postgres taken as it is",
        "src/relay/plan.rs",
        "                    ms: clock_ms.max(head.ms),",
        "                    ms: clock_ms,",
    ),
    simulated(
        "numbers taken from the clock, not from the log",
        "src/relay/plan.rs",
        "                    first_n: head.n + 1,",
        "                    first_n: head.n + 1 + u64::from(clock_ms % 97 == 0),",
    ),
    simulated(
        "a snapshot taken for done when a batch of it is",
        "src/outbox/cursor.rs",
        "        if !search.more {",
        "        if !search.more || search.last_id.is_some() {",
    ),
    simulated(
        "a snapshot begun again after each batch",
        "src/outbox/cursor.rs",
        "        self.window.as_ref().map_or(i64::MIN, |(_, through)| *through)",
        "        self.window.as_ref().map_or(i64::MIN, |_| i64::MIN)",
    ),
    simulated(
        "a lost stream begins at its end, not at its floor",
        "src/relay/decide.rs",
        "        Verdict::Bootstrap { floor: finding.floor, lost: lost(finding.floor.n) }",
        "        Verdict::Bootstrap { floor: finding.sealed, lost: lost(finding.floor.n) }",
    ),
    simulated(
        "the range of a loss one too long",
        "src/relay/decide.rs",
        "(finding.confirmed > after).then(|| after + 1..=finding.confirmed)",
        "(finding.confirmed > after).then(|| after..=finding.confirmed)",
    ),
    simulated(
        "a lost tail taken for backlog",
        "src/relay/decide.rs",
        "        Verdict::Replay { after: at, lost: lost(at.n) }",
        "        Verdict::Replay { after: at, lost: None }",
    ),
    simulated(
        "backlog taken for a lost tail",
        "src/relay/decide.rs",
        "        Verdict::Replay { after: at, lost: lost(at.n) }",
        "        Verdict::Replay { after: at, lost: Some(at.n + 1..=finding.sealed.n) }",
    ),
    simulated(
        "Redis compared on reconnect only",
        "src/relay/appender.rs",
        "        if self.work.auditing {\n            return;\n        }",
        "        if self.work.auditing || self.life == self.life {\n            return;\n        }",
    ),
    simulated(
        "a stream that is missing taken for done where it has a floor",
        "src/relay/decide.rs",
        "    if at == finding.sealed && (at == Position::START",
        "    if (at == finding.sealed || at == Position::START && finding.floor.n > 0)\n        \
         && (matches!(finding.place, Place::Missing) || at == Position::START",
    ),
    simulated(
        "idle flag in a table: a writer sees it as its snapshot has it",
        "tests/simulation/actors.rs",
        "        let asked = |world: &World| world.postgres.facts.wake_until_s > world.postgres_ms() \
         / 1_000;",
        "        let seen = self.world.with(|world| world.postgres.facts.wake_until_s > \
         world.postgres_ms() / 1_000);\n        let asked = |_: &World| seen;",
    ),
    simulated(
        "trim by a floor that was true a moment ago",
        "tests/simulation/redis.rs",
        "        let keep = needed.fold(Stream::following(floor), Position::min);",
        "        let keep = needed.fold(Stream::following(floor), |keep, _| keep);",
    ),
    swarmed(
        "blind XADD",
        "src/stream/append.lua",
        "if last ~= ARGV[1] then",
        "if last ~= ARGV[1] and kind == 'none' and ARGV[1] == '' then",
    ),
    swarmed(
        "order by xid",
        "sql/queries/find.sql",
        " order by f.id\n",
        " order by f.xid::text, f.id\n",
    ),
    swarmed(
        "rows of transactions that were open at the last look are not looked for",
        "sql/queries/find.sql",
        "    where pg_visible_in_snapshot(o.xid, now.target)\n",
        "    where pg_visible_in_snapshot(o.xid, now.target) and false\n",
    ),
    swarmed(
        "ids drawn ten at a time",
        "sql/migrations/0001_outbox.sql",
        "generated always as identity (cache 1),",
        "generated always as identity (cache 10),",
    ),
    swarmed(
        "purge by dispatched",
        "sql/migrations/0003_bounds.sql",
        "        where coalesce(f.n, 0) < u.n)",
        "        where coalesce(f.n, 0) < u.n and false)",
    ),
    swarmed(
        "floor one too high, as Redis computes it",
        "src/stream/look.lua",
        "    local floor = number_before(needed)",
        "    local floor = string.format('%.0f', tonumber(number_before(needed)) + 1)",
    ),
    swarmed(
        "a group that a consumer has made again is left where it is",
        "src/stream/restore.lua",
        "    if were[name] then set_group('SETID', key, name, at, read) else gone[#gone + 1] = name end",
        "    if not were[name] then gone[#gone + 1] = name end",
    ),
    swarmed(
        "pending entries listed and not given back",
        "src/stream/pend.lua",
        "    if #redis.call('XRANGE', key, id, id) > 0 then",
        "    if #redis.call('XRANGE', key, id, id) > 1 then",
    ),
];
