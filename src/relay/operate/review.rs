//! A review of Redis that knows from Postgres which streams the relay fills.

use crate::error::Result;
use crate::outbox::{Database, Survey};
use crate::review::{self, Review, Wish};
use crate::stream::Server;

/// Looks at all of Redis. Without a `database`, streams that look like the relay's are taken for them.
/// `progress` is told how many keys of how many are done.
pub async fn review(
    database: Option<&Database>,
    server: &Server,
    wish: &Wish,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Review {
    let streams = match database {
        Some(database) => Some(streams(database).await),
        None => None,
    };
    let (known, problem) = match streams {
        Some(Ok(streams)) => (Some(streams), None),
        Some(Err(error)) => (None, Some(format!("which streams the relay fills: {error}"))),
        None => (None, None),
    };
    let mut review = review::review(server, wish, known.as_deref(), progress).await;
    review.ok &= problem.is_none();
    review.unchecked.extend(problem);
    review
}

/// Names of all streams that rows name.
async fn streams(database: &Database) -> Result<Vec<String>> {
    let survey = Survey::new(database.connect_checked("review").await?.0);
    Ok(survey.streams().await?.into_iter().map(|status| status.stream).collect())
}
