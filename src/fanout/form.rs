//! How a connection is written to.

use crate::{
    http::chunk,
    protocol::{Encoding, Push, Reply, Shape},
    websocket::{
        deflate::{Deflation, Window},
        frame::{self, Data, OpCode},
    },
};

/// What the bytes for a connection look like, in one byte: a publication is encoded once for all connections of a shard
/// that have the same form. It is fixed before the connection enters its first topic; a change would leave it in topics of
/// another form, and it would be sent bytes that it cannot read.
///
/// From the lowest bit: the encoding of messages (1 bit), the shape (1 bit: replies and pushes, or bare pushes for clients
/// that only listen), what carries them (4 bits: WebSocket frames, events, chunks, or frames of which some are compressed,
/// a number for each [`Deflation`]). All clear is JSON, replies and pushes, in WebSocket frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form(u8);

const _: () = assert!(size_of::<Form>() == 1);

/// What carries messages to a client. Each message stands alone in it, so that those of a slow client can be dropped one
/// by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A WebSocket frame each.
    WebSocket,
    /// A server-sent event each, in a chunk of an HTTP answer (protocol.md section 17, `sse`).
    Events,
    /// A chunk of an HTTP answer each (protocol.md section 17, `http_stream`).
    Chunks,
}

/// Where the number of what carries messages begins.
const CARRIER_SHIFT: u32 = 2;

const EVENTS: u8 = 1;
const CHUNKS: u8 = 2;

/// The first of the numbers for frames of which some are compressed.
const DEFLATED: u8 = 3;

/// In such a number, behind its window: each message stands alone.
const WITHOUT_CONTEXT: u8 = Window::ALL.len() as u8;

const _: () = assert!((DEFLATED + 2 * WITHOUT_CONTEXT) << CARRIER_SHIFT <= Form::BITS + 1);

impl Form {
    /// The bits that forms may have.
    pub(super) const BITS: u8 = 0b11_1111;

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// The form of these bits, without those that belong to no form.
    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::BITS)
    }

    /// The form of these.
    pub const fn new(encoding: Encoding, shape: Shape, carrier: Carrier) -> Self {
        let encoding = match encoding {
            Encoding::Json => 0,
            Encoding::Protobuf => 1,
        };
        let shape = match shape {
            Shape::Bidirectional => 0,
            Shape::Unidirectional => 1 << 1,
        };
        let carrier = match carrier {
            Carrier::WebSocket => 0,
            Carrier::Events => EVENTS << CARRIER_SHIFT,
            Carrier::Chunks => CHUNKS << CARRIER_SHIFT,
        };
        Self(encoding | shape | carrier)
    }

    /// The same, where messages in WebSocket frames may be compressed.
    #[must_use]
    pub const fn with_deflation(self, deflation: Deflation) -> Self {
        assert!(matches!(self.carrier(), Carrier::WebSocket), "only WebSocket has permessage-deflate");
        let context = if deflation.keeps_context { 0 } else { WITHOUT_CONTEXT };
        let carrier = DEFLATED + deflation.window as u8 + context;
        Self(self.0 & ((1 << CARRIER_SHIFT) - 1) | carrier << CARRIER_SHIFT)
    }

    /// How messages may be compressed; none: they may not.
    pub const fn deflation(self) -> Option<Deflation> {
        match (self.0 >> CARRIER_SHIFT).checked_sub(DEFLATED) {
            None => None,
            Some(number) => Some(Deflation {
                window: Window::ALL[(number % WITHOUT_CONTEXT) as usize],
                keeps_context: number < WITHOUT_CONTEXT,
            }),
        }
    }

    /// How messages become bytes, in both directions.
    pub const fn encoding(self) -> Encoding {
        if self.0 & 1 == 0 { Encoding::Json } else { Encoding::Protobuf }
    }

    /// What the client is written.
    pub const fn shape(self) -> Shape {
        if self.0 & 1 << 1 == 0 { Shape::Bidirectional } else { Shape::Unidirectional }
    }

    /// What carries it.
    pub const fn carrier(self) -> Carrier {
        match self.0 >> CARRIER_SHIFT {
            EVENTS => Carrier::Events,
            CHUNKS => Carrier::Chunks,
            _ => Carrier::WebSocket,
        }
    }

    /// What back ends know the way of connecting by (protocol.md section 20).
    pub const fn transport(self) -> &'static str {
        match (self.shape(), self.carrier()) {
            (Shape::Bidirectional, Carrier::WebSocket) => "websocket",
            (Shape::Bidirectional, Carrier::Events) => "sse",
            (Shape::Bidirectional, Carrier::Chunks) => "http_stream",
            (Shape::Unidirectional, Carrier::WebSocket) => "uni_websocket",
            (Shape::Unidirectional, Carrier::Events) => "uni_sse",
            (Shape::Unidirectional, Carrier::Chunks) => "uni_http_stream",
        }
    }

    /// Whether the client only listens.
    pub const fn is_one_way(self) -> bool {
        matches!(self.shape(), Shape::Unidirectional)
    }

    /// Whether it is an HTTP answer without an end: nothing that the client sends behind its request has a meaning.
    pub const fn is_stream(self) -> bool {
        !matches!(self.carrier(), Carrier::WebSocket)
    }

    /// Whether the client's commands come by other requests, to `/emulation`.
    pub const fn is_emulated(self) -> bool {
        self.is_stream() && !self.is_one_way()
    }

    /// Whether the client is told a session id.
    pub const fn has_session(self) -> bool {
        self.is_stream() || self.is_one_way()
    }

    /// Appends the answer to a command. One-way clients give none.
    pub fn write_reply(self, out: &mut Vec<u8>, command: u32, reply: &Reply<'_>) {
        debug_assert!(!self.is_one_way(), "who gives no commands gets no answers");
        self.carry(out, |out| self.encoding().write_reply(out, command, reply));
    }

    /// Appends what a client is told unasked. The channel is "" for what belongs to none.
    #[inline]
    pub fn write_push(self, out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
        self.carry(out, |out| self.encoding().write_push(self.shape(), out, channel, push));
    }

    /// Appends a ping.
    pub fn write_ping(self, out: &mut Vec<u8>) {
        let ping = self.encoding().ping();
        match self.carrier() {
            Carrier::WebSocket => frame::write(out, self.opcode(), ping),
            Carrier::Events | Carrier::Chunks => self.carry(out, |out| out.extend_from_slice(ping)),
        }
    }

    /// Puts around a message, which `write` appends, what carries it.
    #[inline]
    fn carry(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match self.carrier() {
            Carrier::WebSocket => {
                let mark = frame::begin(out);
                write(out);
                frame::finish(out, mark, self.opcode());
            }
            Carrier::Events => {
                let mark = chunk::begin(out);
                out.extend_from_slice(b"data: ");
                write(out);
                out.extend_from_slice(b"\n\n");
                chunk::finish(out, mark);
            }
            Carrier::Chunks => {
                let mark = chunk::begin(out);
                write(out);
                // Protobuf messages tell their length, JSON texts are told apart by line feeds.
                if self.encoding() == Encoding::Json {
                    out.push(b'\n');
                }
                chunk::finish(out, mark);
            }
        }
    }

    /// What frames are marked with (protocol.md section 1).
    const fn opcode(self) -> OpCode {
        OpCode::Data(match self.encoding() {
            Encoding::Json => Data::Text,
            Encoding::Protobuf => Data::Binary,
        })
    }
}

