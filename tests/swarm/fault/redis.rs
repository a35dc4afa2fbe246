//! Redis that loses data, goes back, takes no writes, or is touched by somebody else.

use std::collections::HashMap;
use std::time::Duration;

use super::super::kind::Kind;
use super::super::losses::Known;
use super::super::moment::{Micros, now};
use super::super::schedule::Planned;
use super::super::stage::{Observed, Stage};
use super::last;
use crate::support::{eventually, pause};

const PATIENCE: Duration = Duration::from_secs(10);

impl Stage {
    pub(super) async fn inject_redis(&mut self, fault: Planned) {
        let done = match fault.kind {
            Kind::KillEmpty => self.kill_empty(fault).await,
            Kind::AofCut => self.cut_file(fault).await,
            Kind::Snapshot | Kind::Reload => self.save().await,
            Kind::ReplicaPromoted | Kind::HiddenFailover => self.leave_behind(),
            Kind::StreamRollback => self.dump(&self.stream(fault.pick)).await,
            kind if kind.loses() => self.lose_at_once(fault).await,
            Kind::GroupRewind | Kind::GroupDestroy => self.touch_group(fault).await,
            Kind::ForeignTrim => self.trim(fault).await,
            _ => self.hinder(fault).await,
        };
        if let Err(error) = done {
            println!("{fault}: {error}");
        }
    }

