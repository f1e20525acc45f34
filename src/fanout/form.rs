//! How a connection is written to.

/// What the bytes for a connection look like, in one byte: a publication is encoded once for all connections of a shard
/// that have the same form. It is fixed before the connection enters its first topic; a change would leave it in topics of
/// another form, and it would be sent bytes that it cannot read.
///
/// From the lowest bit: the encoding of messages (1 bit), the shape (1 bit: replies and pushes, or bare pushes for clients
/// that only listen), what carries them (2 bits). All clear is JSON, replies and pushes, in WebSocket frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form(u8);

const _: () = assert!(size_of::<Form>() == 1);

#[cfg(test)]
impl Form {
    /// A form that differs from the default, whatever it means.
    pub(crate) const OTHER: Self = Self(1);
}
