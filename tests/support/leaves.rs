//! Leaves of `outbox.entry` that are small enough to be purged within a test.

use tokio_postgres::Client;

use super::world::World;

/// A leaf per hundred ids from here on.
pub(crate) async fn attach_small(client: &Client) {
    client.batch_execute("select outbox.attach_leaves(100, 20)").await.unwrap();
}

/// Small leaves in place of those that `migrate` has made, which are empty yet.
pub(crate) async fn make_small(world: &World) {
    let sql = "do $$ declare l record; begin \
                   for l in select * from outbox.leaf loop \
                       execute format('drop table outbox.%I', l.name); \
                   end loop; \
                   delete from outbox.leaf; \
               end $$";
    world.sql(sql).await;
    attach_small(&world.owner().await).await;
}
