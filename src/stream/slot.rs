//! The slot of a key in a Redis Cluster. Pure.

use crate::hash::crc16;

/// Slots of every cluster.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key: of the part in braces if there is one that is not empty, as the specification of Redis
/// Cluster has it.
pub(super) fn slot(key: &str) -> u16 {
    crc16(tag(key).unwrap_or(key).as_bytes()) % SLOTS
}

fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::{slot, tag};

    #[test]
    fn a_tag_is_the_first_part_in_braces_and_not_empty() {
        assert_eq!((tag("orders:{0}"), tag("{a}b{")), (Some("0"), Some("a")));
        assert_eq!((tag("orders"), tag("a{}b{c}"), tag("a}b{c")), (None, None, None));
    }

    /// As CLUSTER KEYSLOT of Redis 7.0.15 answers.
    #[test]
    fn keys_have_the_slots_that_redis_gives_them() {
        let known = [("orders", 105), ("orders:{0}", 13_907), ("a}b{c", 13_587), ("", 0)];
        for (key, expected) in known {
            assert_eq!(slot(key), expected, "{key}");
        }
    }
}
