//! HTTP answers without an end (protocol.md sections 17 and 18): how they begin. What they carry later is a connected
//! client's, as on any other connection.

use std::borrow::Cow;

use super::{Effects, Flow, Phase, Reason, conversation::Conversation};
use crate::{
    fanout::{Carrier, Form},
    http::{Request, answer, chunk, query},
    protocol::{ConnectRequest, Encoding, Shape},
};

/// The query's parameter that holds the connect command of a request without a body.
pub(super) const CONNECT_PARAMETER: &str = "cf_connect";

/// The media type of the Protobuf encoding.
pub(super) const PROTOBUF_MEDIA_TYPE: &str = "application/octet-stream";

impl<E: Effects> Conversation<'_, E> {
    pub(super) fn open_stream(&mut self, request: &Request<'_>, shape: Shape, carrier: Carrier, body: &[u8]) -> Flow {
        let parameter = request.query.and_then(|query| query::parameter(query, CONNECT_PARAMETER));
        let said: Cow<'_, [u8]> = match (request.method, parameter, shape) {
            ("POST", _, _) => Cow::Borrowed(body),
            (_, Some(parameter), _) => Cow::Owned(parameter.into_owned().into_bytes()),
            // Who only listens and has nothing to say needs no command.
            (_, None, Shape::Unidirectional) => Cow::Borrowed(b"{}"),
            (_, None, Shape::Bidirectional) => {
                let body = "the connect command is missing: put it in the query, as cf_connect, or post it\n";
                return self.turn_away(400, Reason::CommandIncomplete, body, request.origin);
            }
        };
        match shape {
            Shape::Bidirectional => {
                let form = Form::new(stream_encoding(request, carrier), shape, carrier);
                self.begin_stream(form, request);
                self.run(form.encoding().decode(&said))
            }
            Shape::Unidirectional => {
                if ConnectRequest::read(&said).is_err() {
                    let body = "this is no connect request: it must be a JSON object\n";
                    return self.turn_away(400, Reason::CommandMalformed, body, request.origin);
                }
                self.begin_stream(Form::new(Encoding::Json, shape, carrier), request);
                self.connect_one_way(&said)
            }
        }
    }

    /// Writes what comes before the first message.
    fn begin_stream(&mut self, form: Form, request: &Request<'_>) {
        self.effects.set_form(form);
        self.keep_headers(request);
        self.effects.message();
        self.session.phase = Phase::AwaitingConnect;
        let media_type = match (form.carrier(), form.encoding()) {
            (Carrier::Events, _) => "text/event-stream; charset=utf-8",
            (_, Encoding::Json) => "application/json",
            (_, Encoding::Protobuf) => PROTOBUF_MEDIA_TYPE,
        };
        let out = self.effects.output();
        answer::write_stream_head(out, media_type, request.origin);
        if form.carrier() == Carrier::Events {
            // Opens the stream for browsers that wait for a first byte.
            let mark = chunk::begin(out);
            out.extend_from_slice(b"\r\n");
            chunk::finish(out, mark);
        }
    }
}

/// Events are text; a chunk carries anything.
fn stream_encoding(request: &Request<'_>, carrier: Carrier) -> Encoding {
    match carrier {
        Carrier::Chunks if request.has_content_type(PROTOBUF_MEDIA_TYPE) => Encoding::Protobuf,
        _ => Encoding::Json,
    }
}
