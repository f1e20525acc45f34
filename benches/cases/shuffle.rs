//! Orders in which nothing lies beside what came before it, so that caches help no more than they will in service.

use tidegate::channel::Random;

/// The numbers below `count`, in an order that is the same each time.
pub fn shuffled(count: u32) -> Vec<u32> {
    let mut random = Random::new(1);
    let mut numbers: Vec<u32> = (0..count).collect();
    for index in (1..numbers.len()).rev() {
        numbers.swap(index, random.below(index as u64 + 1) as usize);
    }
    numbers
}
