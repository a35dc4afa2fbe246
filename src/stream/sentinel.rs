//! Sentinels: who of several servers is the primary now.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, cmd};

use super::address::{at, client, place};
use crate::tls::Tls;

/// A sentinel that has not answered for so long is not asked further.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sentinels that watch one primary. They are asked anew for each connection.
#[derive(Clone)]
pub(super) struct Sentinels {
    /// What they call it.
    pub(super) primary: String,
    pub(super) nodes: Vec<Client>,
    /// How to connect to it, but for the place.
    pub(super) server: ConnectionInfo,
    pub(super) tls: Tls,
}

impl Sentinels {
    /// What opens connections to the server that most of those that answer call the primary. The first answer
    /// that more than half of all agree on is enough: one on a machine that is gone does not answer at all.
    ///
    /// # Errors
    /// A sentence: none names a primary, or as many name one as another.
    pub(super) async fn primary(&self) -> Result<Client, String> {
        let mut asked: FuturesUnordered<_> = self.nodes.iter().map(|node| self.ask(node)).collect();
        let (mut named, mut failed) = (HashMap::<(String, u16), usize>::new(), Vec::new());
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(place) => {
                    let times = named.entry(place).or_default();
                    *times += 1;
                    if *times * 2 > self.nodes.len() {
                        break;
                    }
                }
                Err(why) => failed.push(why),
            }
        }
        let most = named.values().max().copied().unwrap_or_default();
        let mut first =
            named.into_iter().filter(|(_, times)| *times == most).map(|(place, _)| place);
        match (first.next(), first.next()) {
            (Some((host, port)), None) => client(at(&self.server, host, port), &self.tls),
            (Some(one), Some(other)) => Err(format!(
                "as many sentinels call {}:{} the primary as {}:{}",
                one.0, one.1, other.0, other.1
            )),
            (None, _) => Err(format!("no sentinel names a primary: {}", failed.join("; "))),
        }
    }

    async fn ask(&self, node: &Client) -> Result<(String, u16), String> {
        let name = place(node.get_connection_info());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let asked = async {
            let mut connection = node.get_multiplexed_async_connection_with_config(&config).await?;
            let mut command = cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
            command.query_async::<Option<(String, u16)>>(&mut connection).await
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(Some(place))) => Ok(place),
            Ok(Ok(None)) => Err(format!("{name} knows no primary {}", self.primary)),
            Ok(Err(error)) => Err(format!("{name}: {error}")),
            Err(_) => Err(format!("{name} did not answer")),
        }
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> =
            self.nodes.iter().map(|node| place(node.get_connection_info())).collect();
        write!(f, "{} (sentinels {})", self.primary, nodes.join(", "))
    }
}
