//! Why clients were refused or connections ended: the labels under which that is counted.

use crate::{
    http,
    protocol::ErrorCode,
    websocket::{handshake, message::Violation},
};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $label:literal,)+) => {
        /// Why a request, a command or a connection was refused or ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of their numbers: `ALL[reason as usize] == reason`.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its label in the metrics: unique, in snake case.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

reasons! {
    // Request heads.
    /// Longer than it may be.
    RequestHeadTooLarge => "request_head_too_large",
    /// More header fields than there may be.
    RequestHeadersTooMany => "request_headers_too_many",
    /// Not HTTP.
    RequestMalformed => "request_malformed",
    /// Not HTTP/1.1.
    HttpVersionUnsupported => "http_version_unsupported",
    /// A method that the path does not take.
    MethodNotAllowed => "method_not_allowed",
    /// The target is no path.
    RequestTargetInvalid => "request_target_invalid",
    /// No valid `Host`.
    HostInvalid => "host_invalid",
    /// A header field that may come once came twice.
    RequestHeaderRepeated => "request_header_repeated",
    /// A body where none may be.
    RequestBodyPresent => "request_body_present",
    /// It is in doubt where the body ends.
    RequestBodyLengthInvalid => "request_body_length_invalid",
    /// A body above the limit of messages.
    RequestBodyTooLarge => "request_body_too_large",
    /// `Upgrade` or `Connection` is missing or says something else.
    NotAnUpgrade => "not_an_upgrade",
    /// `Sec-WebSocket-Version` is not 13.
    WebsocketVersionUnsupported => "websocket_version_unsupported",
    /// No `Sec-WebSocket-Key`.
    WebsocketKeyMissing => "websocket_key_missing",
    /// `Sec-WebSocket-Key` is no key.
    WebsocketKeyInvalid => "websocket_key_invalid",
    /// `Sec-WebSocket-Extensions` cannot be read.
    WebsocketExtensionsInvalid => "websocket_extensions_invalid",
    /// The head was not complete in time.
    RequestHeadTimeout => "request_head_timeout",
    /// Nothing is at the path.
    PathUnknown => "path_unknown",
    /// The web page's origin may not connect.
    OriginForbidden => "origin_forbidden",
    /// The address may not connect.
    AddressDenied => "address_denied",
    /// As many connections of one address as it may have.
    AddressConnectionsExhausted => "address_connections_exhausted",
    /// As many connections of one network as it may have.
    NetworkConnectionsExhausted => "network_connections_exhausted",
    /// More connections of one address in a second than it may begin.
    AcceptsTooFrequent => "accepts_too_frequent",
    /// As many connections that have yet to connect as there may be.
    HandshakesExhausted => "handshakes_exhausted",
    /// Memory is short.
    MemoryShort => "memory_short",
    /// A balancer's connection does not begin with a header of the PROXY protocol, version 2.
    ProxyHeaderInvalid => "proxy_header_invalid",
    /// The session of an uplink belongs to another process, or to one that is gone.
    NodeUnknown => "node_unknown",
    /// The session of an uplink was never made here.
    SessionUnknown => "session_unknown",
    /// The client wants an encoding that is not spoken.
    EncodingUnsupported => "encoding_unsupported",

    // Frames and messages.
    /// A reserved bit is set.
    ReservedBit => "reserved_bit",
    /// The bit of compressed messages on a frame that begins none.
    CompressedBitMisplaced => "compressed_bit_misplaced",
    /// An opcode without a meaning.
    ReservedOpcode => "reserved_opcode",
    /// A frame without a mask.
    UnmaskedFrame => "unmasked_frame",
    /// A control frame in pieces.
    ControlFragmented => "control_fragmented",
    /// A control frame of more than 125 bytes.
    ControlTooLong => "control_too_long",
    /// A length in more bytes than it needs.
    LengthNotMinimal => "length_not_minimal",
    /// A length beyond 63 bits.
    LengthTopBit => "length_top_bit",
    /// A continuation of nothing.
    ContinuationUnexpected => "continuation_unexpected",
    /// A message inside a message.
    ContinuationExpected => "continuation_expected",
    /// Above the limit.
    MessageTooLarge => "message_too_large",
    /// Compressed, but not by deflate.
    DeflateInvalid => "deflate_invalid",
    /// Compressed, and cut off.
    DeflateUnfinished => "deflate_unfinished",
    /// A text that is not UTF-8.
    TextNotUtf8 => "text_not_utf8",
    /// Half a close code.
    CloseTruncated => "close_truncated",
    /// A close code that must not be sent.
    CloseCodeInvalid => "close_code_invalid",
    /// A close reason that is not UTF-8.
    CloseReasonNotUtf8 => "close_reason_not_utf8",

    // Commands that end the connection.
    /// Not JSON, or not a command.
    CommandMalformed => "command_malformed",
    /// A command with an id and no known method.
    CommandUnknown => "command_unknown",
    /// Something else came first.
    CommandBeforeConnect => "command_before_connect",
    /// A connect command that wants no reply.
    ConnectWithoutId => "connect_without_id",
    /// A second connect command.
    ConnectTwice => "connect_twice",
    /// No token, and anonymous clients may not connect.
    CredentialsMissing => "credentials_missing",
    /// A token that is garbled, forged, or not for here.
    TokenInvalid => "token_invalid",
    /// A token that names a key whose publisher cannot be reached.
    TokenKeyUnavailable => "token_key_unavailable",
    /// A token that names more channels than one client may have.
    TokenChannelsTooMany => "token_channels_too_many",
    /// A server-side subscription was asked for in a namespace that is not there.
    ConnectChannelUnknown => "connect_channel_unknown",
    /// A command that needs a channel or a token came without.
    CommandIncomplete => "command_incomplete",
    /// A message to an application that nobody takes.
    SendUnavailable => "send_unavailable",
    /// More commands by uplink than may wait for their session.
    UplinkOverrun => "uplink_overrun",
    /// A pong that no ping asked for.
    PongUnexpected => "pong_unexpected",

    // Commands that are answered by an error.
    /// The token has expired.
    TokenExpired => "token_expired",
    /// The connection that the token grants has expired.
    TokenConnectionExpired => "token_connection_expired",
    /// No such namespace.
    ChannelUnknown => "channel_unknown",
    /// The channel's rules forbid it.
    PermissionDenied => "permission_denied",
    /// Subscribed already.
    AlreadySubscribed => "already_subscribed",
    /// More subscriptions than one client may have.
    ChannelsTooMany => "channels_too_many",
    /// A command that makes no sense as it is.
    CommandInvalid => "command_invalid",
    /// More commands of one connection in a second than it may send.
    CommandsTooFrequent => "commands_too_frequent",
    /// More commands of one user in a second, on all its connections.
    UserCommandsTooFrequent => "user_commands_too_frequent",
    /// More publications of one connection in a second than it may make.
    PublicationsTooFrequent => "publications_too_frequent",
    /// The application's back end answered by an error.
    HookError => "hook_error",
    /// The application's back end did not answer.
    HookFailed => "hook_failed",
    /// A feature that is off, or not built.
    NotAvailable => "not_available",
    /// A position whose publications are gone.
    PositionUnrecoverable => "position_unrecoverable",

    // TLS.
    /// What the peer speaks is not TLS.
    TlsNotSpoken => "tls_not_spoken",
    /// No version, cipher or protocol in common.
    TlsIncompatible => "tls_incompatible",
    /// No certificate that is accepted here.
    TlsClientCertificate => "tls_client_certificate",
    /// The peer has refused our certificate, or has given up.
    TlsPeerAlert => "tls_peer_alert",
    /// The peer does not shake hands as it must.
    TlsHandshakeFailed => "tls_handshake_failed",
    /// The handshake was not complete in time.
    TlsHandshakeTimeout => "tls_handshake_timeout",
    /// A record that the peer has not sealed, or that breaks the rules.
    TlsRecordInvalid => "tls_record_invalid",
    /// The peer wants to negotiate anew.
    TlsRenegotiation => "tls_renegotiation",
    /// The connection's keys have sealed all that they may.
    TlsKeysWornOut => "tls_keys_worn_out",
    /// The peer has new keys, which the kernel has no way to.
    TlsKeyUpdate => "tls_key_update",

    // Ends that the shard decides or sees.
    /// The client takes too little of what it is sent.
    Slow => "slow",
    /// The client was sent back to its own offset in a channel.
    Resync => "resync",
    /// What waits for slow clients is more than the shard may hold.
    Memory => "memory",
    /// More bytes in a second than may come: what is beyond has to wait.
    BytesTooFrequent => "bytes_too_frequent",
    /// No pong in time.
    NoPong => "no_pong",
    /// No connect command in time.
    Stale => "stale",
    /// The token's time is over.
    ConnectionExpired => "connection_expired",
    /// The time of a subscription's token is over.
    SubscriptionExpired => "subscription_expired",
    /// As many connections as there may be.
    ConnectionsExhausted => "connections_exhausted",
    /// As many connections of one user as it may have.
    UserConnectionsExhausted => "user_connections_exhausted",
    /// No file descriptors are left.
    DescriptorsExhausted => "descriptors_exhausted",
    /// A payload that the client's encoding cannot carry.
    InappropriateProtocol => "inappropriate_protocol",
    /// The application wanted it.
    ForceDisconnect => "force_disconnect",
    /// The application's back end wanted it.
    HookDisconnect => "hook_disconnect",
    /// The server stops.
    Shutdown => "shutdown",
    /// Our own mistake.
    Internal => "internal",
    /// The client said goodbye.
    PeerClosed => "peer_closed",
    /// The client's socket ended without a goodbye.
    PeerReset => "peer_reset",
}

/// How much operators should hear of something that happened to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// It happens on every healthy server: counted, and told of at debug with the connection's end.
    Usual,
    /// Somebody may want to know why a client does not get what it wants.
    Refusal,
    /// It concerns security: it belongs to the audit trail.
    Audit,
}

