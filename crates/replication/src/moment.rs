//! Time as the machines are told it.

use std::ops::Add;

/// Milliseconds of a clock that never goes back, whose zero means nothing: not the wall clock, which people set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds from `earlier` to here; 0 when it is the later one.
    pub fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// So many milliseconds before; `None` before the clock's zero, of which nothing is known.
    pub fn back(self, ms: u64) -> Option<Moment> {
        self.0.checked_sub(ms).map(Moment)
    }
}

/// Moves on by milliseconds.
impl Add<u64> for Moment {
    type Output = Moment;

    fn add(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms))
    }
}
