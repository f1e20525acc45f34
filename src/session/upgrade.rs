//! The answer to a request to upgrade: how the connection is to be written to (protocol.md sections 2 and 18).

use super::{Effects, Flow, Phase, Reason, conversation::Conversation, state::Flag, stream::CONNECT_PARAMETER};
use crate::{
    fanout::{Carrier, Form},
    http::{Request, query},
    protocol::{ConnectRequest, Encoding, Shape},
    websocket::{
        deflate::negotiation::negotiate,
        handshake::{self, Upgrade},
    },
};

/// The subprotocol of the JSON encoding.
const SUBPROTOCOL_JSON: &str = "centrifuge-json";

/// The subprotocol of the Protobuf encoding.
const SUBPROTOCOL_PROTOBUF: &str = "centrifuge-protobuf";

/// The query's parameter by which tools without a pong of their own ask for pings in control frames.
const FRAME_PINGS_PARAMETER: &str = "cf_ws_frame_ping_pong";

impl<E: Effects> Conversation<'_, E> {
    pub(super) fn upgrade(&mut self, request: &Request<'_>, shape: Shape) -> Flow {
        let upgrade = match handshake::check(request) {
            Ok(upgrade) => upgrade,
            Err(rejection) => {
                self.effects.count(rejection.into());
                handshake::respond_rejection(self.effects.output(), &rejection);
                self.session.phase = Phase::Ended;
                return Flow::Closing;
            }
        };
        let encoding = encoding(request, &upgrade);
        if shape == Shape::Unidirectional && encoding != Encoding::Json {
            let body = "clients that only listen are written JSON, not Protobuf\n";
            return self.turn_away(400, Reason::EncodingUnsupported, body, None);
        }
        let connect = match shape {
            Shape::Bidirectional => None,
            Shape::Unidirectional => request.query.and_then(|query| query::parameter(query, CONNECT_PARAMETER)),
        };
        if connect.as_ref().is_some_and(|connect| ConnectRequest::read(connect.as_bytes()).is_err()) {
            let body = "cf_connect in the query is no connect request: it must be a JSON object\n";
            return self.turn_away(400, Reason::CommandMalformed, body, None);
        }
        // The first of our own list that the client offers.
        let subprotocol = [SUBPROTOCOL_JSON, SUBPROTOCOL_PROTOBUF]
            .into_iter()
            .find(|subprotocol| upgrade.subprotocols.contains(subprotocol));
        let is_compressing = self.rules.config.compresses();
        let agreement = is_compressing.then(|| negotiate(&upgrade.extensions)).flatten();
        handshake::respond_accept(self.effects.output(), upgrade.key, subprotocol, agreement);
        let form = Form::new(encoding, shape, Carrier::WebSocket);
        self.effects.set_form(agreement.map_or(form, |agreement| form.with_deflation(agreement.deflation)));
        self.keep_headers(request);
        self.session.phase = Phase::AwaitingConnect;
        let frame_pings = request.query.and_then(|query| query::parameter(query, FRAME_PINGS_PARAMETER));
        if shape == Shape::Bidirectional && frame_pings.as_deref() == Some("true") {
            self.session.set(Flag::FramePings);
        }
        connect.map_or(Flow::Continue, |connect| self.connect_one_way(connect.as_bytes()))
    }
}

/// A client that offers both subprotocols gets JSON, unless its query insists.
fn encoding(request: &Request<'_>, upgrade: &Upgrade<'_>) -> Encoding {
    let is_offered = |subprotocol| upgrade.subprotocols.contains(&subprotocol);
    let is_asked_for =
        |query: &str| query.split('&').any(|pair| matches!(pair, "cf_protocol=protobuf" | "format=protobuf"));
    let is_protobuf =
        is_offered(SUBPROTOCOL_PROTOBUF) && !is_offered(SUBPROTOCOL_JSON) || request.query.is_some_and(is_asked_for);
    if is_protobuf { Encoding::Protobuf } else { Encoding::Json }
}
