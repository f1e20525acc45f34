//! Small values by index, in chunks.
//!
//! A list that doubles holds up to twice what it needs, and moves a million values at once; an arena grows by a chunk and
//! moves nothing. What is given back is its user's to remember and to use again.

/// Values in a chunk.
const CHUNK: usize = 512;

/// Values by index.
#[derive(Debug)]
pub struct Arena<T> {
    chunks: Vec<Box<[T]>>,
    length: u32,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), length: 0 }
    }
}

impl<T: Copy> Arena<T> {
    /// Adds a value: its index.
    pub fn push(&mut self, value: T) -> u32 {
        let index = self.length;
        if index as usize == self.chunks.len() * CHUNK {
            self.chunks.push(vec![value; CHUNK].into());
        }
        self.length = index.checked_add(1).expect("memory ends before values number 2^32");
        *self.get_mut(index) = value;
        index
    }

    /// How many.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// A value that was added.
    pub fn get(&self, index: u32) -> &T {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// A value that was added.
    pub fn get_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>() + self.chunks.capacity() * size_of::<Box<[T]>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_where_they_are() {
        let mut arena = Arena::default();
        for value in 0..2_000_u32 {
            assert_eq!(arena.push(value), value);
        }
        *arena.get_mut(700) = 7;
        assert_eq!([0, 511, 512, 700, 1_999].map(|index| *arena.get(index)), [0, 511, 512, 7, 1_999]);
        assert_eq!(arena.len(), 2_000);
        assert!(arena.bytes() >= 8_000 && arena.bytes() < 8_000 + CHUNK * 4 + 256, "{} bytes", arena.bytes());
    }
}
