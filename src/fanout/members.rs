//! Who is in a topic, where that is more than one.
//!
//! Invariant: subscribers come first and silent members behind them, so that fan-out is given a part of the list and
//! looks at nobody in vain.

/// With as many members a list is given room for [`LONG_ROOM`] at once.
const LONG: usize = 4 * 1024;

/// So many members are 128 KiB: for that the allocator asks the kernel, which gives memory as it is used, page by page,
/// and moves it by its tables. A list that grew among smaller things would leave ever longer holes behind.
const LONG_ROOM: usize = 32 * 1024;

/// Members by slab index, in no order but that of the two parts.
#[derive(Debug, Default)]
pub struct Members {
    all: Vec<u32>,
    subscribers: u32,
}

impl Members {
    /// Subscribers and silent members.
    pub fn all(&self) -> &[u32] {
        &self.all
    }

    /// Those that are sent publications.
    pub fn subscribers(&self) -> &[u32] {
        &self.all[..self.subscribers as usize]
    }

    /// Adds a silent member: its position.
    pub fn push(&mut self, connection: u32) -> u32 {
        if self.all.len() == self.all.capacity() && (LONG..LONG_ROOM).contains(&self.all.len()) {
            self.all.reserve_exact(LONG_ROOM - self.all.len());
        }
        super::push_tightly(&mut self.all, connection);
        u32::try_from(self.all.len() - 1).expect("slab indices are u32")
    }

    /// The silent member at `position` becomes a subscriber: its new position. `moved` is told of each other connection
    /// that has another position now.
    pub fn make_subscriber(&mut self, position: u32, moved: impl FnMut(u32, u32)) -> u32 {
        assert!(position >= self.subscribers, "the member at {position} is a subscriber already");
        let new_position = self.subscribers;
        self.swap(position, new_position, moved);
        self.subscribers += 1;
        new_position
    }

    /// The subscriber at `position` becomes silent: its new position.
    pub fn make_silent(&mut self, position: u32, moved: impl FnMut(u32, u32)) -> u32 {
        assert!(position < self.subscribers, "the member at {position} is silent already");
        self.subscribers -= 1;
        let new_position = self.subscribers;
        self.swap(position, new_position, moved);
        new_position
    }

    /// Takes the silent member at `position` away.
    pub fn remove(&mut self, position: u32, mut moved: impl FnMut(u32, u32)) {
        assert!(position >= self.subscribers, "a subscriber is made silent before it goes");
        self.all.swap_remove(position as usize);
        if let Some(connection) = self.all.get(position as usize) {
            moved(*connection, position);
        }
        if self.all.len() * 4 < self.all.capacity() {
            self.all.shrink_to(self.all.len() * 2);
        }
    }

    /// Bytes held on the heap.
    pub fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<u32>()
    }

    fn swap(&mut self, position: u32, new_position: u32, mut moved: impl FnMut(u32, u32)) {
        if position != new_position {
            self.all.swap(position as usize, new_position as usize);
            moved(self.all[position as usize], position);
        }
    }
}