impl Reason {
    /// How much operators should hear of it.
    pub const fn noise(self) -> Noise {
        match self {
            Self::OriginForbidden
            | Self::AddressDenied
            | Self::CredentialsMissing
            | Self::TokenInvalid
            | Self::SessionUnknown => Noise::Audit,
            // Clients come, go, break off and are sent back, as they and the application please.
            Self::RequestHeadTimeout
            | Self::TlsHandshakeTimeout
            | Self::TlsPeerAlert
            | Self::TlsKeysWornOut
            | Self::TlsKeyUpdate
            | Self::NodeUnknown
            | Self::TokenExpired
            | Self::TokenConnectionExpired
            | Self::AlreadySubscribed
            | Self::PositionUnrecoverable
            | Self::NoPong
            | Self::Stale
            | Self::ConnectionExpired
            | Self::SubscriptionExpired
            | Self::ForceDisconnect
            | Self::HookError
            | Self::HookDisconnect
            | Self::Shutdown
            | Self::PeerClosed
            | Self::PeerReset => Noise::Usual,
            _ => Noise::Refusal,
        }
    }
}

impl From<http::Rejection> for Reason {
    fn from(rejection: http::Rejection) -> Self {
        match rejection {
            http::Rejection::HeadTooLarge => Self::RequestHeadTooLarge,
            http::Rejection::HeadersTooMany => Self::RequestHeadersTooMany,
            http::Rejection::Malformed => Self::RequestMalformed,
            http::Rejection::HttpVersionUnsupported => Self::HttpVersionUnsupported,
            http::Rejection::TargetInvalid => Self::RequestTargetInvalid,
            http::Rejection::HostInvalid => Self::HostInvalid,
            http::Rejection::HeaderRepeated => Self::RequestHeaderRepeated,
            http::Rejection::BodyLengthInvalid => Self::RequestBodyLengthInvalid,
            http::Rejection::BodyTooLarge => Self::RequestBodyTooLarge,
        }
    }
}