    pub(super) async fn heal_redis(&mut self, fault: Planned) {
        let done = match fault.kind {
            Kind::Snapshot => self.come_back(fault).await,
            Kind::Reload => self.reload(fault).await,
            Kind::ReplicaPromoted | Kind::HiddenFailover => self.promote(fault).await,
            Kind::StreamRollback => self.roll_back(fault).await,
            Kind::ReplicaOf => self.ask(&["REPLICAOF", "NO", "ONE"]).await,
            Kind::OutOfMemory => self.ask(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Kind::NoReplicas => self.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await,
            Kind::Misconf => self.write_again().await,
            Kind::ForeignTrim => {
                self.rebuild(&self.stream(fault.pick));
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = done {
            println!("healing {fault}: {error}");
        }
    }

    // ---- losses ----

    /// By a command, in one step with the look at what is lost.
    async fn lose_at_once(&mut self, fault: Planned) -> Result<(), String> {
        let (began, known) = (now(), self.known().await);
        let stream = self.stream(fault.pick);
        let key = self.key(&stream);
        let key = key.as_bytes();
        let mut commands: Vec<Vec<&[u8]>> = match fault.kind {
            Kind::FlushAll => vec![vec![b"FLUSHALL"]],
            Kind::FlushDb => vec![vec![b"FLUSHDB"]],
            Kind::SwapDb => vec![vec![b"SWAPDB", b"0", b"1"]],
            Kind::StreamRename => vec![vec![b"RENAME", key, b"elsewhere"]],
            Kind::StreamExpire => vec![vec![b"PEXPIRE", key, b"0"]],
            _ => vec![vec![b"DEL", key]],
        };
        if fault.kind == Kind::SwapDb {
            // Never back to what had been swapped away.
            let empty: [&[&[u8]]; 3] = [&[b"SELECT", b"1"], &[b"FLUSHDB"], &[b"SELECT", b"0"]];
            self.observe(&empty).await?;
        }
        if fault.kind == Kind::StreamRename || fault.kind == Kind::StreamExpire {
            // There must be something.
            self.observe(&[&[b"DEL", b"elsewhere"]]).await?;
            if !self.ask::<bool>(&["EXISTS", &self.key(&stream)]).await? {
                return Ok(());
            }
        }
        let kept =
            |group: &&String| !self.destroyed.contains_key(&((*group).clone(), stream.clone()));
        if fault.kind == Kind::StreamRemade {
            for group in self.groups.iter().filter(kept) {
                commands.push(vec![b"XGROUP", b"CREATE", key, group.as_bytes(), b"$", b"MKSTREAM"]);
            }
        }
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let had = self.observe(&commands).await?;
        let all = fault.kind.loses_all();
        self.lose(fault.kind, began, known, &had, |lost| (all || *lost == stream).then_some(0));
        Ok(())
    }

    /// Lets nobody write any more, sees where all streams are, and kills the server.
    async fn kill_redis(&mut self) -> Result<Observed, String> {
        let had = self.still().await?;
        self.world.redis.kill().map_err(|error| error.to_string())?;
        Ok(had)
    }

    /// Where all streams are; nobody writes to them from here on, for some seconds at most.
    async fn still(&self) -> Result<Observed, String> {
        self.ask::<()>(&["CLIENT", "PAUSE", "5000", "WRITE"]).await?;
        let had = self.observe(&[]).await;
        if had.is_err() {
            self.ask::<()>(&["CLIENT", "UNPAUSE"]).await?;
        }
        had
    }

    async fn kill_empty(&mut self, fault: Planned) -> Result<(), String> {
        let (began, known) = (now(), self.known().await);
        let had = self.kill_redis().await?;
        last(fault).await;
        self.remove_dump();
        let _ = std::fs::remove_dir_all(self.world.redis.data_dir().join("appendonlydir"));
        self.start_redis().await?;
        self.lose(fault.kind, began, known, &had, |_| Some(0));
        Ok(())
    }

    /// The end of the append-only file never reached the disk.
    async fn cut_file(&mut self, fault: Planned) -> Result<(), String> {
        let (began, known) = (now(), self.known().await);
        let had = self.kill_redis().await?;
        self.front.refuse(true);
        self.front.cut();
        last(fault).await;
        self.shorten_file(fault.pick % 40_000);
        self.start_redis().await?;
        self.lost_since(fault.kind, began, known, had).await
    }

    /// Does nothing where there is no file, as after a replica has been promoted that keeps none.
    fn shorten_file(&self, bytes: u64) {
        let folder = self.world.redis.data_dir().join("appendonlydir");
        let files = std::fs::read_dir(folder).into_iter().flatten();
        let files = files.map(|file| file.unwrap().path());
        let last = files.filter(|file| file.to_string_lossy().ends_with(".incr.aof")).max();
        if let Some(path) = last {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length.saturating_sub(bytes)).unwrap();
        }
    }

    /// Relays may come back when it has been seen what is left.
    async fn lost_since(
        &mut self,
        kind: Kind,
        began: Micros,
        known: Option<HashMap<String, Known>>,
        had: Observed,
    ) -> Result<(), String> {
        let has = self.observe(&[]).await;
        if let Ok(has) = &has {
            self.lose(kind, began, known, &had, |stream| has.get(stream).map(|at| at.0));
        }
        self.front.refuse(false);
        has.map(|_| ())
    }

    /// A snapshot to come back to.
    async fn save(&mut self) -> Result<(), String> {
        let saved = self.still().await?;
        let done = self.ask::<()>(&["SAVE"]).await;
        self.ask::<()>(&["CLIENT", "UNPAUSE"]).await?;
        self.saved = done.is_ok().then_some(saved);
        done
    }

    async fn come_back(&mut self, fault: Planned) -> Result<(), String> {
        if self.saved.is_none() || !self.world.redis.data_dir().join("dump.rdb").is_file() {
            return Ok(());
        }
        let (began, known) = (now(), self.known().await);
        let had = self.kill_redis().await?;
        self.front.refuse(true);
        self.front.cut();
        let restarted = self.start_redis().await;
        let lost = self.lost_since(fault.kind, began, known, had).await;
        restarted.and(lost)
    }

    /// As [`Stage::come_back`], under the connections that are open.
    async fn reload(&mut self, fault: Planned) -> Result<(), String> {
        let aof = self.schedule.settings.aof > 0;
        let Some(saved) = self.saved.clone().filter(|_| !aof) else { return Ok(()) };
        let (began, known) = (now(), self.known().await);
        let had = self.still().await?;
        if let Err(error) = self.ask::<()>(&["DEBUG", "RELOAD", "NOSAVE"]).await {
            println!("{fault}: {error}: Redis is started again");
            self.front.refuse(true);
            self.front.cut();
            // It may have died of it.
            let killed = self.world.redis.kill().map_err(|error| error.to_string());
            let started = self.start_redis().await;
            let lost = self.lost_since(fault.kind, began, known, had).await;
            return killed.and(started).and(lost);
        }
        self.ask::<()>(&["CLIENT", "UNPAUSE"]).await?;
        self.lose(fault.kind, began, known, &had, |stream| saved.get(stream).map(|at| at.0));
        Ok(())
    }

    /// The replica hears nothing more.
    fn leave_behind(&mut self) -> Result<(), String> {
        if let Some((_, link)) = &self.replica {
            link.refuse(true);
            link.cut();
        }
        Ok(())
    }

    /// The replica takes the place of its master, with what it has. Hidden, under connections that stay.
    async fn promote(&mut self, fault: Planned) -> Result<(), String> {
        let Some((replica, _link)) = self.replica.take() else { return Ok(()) };
        let (began, known) = (now(), self.known().await);
        let hidden = fault.kind == Kind::HiddenFailover;
        if hidden {
            self.front.hold_still().await;
        } else {
            self.front.refuse(true);
            self.front.cut();
        }
        let had = self.still().await;
        let old = std::mem::replace(&mut self.world.redis, replica);
        let promoted = self.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.world.redis.port()));
        self.moved();
        self.side.retarget(address);
        self.side.cut();
        self.front.retarget(address);
        let lost = self.lost_since(fault.kind, began, known, had?).await;
        if hidden {
            self.front.go_on();
            // Its end must not be taken for that of the connections.
            let left = || async { self.front.is_switched() };
            eventually("connections have left the old server", PATIENCE, left).await;
        }
        drop(old);
        promoted.and(lost)
    }

