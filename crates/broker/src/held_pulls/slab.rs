//! Things that are numbered by their places, so that what belongs to them finds them without looking for a name.

/// Values by number; a number that has become free is given again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.insert_with(|_| value)
    }

    /// Makes a value that knows its number.
    pub(super) fn insert_with(&mut self, make: impl FnOnce(u32) -> T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.values[number as usize] = Some(make(number));
            return number;
        }
        let number = u32::try_from(self.values.len()).expect("no more than pulls may be held, which a u32 counts");
        self.values.push(Some(make(number)));
        number
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.values.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.values.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(value)
    }

    /// All numbers that are or have been given.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.values.len()).unwrap_or(u32::MAX)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.values.len()
    }
}