impl From<handshake::Rejection> for Reason {
    fn from(rejection: handshake::Rejection) -> Self {
        match rejection {
            handshake::Rejection::MethodNotAllowed => Self::MethodNotAllowed,
            handshake::Rejection::Malformed => Self::RequestMalformed,
            handshake::Rejection::HeaderRepeated => Self::RequestHeaderRepeated,
            handshake::Rejection::BodyPresent => Self::RequestBodyPresent,
            handshake::Rejection::NotAnUpgrade => Self::NotAnUpgrade,
            handshake::Rejection::VersionUnsupported => Self::WebsocketVersionUnsupported,
            handshake::Rejection::KeyMissing => Self::WebsocketKeyMissing,
            handshake::Rejection::KeyInvalid => Self::WebsocketKeyInvalid,
            handshake::Rejection::ExtensionsInvalid => Self::WebsocketExtensionsInvalid,
        }
    }
}

impl From<Violation> for Reason {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::ReservedBit => Self::ReservedBit,
            Violation::CompressedBitMisplaced => Self::CompressedBitMisplaced,
            Violation::ReservedOpcode => Self::ReservedOpcode,
            Violation::Unmasked => Self::UnmaskedFrame,
            Violation::ControlFragmented => Self::ControlFragmented,
            Violation::ControlTooLong => Self::ControlTooLong,
            Violation::LengthNotMinimal => Self::LengthNotMinimal,
            Violation::LengthTopBit => Self::LengthTopBit,
            Violation::ContinuationUnexpected => Self::ContinuationUnexpected,
            Violation::ContinuationExpected => Self::ContinuationExpected,
            Violation::MessageTooLarge => Self::MessageTooLarge,
            Violation::DeflateInvalid => Self::DeflateInvalid,
            Violation::DeflateUnfinished => Self::DeflateUnfinished,
            Violation::TextNotUtf8 => Self::TextNotUtf8,
            Violation::CloseTruncated => Self::CloseTruncated,
            Violation::CloseCodeInvalid => Self::CloseCodeInvalid,
            Violation::CloseReasonNotUtf8 => Self::CloseReasonNotUtf8,
        }
    }
}

