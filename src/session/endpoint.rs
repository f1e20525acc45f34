//! What is at which path, and which requests it takes (protocol.md sections 2, 17 and 18).

use crate::{fanout::Carrier, protocol::Shape};

/// Something on the clients' port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Upgrades to WebSocket.
    WebSocket(Shape),
    /// Answers without an end.
    Stream(Shape, Carrier),
    /// Where clients of such answers send their commands.
    Emulation,
}

/// Whether the server API is at a path, where it is on this port.
pub(super) fn is_api(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Endpoint {
    /// What is at a path.
    pub fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/connection/websocket" => Self::WebSocket(Shape::Bidirectional),
            "/connection/sse" => Self::Stream(Shape::Bidirectional, Carrier::Events),
            "/connection/http_stream" => Self::Stream(Shape::Bidirectional, Carrier::Chunks),
            "/connection/uni_websocket" => Self::WebSocket(Shape::Unidirectional),
            "/connection/uni_sse" => Self::Stream(Shape::Unidirectional, Carrier::Events),
            "/connection/uni_http_stream" => Self::Stream(Shape::Unidirectional, Carrier::Chunks),
            "/emulation" => Self::Emulation,
            _ => return None,
        })
    }

    /// The methods that it takes, as the fields `Allow` and `Access-Control-Allow-Methods` list them.
    pub fn methods(self) -> &'static str {
        match self {
            Self::WebSocket(_) => "GET",
            // Browsers' EventSource can only get.
            Self::Stream(_, Carrier::Events) => "GET, POST, OPTIONS",
            Self::Stream(..) | Self::Emulation => "POST, OPTIONS",
        }
    }

    /// Whether it takes a method.
    pub fn takes(self, method: &str) -> bool {
        self.methods().split(", ").any(|candidate| candidate == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_taken_as_they_are_listed() {
        let taken = |path| {
            let endpoint = Endpoint::at(path).expect("something is there");
            ["GET", "POST", "OPTIONS", "get", "PUT", ""].map(|method| endpoint.takes(method))
        };
        let [get, post, both] = [(true, false, false), (false, true, true), (true, true, true)]
            .map(|(get, post, options)| [get, post, options, false, false, false]);
        assert_eq!((taken("/connection/websocket"), taken("/connection/uni_websocket")), (get, get));
        assert_eq!((taken("/connection/sse"), taken("/connection/uni_sse")), (both, both));
        assert_eq!((taken("/connection/http_stream"), taken("/connection/uni_http_stream")), (post, post));
        assert_eq!(taken("/emulation"), post);
        assert_eq!(Endpoint::at("/connection/sse/"), None);
    }
}
