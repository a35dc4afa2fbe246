//! Sentinels that watch a Redis.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outbox_relay::sandbox::Redis;

use super::eventually;

/// What they call the primary.
pub(crate) const PRIMARY: &str = "main";
const BOUND: Duration = Duration::from_secs(30);

/// Running sentinels; killed when dropped.
pub(crate) struct Sentinels {
    nodes: Vec<(Child, u16)>,
    _folder: tempfile::TempDir,
}

impl Sentinels {
    /// Three that agree by two, after a second without an answer of the primary.
    pub(crate) async fn watch(primary: &Redis) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        while nodes.len() < 3 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = folder.path().join(format!("{free}.conf"));
            let settings = format!(
                "port {free}\ndir {}\nlogfile {free}.log\n\
                 sentinel monitor {PRIMARY} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {PRIMARY} 1000\n\
                 sentinel failover-timeout {PRIMARY} 3000\n",
                folder.path().display(),
                primary.port()
            );
            std::fs::write(&file, settings).unwrap();
            let child = Command::new(primary.program())
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            nodes.push((child, free));
            // Another one may have taken the port between.
            if !answers(&mut nodes.last_mut().unwrap().0, free).await {
                nodes.pop();
            }
        }
        Self { nodes, _folder: folder }
    }

    /// Their places, as a URL has them.
    pub(crate) fn hosts(&self) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        hosts.join(",")
    }

    /// Waits until each of them knows a replica and both others.
    pub(crate) async fn know_each_other(&self) {
        for (_, port) in &self.nodes {
            eventually("a sentinel knows a replica and the others", BOUND, || async {
                let known = |what: &'static str| async move {
                    let found: Vec<redis::Value> =
                        ask(*port, &["SENTINEL", what, PRIMARY]).await.unwrap_or_default();
                    found.len()
                };
                known("REPLICAS").await == 1 && known("SENTINELS").await == 2
            })
            .await;
        }
    }

    /// Waits until all of them call the server on `port` the primary.
    pub(crate) async fn name(&self, primary: u16) {
        for (_, port) in &self.nodes {
            eventually("a sentinel names another primary", BOUND, || async {
                let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY];
                let named: Option<(String, u16)> = ask(*port, &words).await.unwrap_or_default();
                named.is_some_and(|(_, named)| named == primary)
            })
            .await;
        }
    }

    /// SIGKILL for one of them.
    pub(crate) fn kill_one(&mut self) {
        let (mut child, _) = self.nodes.remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for (child, _) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn ask<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
}

/// Whether it comes up, rather than ends.
async fn answers(child: &mut Child, port: u16) -> bool {
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if ask::<String>(port, &["PING"]).await.is_ok() {
            return true;
        }
        super::pause().await;
    }
}