impl From<ErrorCode> for Reason {
    fn from(error: ErrorCode) -> Self {
        match error {
            ErrorCode::Internal => Self::Internal,
            ErrorCode::Unauthorized => Self::CredentialsMissing,
            ErrorCode::UnknownChannel => Self::ChannelUnknown,
            ErrorCode::PermissionDenied => Self::PermissionDenied,
            ErrorCode::AlreadySubscribed => Self::AlreadySubscribed,
            ErrorCode::LimitExceeded => Self::ChannelsTooMany,
            ErrorCode::BadRequest => Self::CommandInvalid,
            ErrorCode::MethodNotFound | ErrorCode::NotAvailable | ErrorCode::TooManyRequests => Self::NotAvailable,
            ErrorCode::TokenExpired => Self::TokenExpired,
            ErrorCode::Expired => Self::TokenConnectionExpired,
            ErrorCode::UnrecoverablePosition => Self::PositionUnrecoverable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_snake_case_and_in_order() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.label().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{reason:?}");
        }
    }

    #[test]
    fn labels_are_those_of_the_websocket_module() {
        for violation in [Violation::Unmasked, Violation::TextNotUtf8, Violation::MessageTooLarge] {
            assert_eq!(Reason::from(violation).label(), violation.reason());
        }
    }
}