#[cfg(test)]
impl Form {
    /// A form that is written as the default is, and is another.
    pub(crate) const OTHER: Self = Self(0).with_deflation(Deflation { window: Window::Bytes512, keeps_context: false });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Disconnect;

    const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];
    const SHAPES: [Shape; 2] = [Shape::Bidirectional, Shape::Unidirectional];
    const CARRIERS: [Carrier; 3] = [Carrier::WebSocket, Carrier::Events, Carrier::Chunks];

    #[test]
    fn a_form_is_what_it_was_made_of() {
        assert_eq!(Form::default(), Form::new(ENCODINGS[0], SHAPES[0], CARRIERS[0]));
        for encoding in ENCODINGS {
            for shape in SHAPES {
                for carrier in CARRIERS {
                    let form = Form::new(encoding, shape, carrier);
                    assert_eq!((form.encoding(), form.shape(), form.carrier()), (encoding, shape, carrier));
                    assert_eq!(form.deflation(), None);
                }
            }
        }
    }

    #[test]
    fn a_deflated_form_is_a_websocket_form_besides() {
        for (encoding, shape) in ENCODINGS.into_iter().flat_map(|encoding| SHAPES.map(|shape| (encoding, shape))) {
            let mut forms = vec![Form::new(encoding, shape, Carrier::WebSocket)];
            for window in Window::ALL {
                for keeps_context in [false, true] {
                    let deflation = Deflation { window, keeps_context };
                    let form = forms[0].with_deflation(deflation);
                    assert_eq!(form.deflation(), Some(deflation));
                    assert_eq!((form.encoding(), form.shape(), form.carrier()), (encoding, shape, Carrier::WebSocket));
                    assert_eq!(Form::from_bits(form.bits()), form);
                    assert!(!forms.contains(&form));
                    forms.push(form);
                }
            }
        }
    }

    #[test]
    fn each_message_is_carried_on_its_own() {
        let written = |encoding, shape, carrier, write: fn(Form, &mut Vec<u8>)| {
            let mut out = Vec::new();
            write(Form::new(encoding, shape, carrier), &mut out);
            String::from_utf8_lossy(&out.escape_ascii().to_string().replace("\\\"", "\"").into_bytes()).into_owned()
        };
        let [json, protobuf] = ENCODINGS;
        let [both, one] = SHAPES;
        let [websocket, events, chunks] = CARRIERS;
        let ping = |form: Form, out: &mut Vec<u8>| form.write_ping(out);
        assert_eq!(written(json, both, websocket, ping), r"\x81\x02{}");
        assert_eq!(written(protobuf, both, websocket, ping), r"\x82\x01\x00");
        assert_eq!(written(json, both, events, ping), r"a\r\ndata: {}\n\n\r\n");
        assert_eq!(written(json, one, chunks, ping), r"3\r\n{}\n\r\n");
        assert_eq!(written(protobuf, both, chunks, ping), r"1\r\n\x00\r\n");
        let end = |form: Form, out: &mut Vec<u8>| form.write_push(out, "", &Push::Disconnect(Disconnect::STALE));
        let bare = r#"{"disconnect":{"code":3502,"reason":"stale"}}"#;
        assert_eq!(written(json, one, events, end), format!(r"35\r\ndata: {bare}\n\n\r\n"));
        assert_eq!(written(json, both, chunks, end), format!(r#"37\r\n{{"push":{bare}}}\n\r\n"#));
        let done = |form: Form, out: &mut Vec<u8>| form.write_reply(out, 7, &Reply::Publish);
        assert_eq!(written(json, both, events, done), r#"1d\r\ndata: {"id":7,"publish":{}}\n\n\r\n"#);
    }
}
