//! Random numbers that a printed seed repeats.

/// A small generator (splitmix64): the same seed gives the same numbers on every machine.
#[derive(Debug)]
pub(crate) struct Dice(u64);

#[allow(
    dead_code,
    reason = "the simulation and the tests on real servers use what they need of it"
)]
impl Dice {
    /// Seeded by `OUTBOX_TEST_SEED`, or at random; a test that fails shows the seed.
    pub(crate) fn new() -> Self {
        let given = std::env::var("OUTBOX_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        println!("OUTBOX_TEST_SEED={seed}");
        Self(seed)
    }

    /// Dice that fall as this seed says.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of its own for somebody else.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number of `range`, both ends included.
    pub(crate) fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// True once in `times`, on average.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
