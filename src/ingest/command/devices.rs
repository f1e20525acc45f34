//! TG.CONNECTIONS, TG.ATTRIBUTES, TG.DISCONNECT: what the back end knows of a user's connections, and their end.

use std::sync::Arc;

use super::{Call, Outcome};
use crate::{
    ingest::{payload::check_user, refusal::Refusal, replies::Waiting},
    mesh::{Addressees, ToShard, UserAction, UserRequest},
    protocol::{AttributesPatch, Disconnect},
};

/// In place of a client id: every connection of the user.
const EVERY_CLIENT: &[u8] = b"*";

/// `TG.CONNECTIONS user`.
pub(super) fn connections(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let shards_left = call.ask_about_user(Addressees::default(), UserAction::List)?;
    Ok(Outcome::Wait(Waiting::Devices { shards_left, found: Some(Vec::new()) }))
}

/// `TG.ATTRIBUTES user client|* json`.
pub(super) fn attributes(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let client = Some(call.argument(2)).filter(|client| *client != EVERY_CLIENT);
    // What is no text is no client's id.
    let client = client.map(|client| String::from_utf8_lossy(client).into_owned());
    let patch = AttributesPatch::read(call.argument(3), &call.state.config.attributes)?;
    let addressees = Addressees { client, ..Addressees::default() };
    let shards_left = call.ask_about_user(addressees, UserAction::ChangeAttributes { patch })?;
    Ok(Outcome::Wait(Waiting::Changed { shards_left, updated: 0, refused: 0 }))
}

/// `TG.DISCONNECT user [client]`.
pub(super) fn disconnect(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let client = match call.command.len() {
        2 => None,
        3 => Some(String::from_utf8_lossy(call.argument(2)).into_owned()),
        _ => return Err(Refusal::WrongArity("tg.disconnect".to_owned())),
    };
    let addressees = Addressees { client, ..Addressees::default() };
    let told = Disconnect::FORCE_DISCONNECT;
    let action = UserAction::Disconnect { code: told.code(), reason: told.reason().to_owned() };
    let shards_left = call.ask_about_user(addressees, action)?;
    Ok(Outcome::Wait(Waiting::Connections { shards_left, connections: 0 }))
}

impl Call<'_> {
    /// Asks all shards about connections of the user whom the first argument names: how many shards that are.
    fn ask_about_user(&mut self, addressees: Addressees, action: UserAction) -> Result<usize, Refusal> {
        let user = check_user(self.argument(1), &self.state.config.client)?.to_owned();
        let request = Arc::new(UserRequest { user, addressees, action });
        let reply_to = self.reply_to();
        let shards = self.state.shards();
        for shard in 0..shards {
            self.state.send_to(shard, ToShard::User { request: Arc::clone(&request), reply_to });
        }
        Ok(shards)
    }
}