    async fn dump(&mut self, stream: &str) -> Result<(), String> {
        let key = self.key(stream);
        let at = self.still().await?;
        let dumped: Result<Option<Vec<u8>>, String> = self.ask(&["DUMP", &key]).await;
        self.ask::<()>(&["CLIENT", "UNPAUSE"]).await?;
        if let Ok(Some(dumped)) = dumped {
            self.dumps.insert(stream.to_owned(), (dumped, at[stream]));
        }
        Ok(())
    }

    async fn roll_back(&mut self, fault: Planned) -> Result<(), String> {
        let stream = self.stream(fault.pick);
        let Some((dumped, at)) = self.dumps.remove(&stream) else { return Ok(()) };
        let (began, known) = (now(), self.known().await);
        let key = self.key(&stream);
        let restore: [&[u8]; 5] = [b"RESTORE", key.as_bytes(), b"0", &dumped, b"REPLACE"];
        let had = self.observe(&[&restore]).await?;
        let is_it = |lost: &str| (lost == stream).then_some(at.0);
        self.lose(fault.kind, began, known, &had, is_it);
        Ok(())
    }

    // ---- what somebody else does ----

    async fn touch_group(&mut self, fault: Planned) -> Result<(), String> {
        let (group, stream) = match fault.kind {
            // One that nobody else is measured by.
            Kind::GroupDestroy => {
                (self.groups[self.groups.len() - 1].clone(), self.stream(fault.pick))
            }
            _ => self.seat(fault.pick),
        };
        let (seat, key) = ((group.clone(), stream.clone()), self.key(&stream));
        if fault.kind == Kind::GroupRewind {
            self.rewound.entry(seat).or_insert(now());
            return self.ask(&["XGROUP", "SETID", &key, &group, "0"]).await;
        }
        if self.groups.len() > 1 {
            self.consumers.dismiss(&group, &stream);
            self.destroyed.entry(seat).or_insert(now());
            self.ask::<u64>(&["XGROUP", "DESTROY", &key, &group]).await?;
        }
        Ok(())
    }

    /// Somebody removes what was not acknowledged; `outbox-relay rebuild` puts it back.
    async fn trim(&mut self, fault: Planned) -> Result<(), String> {
        let stream = self.stream(fault.pick);
        let keep = (fault.pick % 7).to_string();
        let began = now();
        let key = self.key(&stream);
        let trim: [&[u8]; 4] = [b"XTRIM", key.as_bytes(), b"MAXLEN", keep.as_bytes()];
        let trimmed = self.observe(&[&trim]).await;
        // Without an answer it may have been done all the same.
        self.tampered.push((stream.clone(), began, Micros::MAX));
        self.trimmed.insert(stream.clone());
        // Whoever reads on before it is put back has passed over what was removed.
        let last = trimmed.as_ref().map_or(u64::MAX, |at| at[&stream].0);
        let removed = self.removed.entry(stream).or_default();
        *removed = last.max(*removed);
        trimmed.map(|_| ())
    }

