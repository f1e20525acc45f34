//! The names of channels, packed.
//!
//! A name on the heap of its own would cost its bytes, 16 of the allocator's and 16 of a pointer with its length. Here it
//! costs its bytes, rounded up to four, and a four-byte index; its length is its user's to remember.
//!
//! Invariant: a name is asked for and given back by the length that it was added with; another length leads into
//! other names.

use crate::limits::CHANNEL_BYTES_MAX;

/// Names of one chunk.
const CHUNK: usize = 256;

/// Sizes of places differ by so many bytes; a free place holds the index of the next.
const STEP: usize = size_of::<u32>();

const CLASSES: usize = CHANNEL_BYTES_MAX.div_ceil(STEP);

/// No further free place.
const NONE: u32 = u32::MAX;

/// Names by length and index.
#[derive(Debug)]
pub struct Names {
    classes: Box<[Class]>,
}

/// Places of one size.
#[derive(Debug)]
struct Class {
    chunks: Vec<Box<[u8]>>,
    length: u32,
    free: u32,
}

impl Default for Names {
    fn default() -> Self {
        let class = |_| Class { chunks: Vec::new(), length: 0, free: NONE };
        Self { classes: (0..CLASSES).map(class).collect() }
    }
}

impl Names {
    /// Adds a name of at most [`CHANNEL_BYTES_MAX`] bytes: its index among those of its length.
    pub fn insert(&mut self, name: &str) -> u32 {
        let class = class(name.len());
        let bytes = place_bytes(class);
        let places = &mut self.classes[class];
        let index = if places.free != NONE {
            let index = places.free;
            let place = places.place(index, bytes);
            places.free = u32::from_ne_bytes(place[..STEP].try_into().expect("a place has four bytes"));
            index
        } else {
            if places.length as usize == places.chunks.len() * CHUNK {
                places.chunks.push(vec![0; CHUNK * bytes].into());
            }
            places.length += 1;
            places.length - 1
        };
        places.place_mut(index, bytes)[..name.len()].copy_from_slice(name.as_bytes());
        index
    }

    /// A name that was added.
    pub fn get(&self, index: u32, length: usize) -> &[u8] {
        let class = class(length);
        &self.classes[class].place(index, place_bytes(class))[..length]
    }

    /// Gives the place of a name back.
    pub fn remove(&mut self, index: u32, length: usize) {
        let class = class(length);
        let places = &mut self.classes[class];
        let next = places.free;
        places.place_mut(index, place_bytes(class))[..STEP].copy_from_slice(&next.to_ne_bytes());
        places.free = index;
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let chunks = self.classes.iter().enumerate().map(|(class, places)| {
            places.chunks.len() * CHUNK * place_bytes(class) + places.chunks.capacity() * size_of::<Box<[u8]>>()
        });
        chunks.sum::<usize>() + size_of_val(&*self.classes)
    }
}

impl Class {
    fn place(&self, index: u32, bytes: usize) -> &[u8] {
        let start = index as usize % CHUNK * bytes;
        &self.chunks[index as usize / CHUNK][start..start + bytes]
    }

    fn place_mut(&mut self, index: u32, bytes: usize) -> &mut [u8] {
        let start = index as usize % CHUNK * bytes;
        &mut self.chunks[index as usize / CHUNK][start..start + bytes]
    }
}

fn class(length: usize) -> usize {
    length.max(1).div_ceil(STEP) - 1
}

fn place_bytes(class: usize) -> usize {
    (class + 1) * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_lengths_are_kept_and_their_places_used_again() {
        let name = |number: usize| format!("{number}").repeat(86)[..number % 256].to_owned();
        let mut names = Names::default();
        let indices: Vec<u32> = (0..2_000).map(|number| names.insert(&name(number))).collect();
        let bytes = names.bytes();
        for number in (0..2_000).step_by(2) {
            names.remove(indices[number], number % 256);
        }
        let again: Vec<u32> = (0..2_000).step_by(2).map(|number| names.insert(&name(number))).collect();
        assert_eq!(names.bytes(), bytes, "free places are used before new ones");
        for number in 0..2_000 {
            let index = if number % 2 == 0 { again[number / 2] } else { indices[number] };
            assert_eq!(names.get(index, number % 256), name(number).as_bytes());
        }
    }

    #[test]
    fn a_name_costs_little_more_than_its_bytes() {
        let mut names = Names::default();
        let unused = names.bytes();
        for number in 0..10_000 {
            names.insert(&format!("#user-{number:06}"));
        }
        let bytes = (names.bytes() - unused) as f64 / 10_000.0;
        assert!(bytes <= 12.5, "{bytes} bytes for a name of 12");
    }
}
