//! From events of `tracing` to lines in a writer's queue.

use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

use super::{AUDIT, encoding::Encoding, record::Record, writer::Writer};

/// Encodes events and hands them to a writer.
pub(super) struct Lines {
    writer: Writer,
    encoding: Encoding,
    /// The trail goes elsewhere.
    leaves_out_audit: bool,
}

impl Lines {
    pub(super) fn new(writer: Writer, encoding: Encoding, leaves_out_audit: bool) -> Self {
        Self { writer, encoding, leaves_out_audit }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if !(self.leaves_out_audit && event.metadata().target() == AUDIT) {
            self.writer.write(self.encoding.write(&Record::of(event)));
        }
    }
}
