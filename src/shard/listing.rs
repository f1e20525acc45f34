//! A user's connections as the application's back end sees them, and what it may change of them.

use super::state::State;
use crate::{
    limits::LISTED_CONNECTIONS_MAX,
    mesh::{Answer, Device, DevicesFound},
    protocol::AttributesPatch,
};

impl State {
    /// These connections, listed.
    pub fn list(&self, connections: &[u32]) -> Answer {
        let is_listed = connections.len() <= LISTED_CONNECTIONS_MAX;
        Answer::Devices(match is_listed {
            true => DevicesFound::Devices(connections.iter().map(|index| self.device(*index)).collect()),
            false => DevicesFound::TooMany,
        })
    }

    fn device(&self, index: u32) -> Device {
        let connection = self.connection(index);
        let (name, version) = self.programs.get(connection.program);
        let subscriptions =
            connection.subscriptions.iter(&self.further).filter(|subscription| !subscription.is_silent());
        let mut channels: Vec<Box<str>> =
            subscriptions.map(|subscription| self.topics.name(subscription.topic).into()).collect();
        channels.sort_unstable();
        Device {
            client: self.client_ids.of(self.id(index)),
            transport: connection.form.transport(),
            encoding: connection.form.encoding(),
            name: name.into(),
            version: version.into(),
            attributes: connection.extra.as_ref().and_then(|extra| extra.meta.clone()),
            channels,
        }
    }

    /// Changes what the back end knows of connections. Where that would be too much, it stays as it is.
    pub fn change_attributes(&mut self, connections: &[u32], patch: &AttributesPatch) -> Answer {
        let (mut updated, mut refused) = (0, 0);
        for index in connections {
            let connection = &mut self.connections[*index as usize];
            let present = connection.extra.as_ref().and_then(|extra| extra.meta.as_deref());
            match patch.apply(present, &self.config.attributes) {
                Ok(attributes) => {
                    connection.extra_mut().meta = attributes;
                    connection.drop_empty_extra();
                    self.tell_changed(*index);
                    updated += 1;
                }
                Err(_) => refused += 1,
            }
        }
        Answer::Changed { updated, refused }
    }
}
