//! A publication of usual length.

use tidegate::protocol::PublicationView;

/// With 128 bytes of JSON, stored.
pub const PUBLICATION: PublicationView<'static> = PublicationView {
    channel: "news:europe",
    data: br#"{"headline":"The tide waits for nobody, and nobody waits for the tide; it comes in, and it goes out.","published_at":1700000000}"#,
    info: None,
    offset: 4711,
    tags: None,
    epoch: Some("lhAHFFqz"),
};

const _: () = assert!(PUBLICATION.data.len() == 128, "the length that reports name");
