//! The timers of a shard's connections: one each, in a hashed wheel.
//!
//! Owns the wheel. The links of a timer live in its connection's slot and are reached through
//! [`Timers`], so a timer costs 12 bytes there and nothing here. What a timer means when it is due
//! is its connection's business.
//!
//! A tick is 64 ms and the wheel has 1,024 slots, so one revolution is 65 s: every deadline of the
//! protocol (a ping comes after 25 s) is less than one revolution away, is put into its slot once and
//! taken out once. A timer that is further away (the expiry of a token) is passed by once per
//! revolution.
//!
//! Invariants:
//! - A timer is never due early, and at most one tick late plus the time between two calls of
//!   [`Wheel::advance`].
//! - A timer that is scheduled is in exactly one slot's list; before its connection's slot is given
//!   back it must be cancelled, or the list would lead into somebody else's connection.
//! - Timers of one slot become due in the order in which they were scheduled, so that pings that were
//!   spread evenly stay spread.
//! - No call walks more than its bound, nor every tick of a long sleep.

/// Milliseconds of a tick: finer than any deadline needs, coarse enough that a shard wakes 16 times a second at most.
pub const TICK_MS: u64 = 64;

const SLOTS: usize = 1024;

/// No index: the end of everything.
const NONE: u32 = u32::MAX;

/// Farther ahead than this (4 years) no timer is scheduled; ticks are compared in 32 bits.
const AHEAD_TICKS_MAX: u64 = i32::MAX as u64;

/// A connection's timer: its neighbours in the list of its slot, and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerLinks {
    previous: u32,
    next: u32,
    /// The tick at whose end the timer is due: its low 32 bits.
    due: u32,
}

const _: () = assert!(size_of::<TimerLinks>() == 12);
const _: () = assert!(SLOTS.is_power_of_two() && SLOTS.is_multiple_of(u64::BITS as usize));

impl TimerLinks {
    /// A timer that is not scheduled.
    pub const fn new() -> Self {
        Self { previous: NONE, next: NONE, due: 0 }
    }

    /// Whether the timer is in the wheel.
    pub fn is_scheduled(&self) -> bool {
        self.next != NONE
    }
}

impl Default for TimerLinks {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the links live: the slab of connections.
pub trait Timers {
    /// The links of a connection, which exists as long as it is scheduled.
    fn links(&mut self, index: u32) -> &mut TimerLinks;
}

/// The wheel of one shard.
pub struct Wheel {
    origin_ms: u64,
    /// The first tick that has not been passed.
    tick: u64,
    /// The next timer to look at in this tick's slot, if a call has stopped within it; else the slot's first.
    resume: u32,
    /// First timer of each slot. A list is a ring: the first timer's `previous` is the last.
    slots: Box<[u32; SLOTS]>,
    /// Slots that are not empty, by bit.
    occupied: [u64; SLOTS / u64::BITS as usize],
    scheduled: u32,
}

impl Wheel {
    /// An empty wheel.
    pub fn new(now_ms: u64) -> Self {
        Self {
            origin_ms: now_ms,
            tick: 0,
            resume: NONE,
            slots: Box::new([NONE; SLOTS]),
            occupied: [0; SLOTS / u64::BITS as usize],
            scheduled: 0,
        }
    }

    /// Timers that are scheduled.
    pub fn len(&self) -> u32 {
        self.scheduled
    }

    /// Whether no timer is scheduled.
    pub fn is_empty(&self) -> bool {
        self.scheduled == 0
    }

    /// The timer will be due at `due_ms`, or with the next tick if that has passed, and not at the moment that was said before.
    pub fn schedule(&mut self, timers: &mut impl Timers, index: u32, due_ms: u64) {
        self.cancel(timers, index);
        let tick =
            due_ms.saturating_sub(self.origin_ms).div_ceil(TICK_MS).clamp(self.tick, self.tick + AHEAD_TICKS_MAX);
        self.insert(timers, index, tick as u32);
    }

    /// The timer will not be due. No harm if it is not scheduled.
    pub fn cancel(&mut self, timers: &mut impl Timers, index: u32) {
        if timers.links(index).is_scheduled() {
            self.remove(timers, index);
        }
    }

