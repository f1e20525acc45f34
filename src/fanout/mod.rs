//! From one publication to all its subscribers on this shard.
//!
//! Owns the topics (a channel in one form and with one content, with its members on this shard), the
//! forms in which clients are written to, the messages that a turn of the loop brings, the outboxes of
//! clients that cannot keep up, the patches between publications, filters by tags, and which clients have which window of
//! compression. Numbering publications is the home shard's business
//! (`channel`), writing to sockets the loop's (`shard`).
//!
//! Invariants:
//! - A publication is encoded once per turn and topic, next to the topic's other publications of the
//!   turn; a subscriber is given a range of those bytes. Reference counts never leave the shard.
//! - What a connection is given, it is sent in the order given. A topic's open batch is handed out
//!   before anything else is given to one of its subscribers that must come after it, and before its
//!   list of subscribers changes; otherwise a subscriber would see a publication twice or not at all.
//! - A batch holds publications, or the news of who comes and goes, which not every subscriber hears. A topic
//!   has one open batch; what belongs into one of the other kind waits until it has been handed out.
//! - A frame whose first bytes have gone out goes out whole, whatever a policy drops.
//! - A member's place in its topic's list and the topic in its own list name each other.
//! - A connection is a subscriber of one topic of a channel at most, one of its own form; otherwise it would be sent a
//!   publication twice.
//! - A message that refers to a window is given only to subscribers whose inflaters hold it ([`cohort`]).
//! - A patch is given only to subscribers that have the payload which it is made to, or that get it before for certain
//!   ([`chain`]).

mod arena;
mod batch;
mod chain;
mod cohort;
mod content;
mod deflated;
mod directory;
mod filter;
mod form;
mod glob;
mod members;
mod names;
mod outbox;
mod subscription;
mod topic;
mod turn;

pub use self::{
    batch::Batch,
    chain::{Chain, Patches},
    cohort::{Cohorts, Keyframe},
    content::Content,
    deflated::{Context, Shrinkage, deflate_alone, deflate_in_context, has_long_message},
    filter::{Filter, FilterError},
    form::{Carrier, Form},
    glob::glob_matches,
    outbox::{Outbox, Overflow},
    subscription::{FurtherSubscriptions, Marks, Subscription, Subscriptions},
    topic::Topics,
    turn::{Entry, Piece, Turn},
};

/// Adds to a list that grows by a quarter, not to twice its length: what is held for nothing stays small.
fn push_tightly<T>(list: &mut Vec<T>, value: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(4));
    }
    list.push(value);
}