    pub(crate) fn rebuild(&mut self, stream: &str) {
        if self.command(&["rebuild", stream, "--yes"]) {
            self.trimmed.remove(stream);
            let ended = now();
            for (_, _, until) in self.tampered.iter_mut().filter(|(name, ..)| name == stream) {
                *until = ended.min(*until);
            }
        }
    }

    // ---- no loss ----

    async fn hinder(&mut self, fault: Planned) -> Result<(), String> {
        let lasts = fault.lasts.to_string();
        match fault.kind {
            // Nobody is there: it keeps what it has, and takes no writes.
            Kind::ReplicaOf => self.ask(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Kind::ClientKill => {
                self.ask::<u64>(&["CLIENT", "KILL", "TYPE", "normal"]).await.map(|_| ())
            }
            Kind::ScriptFlush => self.ask(&["SCRIPT", "FLUSH"]).await,
            Kind::RedisSleep => {
                let seconds = format!("{:.3}", fault.lasts as f64 / 1_000.0);
                self.ask(&["DEBUG", "SLEEP", &seconds]).await
            }
            Kind::ClientPause => {
                let mode = if fault.pick.is_multiple_of(2) { "ALL" } else { "WRITE" };
                self.ask(&["CLIENT", "PAUSE", &lasts, mode]).await
            }
            Kind::RedisFreeze => {
                self.world.redis.freeze().map_err(|error| error.to_string())?;
                last(fault).await;
                self.world.redis.thaw().map_err(|error| error.to_string())
            }
            Kind::OutOfMemory => self.fill(fault.pick).await,
            Kind::NoReplicas => self.ask(&["CONFIG", "SET", "min-replicas-to-write", "3"]).await,
            Kind::Misconf => self.refuse_writes().await,
            _ => Ok(()),
        }
    }

    /// Room for a little more, or for nothing.
    async fn fill(&self, pick: u64) -> Result<(), String> {
        let info: String = self.ask(&["INFO", "memory"]).await?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        let used: u64 = used.and_then(|used| used.trim().parse().ok()).unwrap_or(1);
        let room = if pick.is_multiple_of(2) { 0 } else { pick };
        self.ask(&["CONFIG", "SET", "maxmemory", &(used + room).to_string()]).await
    }

    async fn start_redis(&mut self) -> Result<(), String> {
        // As a server that is told not to write, or it could not start.
        let _ = std::fs::remove_dir(self.world.redis.data_dir().join("dump.rdb"));
        self.world.redis.start_again().map_err(|error| error.to_string())?;
        // It answers while it loads, and says nothing else then.
        let loaded = || async { self.ask::<String>(&["PING"]).await.is_ok() };
        eventually("Redis has loaded its files", PATIENCE, loaded).await;
        Ok(())
    }

    fn remove_dump(&self) {
        let _ = std::fs::remove_file(self.world.redis.data_dir().join("dump.rdb"));
    }

    /// A snapshot cannot be written, so nothing else may be.
    async fn refuse_writes(&self) -> Result<(), String> {
        self.remove_dump();
        let _ = std::fs::create_dir(self.world.redis.data_dir().join("dump.rdb"));
        self.ask::<()>(&["CONFIG", "SET", "save", "3600 1"]).await?;
        self.ask::<String>(&["BGSAVE"]).await.map(|_| ())
    }

    /// Redis takes writes, whatever it was told.
    pub(crate) async fn let_write(&self) -> Result<(), String> {
        self.ask::<()>(&["CLIENT", "UNPAUSE"]).await?;
        self.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await?;
        self.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await?;
        self.ask::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await?;
        match self.schedule.has(Kind::Misconf) {
            true => self.write_again().await,
            false => Ok(()),
        }
    }

    async fn write_again(&self) -> Result<(), String> {
        let _ = std::fs::remove_dir(self.world.redis.data_dir().join("dump.rdb"));
        self.ask::<()>(&["CONFIG", "SET", "save", ""]).await?;
        // Until a snapshot has been written; one may be under way that cannot be.
        for _ in 0..200 {
            let _ = self.ask::<String>(&["BGSAVE"]).await;
            let info: String = self.ask(&["INFO", "persistence"]).await?;
            if info.contains("rdb_last_bgsave_status:ok") {
                break;
            }
            pause().await;
        }
        self.remove_dump();
        Ok(())
    }
}
