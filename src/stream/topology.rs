//! Which primary of a Redis Cluster has which slot, as one of its nodes says.

use redis::{FromRedisValue as _, Value};

use super::slot::SLOTS;

/// The primaries of a cluster, and the slots of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// Host and port of each; an empty host is the one that was asked.
    pub(super) primaries: Vec<(String, u16)>,
    /// For each slot, its primary.
    pub(super) slots: Box<[u16]>,
}

impl Topology {
    /// Reads the answer to CLUSTER SLOTS.
    ///
    /// # Errors
    /// A sentence: it is odd, or there are slots without a primary.
    pub(super) fn read(reply: &Value) -> Result<Self, String> {
        let mut primaries = Vec::new();
        let mut slots: Vec<Option<u16>> = vec![None; usize::from(SLOTS)];
        for range in list(reply)? {
            let [first, last, primary, ..] = list(range)? else { return Err(odd()) };
            let place = place(primary)?;
            let known = primaries.iter().position(|known| *known == place);
            let index = known.unwrap_or(primaries.len());
            if known.is_none() {
                primaries.push(place);
            }
            let index = u16::try_from(index).map_err(|_| odd())?;
            let (first, last) = (number(first)?, number(last)?);
            slots.get_mut(first..=last).ok_or_else(odd)?.fill(Some(index));
        }
        let covered = slots.iter().flatten().count();
        let slots: Option<Box<[u16]>> = slots.into_iter().collect();
        match slots {
            Some(slots) => Ok(Self { primaries, slots }),
            None => Err(format!("only {covered} of its {SLOTS} slots have a primary")),
        }
    }
}

fn odd() -> String {
    "it answers CLUSTER SLOTS oddly".to_owned()
}

fn list(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(odd()),
    }
}

fn number(value: &Value) -> Result<usize, String> {
    usize::from_redis_value_ref(value).map_err(|_| odd())
}

/// A host that is not known, as before a node has met another one, is the one that was asked.
fn place(node: &Value) -> Result<(String, u16), String> {
    let [host, port, ..] = list(node)? else { return Err(odd()) };
    let host: Option<String> = Option::from_redis_value_ref(host).map_err(|_| odd())?;
    let host = host.filter(|host| host != "?").unwrap_or_default();
    Ok((host, u16::from_redis_value_ref(port).map_err(|_| odd())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        let replica = node.clone();
        Value::Array(vec![Value::Int(first), Value::Int(last), node, replica])
    }

    #[test]
    fn each_slot_has_the_primary_that_the_answer_names() {
        let host = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let reply = Value::Array(vec![
            range(0, 99, host("a"), 1),
            range(100, 199, Value::Nil, 2),
            range(200, 16_383, host("a"), 1),
        ]);
        let read = Topology::read(&reply).expect("a topology");
        assert_eq!(read.primaries, [("a".to_owned(), 1), (String::new(), 2)]);
        assert_eq!([99, 100, 199, 200].map(|slot| read.slots[slot]), [0, 1, 1, 0]);
    }

    #[test]
    fn slots_without_a_primary_are_told() {
        let host = Value::BulkString(b"a".to_vec());
        let reply = Value::Array(vec![range(0, 99, host.clone(), 1)]);
        let told = Topology::read(&reply).expect_err("most are missing");
        assert!(told.contains("only 100 of its 16384 slots"), "{told}");
        let beyond = Value::Array(vec![range(0, 16_384, host, 1)]);
        assert!(Topology::read(&beyond).is_err());
        assert!(Topology::read(&Value::Nil).is_err());
    }
}