    /// Moves on to `now_ms`: appends to `due` the timers that are due, which are scheduled no more, and
    /// returns their number. Looks at no more than `max` timers; whether some are left to look at,
    /// [`Wheel::next_due_ms`] tells by a time that is not in the future.
    pub fn advance(&mut self, timers: &mut impl Timers, now_ms: u64, due: &mut Vec<u32>, max: usize) -> usize {
        let now_tick = now_ms.saturating_sub(self.origin_ms) / TICK_MS;
        let already = due.len();
        let mut looks = 0;
        // A slot that the last call left half-way comes last once more: its first half was held against an earlier now.
        let mut slots_left = SLOTS + usize::from(self.resume != NONE);
        while self.tick <= now_tick {
            let Some(distance) = self.next_occupied().filter(|&distance| distance < slots_left) else {
                // Every slot has been passed: whatever is still in them is due later than now.
                self.pass_to(now_tick + 1);
                break;
            };
            if self.tick + distance as u64 > now_tick {
                self.pass_to(now_tick + 1);
                break;
            }
            if distance > 0 {
                self.pass_to(self.tick + distance as u64);
                slots_left -= distance;
            }
            if !self.look_at_slot(timers, now_tick, due, &mut looks, max) {
                break;
            }
            self.pass_to(self.tick + 1);
            slots_left -= 1;
        }
        due.len() - already
    }

    /// When [`Wheel::advance`] should be called next: never after a timer is due, at times before. None: there is no timer.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.next_occupied().map(|distance| self.origin_ms + (self.tick + distance as u64) * TICK_MS)
    }

    /// When a timer of this wheel is due; none: it is not scheduled.
    pub fn due_ms(&self, links: &TimerLinks) -> Option<u64> {
        // Ahead of the wheel by less than 2^31 ticks, or behind it by the slot that is being looked at.
        let ahead = links.due.wrapping_sub(self.tick as u32) as i32;
        links.is_scheduled().then(|| self.origin_ms + self.tick.saturating_add_signed(ahead.into()) * TICK_MS)
    }

    /// Looks at the timers of the current slot; whether it came to its end.
    fn look_at_slot(
        &mut self,
        timers: &mut impl Timers,
        now_tick: u64,
        due: &mut Vec<u32>,
        looks: &mut usize,
        max: usize,
    ) -> bool {
        let slot = slot_of(self.tick as u32);
        if self.resume == NONE {
            self.resume = self.slots[slot];
        }
        while self.resume != NONE {
            if *looks == max {
                return false;
            }
            *looks += 1;
            let index = self.resume;
            let links = *timers.links(index);
            self.resume = if links.next == self.slots[slot] { NONE } else { links.next };
            if is_due(links.due, now_tick) {
                self.remove(timers, index);
                due.push(index);
            }
        }
        true
    }

    fn pass_to(&mut self, tick: u64) {
        self.tick = tick;
        self.resume = NONE;
    }

    /// Slots from the current one to the first that is not empty.
    fn next_occupied(&self) -> Option<usize> {
        const WORD_BITS: usize = u64::BITS as usize;
        let start = slot_of(self.tick as u32);
        let words = self.occupied.len();
        // The current word is looked at twice: its slots from `start` on first, those before `start` last.
        (0..=words).find_map(|step| {
            let word = (start / WORD_BITS + step) % words;
            let below_start = (1_u64 << (start % WORD_BITS)) - 1;
            let mask = match step {
                0 => !below_start,
                step if step == words => below_start,
                _ => u64::MAX,
            };
            let found = self.occupied[word] & mask;
            (found != 0).then(|| {
                let slot = word * WORD_BITS + found.trailing_zeros() as usize;
                (slot + SLOTS - start) % SLOTS
            })
        })
    }

    fn insert(&mut self, timers: &mut impl Timers, index: u32, due: u32) {
        assert!(index != NONE, "the last index is the sign for none");
        let slot = slot_of(due);
        let first = self.slots[slot];
        if first == NONE {
            self.slots[slot] = index;
            self.occupied[slot / 64] |= 1 << (slot % 64);
            *timers.links(index) = TimerLinks { previous: index, next: index, due };
        } else {
            let last = std::mem::replace(&mut timers.links(first).previous, index);
            timers.links(last).next = index;
            *timers.links(index) = TimerLinks { previous: last, next: first, due };
        }
        self.scheduled += 1;
    }

    fn remove(&mut self, timers: &mut impl Timers, index: u32) {
        let TimerLinks { previous, next, due } = std::mem::take(timers.links(index));
        let slot = slot_of(due);
        if next == index {
            self.slots[slot] = NONE;
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        } else {
            timers.links(previous).next = next;
            timers.links(next).previous = previous;
            if self.slots[slot] == index {
                self.slots[slot] = next;
            }
        }
        if self.resume == index {
            // At the list's end this leads to its first again: timers are looked at twice, none is left out.
            self.resume = self.slots[slot];
            if next != self.slots[slot] && self.resume != NONE {
                self.resume = next;
            }
        }
        self.scheduled -= 1;
    }
}

