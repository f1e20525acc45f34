//! `[hooks]`: where the application's back end is asked, and about what (protocol.md section 20).
//!
//! Owns the list of questions. Who asks when is `session`'s business, how `control`'s.

use super::{HookRefusal, Secret, StatusTransform};

/// What the back end is asked about, or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A client connects without a token: who is it?
    Connect,
    /// A connection's time is over: may it go on?
    Refresh,
    /// A client wants to subscribe: may it?
    Subscribe,
    /// A client wants to publish: may it, and what?
    Publish,
    /// A client calls a method of the application.
    Rpc,
    /// A subscription's time is over: may it go on?
    SubRefresh,
    /// A client has gone; nobody waits for an answer.
    Disconnect,
    /// What is known of a connection has been changed; nobody waits for an answer.
    Attributes,
}

impl Hook {
    /// Each of them: `ALL[hook as usize] == hook`.
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Refresh,
        Self::Subscribe,
        Self::Publish,
        Self::Rpc,
        Self::SubRefresh,
        Self::Disconnect,
        Self::Attributes,
    ];

    /// Whether the back end is only told: nobody waits for an answer.
    pub const fn is_told(self) -> bool {
        matches!(self, Self::Disconnect | Self::Attributes)
    }

    /// Its name in keys, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
            Self::SubRefresh => "sub_refresh",
            Self::Disconnect => "disconnect",
            Self::Attributes => "attributes",
        }
    }
}

/// `[hooks]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HooksConfig {
    /// Of [`Hook::Connect`].
    pub connect: HookConfig,
    /// Of [`Hook::Refresh`].
    pub refresh: HookConfig,
    /// Of [`Hook::Subscribe`].
    pub subscribe: HookConfig,
    /// Of [`Hook::Publish`].
    pub publish: HookConfig,
    /// Of [`Hook::Rpc`].
    pub rpc: HookConfig,
    /// Of [`Hook::SubRefresh`].
    pub sub_refresh: HookConfig,
    /// Of [`Hook::Disconnect`].
    pub disconnect: HookConfig,
    /// Of [`Hook::Attributes`].
    pub attributes: HookConfig,
    /// Requests of one kind that are under way at a time. Default 64.
    pub requests_max: u32,
    /// Requests of one kind that wait for their turn. Default 10,000.
    pub queue_max: u32,
    /// What proves to the back end that it is this server that asks.
    pub secret: Option<Secret>,
    /// Header fields of a client's request that the back end is shown. Default none.
    pub headers: Vec<String>,
    /// Whether it is shown a connection's `meta`. Default false.
    pub include_connection_meta: bool,
    /// Whether payloads of Protobuf clients go and come in base64, as any bytes. Default false: they must be JSON.
    pub binary_encoding: bool,
    /// What statuses other than 200 mean. Default none: they are no answers.
    pub status_transforms: Vec<StatusTransform>,
}

/// Where one kind of question goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookConfig {
    /// Address; none: it is not asked.
    pub endpoint: Option<String>,
    /// Milliseconds from the client's command to the answer. Default 1,000.
    pub ms_max: u32,
}

impl HooksConfig {
    /// Where a question goes.
    pub fn of(&self, hook: Hook) -> &HookConfig {
        match hook {
            Hook::Connect => &self.connect,
            Hook::Refresh => &self.refresh,
            Hook::Subscribe => &self.subscribe,
            Hook::Publish => &self.publish,
            Hook::Rpc => &self.rpc,
            Hook::SubRefresh => &self.sub_refresh,
            Hook::Disconnect => &self.disconnect,
            Hook::Attributes => &self.attributes,
        }
    }

    /// Whether it is asked at all.
    pub fn is_asked(&self, hook: Hook) -> bool {
        self.of(hook).endpoint.is_some()
    }

    /// Whether any is.
    pub fn is_any_asked(&self) -> bool {
        Hook::ALL.iter().any(|hook| self.is_asked(*hook))
    }

    /// What a status means to clients; none: it is no answer.
    pub fn refusal_of(&self, status: u16) -> Option<&HookRefusal> {
        self.status_transforms.iter().find(|transform| transform.status == status).map(|transform| &transform.meaning)
    }

    /// The place of a header field in the list of those that are shown.
    pub fn header(&self, name: &str) -> Option<usize> {
        self.headers.iter().position(|header| header.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_listed_in_their_order_and_each_has_an_endpoint_of_its_own() {
        let mut config = HooksConfig::default();
        config.sub_refresh.endpoint = Some("http://127.0.0.1/".to_owned());
        for (index, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, index);
            assert_eq!(config.is_asked(hook), hook == Hook::SubRefresh, "{hook:?}");
        }
        assert!(config.is_any_asked() && !HooksConfig::default().is_any_asked());
    }
}
