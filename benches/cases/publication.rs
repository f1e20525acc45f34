//! A publication of usual length.

use tidegate::protocol::{Delta, PublicationView};

/// Its channel.
#[allow(dead_code, reason = "not every benchmark that publishes it names its channel")]
pub const CHANNEL: &str = "news:europe";

/// With 128 bytes of JSON, stored.
pub const PUBLICATION: PublicationView<'static> = PublicationView {
    data: br#"{"headline":"The tide waits for nobody, and nobody waits for the tide; it comes in, and it goes out.","published_at":1700000000}"#,
    info: None,
    offset: 4711,
    tags: None,
    delta: Delta::None,
    epoch: Some("lhAHFFqz"),
};

const _: () = assert!(PUBLICATION.data.len() == 128, "the length that reports name");