fn slot_of(tick: u32) -> usize {
    tick as usize % SLOTS
}

/// Ticks are compared by their distance, which stays right when 32 bits overflow (after 8.7 years).
fn is_due(due: u32, now_tick: u64) -> bool {
    due.wrapping_sub(now_tick as u32) as i32 <= 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Timers for Vec<TimerLinks> {
        fn links(&mut self, index: u32) -> &mut TimerLinks {
            &mut self[index as usize]
        }
    }

    fn timers(count: usize) -> Vec<TimerLinks> {
        vec![TimerLinks::new(); count]
    }

    #[test]
    fn a_timer_is_due_once_and_not_early() {
        let (mut timers, mut due) = (timers(1), Vec::new());
        let mut wheel = Wheel::new(1_000);
        wheel.schedule(&mut timers, 0, 26_000);
        assert!(timers[0].is_scheduled());
        assert_eq!(wheel.advance(&mut timers, 25_999, &mut due, 100), 0);
        assert_eq!(wheel.advance(&mut timers, 26_000 + TICK_MS - 1, &mut due, 100), 1);
        assert_eq!(due, [0]);
        assert!(wheel.is_empty() && !timers[0].is_scheduled());
        assert_eq!(wheel.next_due_ms(), None);
        assert_eq!(wheel.advance(&mut timers, 1_000_000, &mut due, 100), 0);
    }

    #[test]
    fn the_last_schedule_holds() {
        let (mut timers, mut due) = (timers(2), Vec::new());
        let mut wheel = Wheel::new(0);
        wheel.schedule(&mut timers, 0, 640);
        wheel.schedule(&mut timers, 1, 640);
        wheel.schedule(&mut timers, 0, 6_400);
        wheel.cancel(&mut timers, 1);
        wheel.cancel(&mut timers, 1);
        assert_eq!(wheel.len(), 1);
        assert_eq!(wheel.advance(&mut timers, 6_399, &mut due, 100), 0);
        assert_eq!(wheel.advance(&mut timers, 6_400, &mut due, 100), 1);
    }

    #[test]
    fn a_call_is_bounded_and_the_rest_comes_next() {
        let (mut timers, mut due) = (timers(1_000), Vec::new());
        let mut wheel = Wheel::new(0);
        for index in 0..1_000 {
            wheel.schedule(&mut timers, index, 128);
        }
        for call in 1..=10 {
            assert!(wheel.next_due_ms().is_some_and(|due_ms| due_ms <= 128));
            assert_eq!(wheel.advance(&mut timers, 128, &mut due, 100), 100, "call {call}");
        }
        assert_eq!(wheel.next_due_ms(), None);
        assert_eq!(due, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_jump_of_hours_passes_each_slot_once_and_leaves_what_is_later() {
        let (mut timers, mut due) = (timers(1_000), Vec::new());
        let mut wheel = Wheel::new(0);
        for index in 0..1_000 {
            wheel.schedule(&mut timers, index, u64::from(index) * 36_000);
        }
        let ten_hours_ms = 36_000_000;
        assert_eq!(wheel.advance(&mut timers, ten_hours_ms / 2, &mut due, usize::MAX), 501);
        assert_eq!(wheel.advance(&mut timers, ten_hours_ms * 1_000, &mut due, usize::MAX), 499);
    }

    #[test]
    fn ticks_beyond_32_bits_are_told_apart() {
        let (mut timers, mut due) = (timers(1), Vec::new());
        let mut wheel = Wheel::new(0);
        let years_ms = u64::from(u32::MAX) * TICK_MS - 10_000;
        wheel.advance(&mut timers, years_ms, &mut due, 100);
        wheel.schedule(&mut timers, 0, years_ms + 25_000);
        assert_eq!(wheel.advance(&mut timers, years_ms + 24_999, &mut due, 100), 0);
        assert_eq!(wheel.advance(&mut timers, years_ms + 25_000 + TICK_MS, &mut due, 100), 1);
    }

    /// A million clients must not end up pinged together, whether the next ping is reckoned from
    /// the moment that this one was due or from the moment that it was sent.
    #[test]
    fn pings_spread_evenly_stay_spread() {
        const CONNECTIONS: u32 = 10_000;
        const PING_MS: u64 = 25_000;
        for from_due in [true, false] {
            let (mut timers, mut due) = (timers(CONNECTIONS as usize), Vec::new());
            let mut wheel = Wheel::new(0);
            let mut due_ms: Vec<u64> =
                (0..CONNECTIONS).map(|index| PING_MS + u64::from(index) * PING_MS / u64::from(CONNECTIONS)).collect();
            for index in 0..CONNECTIONS {
                wheel.schedule(&mut timers, index, due_ms[index as usize]);
            }
            let mut pings = 0;
            for now_ms in (0..40 * PING_MS).step_by(TICK_MS as usize) {
                due.clear();
                wheel.advance(&mut timers, now_ms, &mut due, usize::MAX);
                // 10,000 in 25 s are 25.6 a tick.
                assert!(due.len() <= 52, "{} pings in one tick at {now_ms}", due.len());
                pings += due.len();
                for &index in &due {
                    let from_ms = if from_due { due_ms[index as usize] } else { now_ms };
                    due_ms[index as usize] = from_ms + PING_MS;
                    wheel.schedule(&mut timers, index, from_ms + PING_MS);
                }
            }
            assert!(pings >= 38 * CONNECTIONS as usize);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Schedule { index: u32, ahead_ms: u64 },
        Cancel { index: u32 },
        Advance { by_ms: u64, max: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let ahead_ms = prop_oneof![0..200_u64, 0..70_000_u64, 0..10_000_000_u64];
        let by_ms = prop_oneof![0..200_u64, 0..70_000_u64, 0..10_000_000_u64];
        prop_oneof![
            4 => (0..40_u32, ahead_ms).prop_map(|(index, ahead_ms)| Step::Schedule { index, ahead_ms }),
            1 => (0..40_u32).prop_map(|index| Step::Cancel { index }),
            3 => (by_ms, 1..20_usize).prop_map(|(by_ms, max)| Step::Advance { by_ms, max }),
        ]
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_map(origin_ms in 0..1_000_000_u64, steps in prop::collection::vec(step(), 1..200)) {
            let mut timers = timers(40);
            let mut wheel = Wheel::new(origin_ms);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let (mut now_ms, mut due) = (origin_ms, Vec::new());
            for step in steps {
                match step {
                    Step::Schedule { index, ahead_ms } => {
                        wheel.schedule(&mut timers, index, now_ms + ahead_ms);
                        let due_ms = wheel.due_ms(timers.links(index)).expect("it is scheduled");
                        prop_assert!(due_ms >= now_ms + ahead_ms && due_ms <= now_ms + ahead_ms + 2 * TICK_MS);
                        model.insert(index, now_ms + ahead_ms);
                    }
                    Step::Cancel { index } => {
                        wheel.cancel(&mut timers, index);
                        model.remove(&index);
                    }
                    Step::Advance { by_ms, max } => {
                        now_ms += by_ms;
                        due.clear();
                        let count = wheel.advance(&mut timers, now_ms, &mut due, max);
                        prop_assert!(count == due.len() && count <= max);
                        for index in &due {
                            let due_ms = model.remove(index);
                            prop_assert!(due_ms.is_some_and(|due_ms| due_ms <= now_ms), "{index} due at {due_ms:?}, now {now_ms}");
                        }
                        // Whatever is late by more than a tick is left over only because of the bound, and the wheel says so.
                        let is_late = model.values().any(|&due_ms| due_ms + TICK_MS <= now_ms);
                        prop_assert!(!is_late || wheel.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms));
                    }
                }
                prop_assert_eq!(wheel.len() as usize, model.len());
                for index in 0..40 {
                    prop_assert_eq!(timers[index as usize].is_scheduled(), model.contains_key(&index));
                }
                // Never late: a wake-up comes at the latest a tick after the first timer is due.
                let first_ms = model.values().min().copied();
                prop_assert_eq!(wheel.next_due_ms().is_some(), first_ms.is_some());
                if let (Some(next_ms), Some(first_ms)) = (wheel.next_due_ms(), first_ms) {
                    prop_assert!(next_ms <= first_ms.max(now_ms) + TICK_MS);
                }
            }
            // Nothing is lost: enough calls bring out all of them.
            now_ms += 20_000_000;
            due.clear();
            for _ in 0..100 { wheel.advance(&mut timers, now_ms, &mut due, 7); }
            due.sort_unstable();
            prop_assert_eq!(due, model.into_keys().collect::<Vec<_>>());
            prop_assert!(wheel.is_empty());
        }
    }
}
