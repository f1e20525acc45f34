//! The answer to a request head: is it welcome here?

use super::{Effects, Flow, Phase, Reason, conversation::Conversation, origin};
use crate::{
    http::{Answer, Request},
    websocket::handshake,
};

/// Where clients connect.
const PATH: &str = "/connection/websocket";

/// The subprotocol of the JSON encoding.
const SUBPROTOCOL_JSON: &str = "centrifuge-json";

/// The subprotocol of the Protobuf encoding.
const SUBPROTOCOL_PROTOBUF: &str = "centrifuge-protobuf";

impl<E: Effects> Conversation<'_, E> {
    pub(super) fn answer(&mut self, request: &Request<'_>) -> Flow {
        // The other transports (one-way WebSocket, server-sent events) are other paths.
        if request.path != PATH {
            return self.turn_away(
                404,
                Reason::PathUnknown,
                "nothing is here; clients connect to /connection/websocket\n",
            );
        }
        if let Some(origin) = request.origin {
            let client = &self.rules.config.client;
            let allowed = client.allowed_origins.iter().chain(&self.rules.console_origins).map(String::as_str);
            if !origin::is_allowed(origin, request.host, allowed) {
                let body = "pages of this origin may not connect; client.allowed_origins lists those that may\n";
                return self.turn_away(403, Reason::OriginForbidden, body);
            }
        }
        let upgrade = match handshake::check(request) {
            Ok(upgrade) => upgrade,
            Err(rejection) => {
                self.effects.count(rejection.into());
                handshake::respond_rejection(self.effects.output(), &rejection);
                self.session.phase = Phase::Ended;
                return Flow::Closing;
            }
        };
        // A client that offers both gets JSON, unless its query insists.
        let is_json_offered = upgrade.subprotocols.contains(&SUBPROTOCOL_JSON);
        let is_protobuf_wanted = upgrade.subprotocols.contains(&SUBPROTOCOL_PROTOBUF) && !is_json_offered
            || request.query.is_some_and(wants_protobuf);
        if is_protobuf_wanted {
            let body = "this server speaks the JSON encoding, not Protobuf: leave out centrifuge-protobuf\n";
            return self.turn_away(400, Reason::EncodingUnsupported, body);
        }
        let subprotocol = is_json_offered.then_some(SUBPROTOCOL_JSON);
        handshake::respond_accept(self.effects.output(), upgrade.key, subprotocol);
        self.session.phase = Phase::AwaitingConnect;
        Flow::Continue
    }

    fn turn_away(&mut self, status: u16, reason: Reason, body: &str) -> Flow {
        self.effects.count(reason);
        Answer::last(status, body).write(self.effects.output());
        self.session.phase = Phase::Ended;
        Flow::Closing
    }
}

fn wants_protobuf(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "cf_protocol=protobuf" | "format=protobuf"))
}
