//! PUBSUB: channels and their subscribers.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::{Call, Outcome};
use crate::{
    ingest::{
        payload::channel_text,
        refusal::Refusal,
        replies::{Waiting, counts_reply},
    },
    mesh::{ChannelName, ToShard},
    resp::Reply,
};

/// `PUBSUB CHANNELS [pattern]`: of every shard, because each knows its own subscribers.
pub(super) fn channels(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    if call.command.len() > 3 {
        return Err(Refusal::WrongArity("pubsub|channels".to_owned()));
    }
    let pattern = call.command.share(2);
    let reply_to = call.reply_to();
    let shards = call.state.shards();
    for shard in 0..shards {
        call.state.send_to(shard, ToShard::ListChannels { pattern: pattern.clone(), reply_to });
    }
    Ok(Outcome::Wait(Waiting::Channels { shards_left: shards, names: BTreeSet::new() }))
}

/// `PUBSUB NUMSUB [channel ...]`: of the channels' home shards.
pub(super) fn count_subscribers(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let channels: Vec<Bytes> =
        (2..call.command.len()).map(|index| call.command.share(index).expect("it is there")).collect();
    let mut by_home: Vec<Vec<ChannelName>> = vec![Vec::new(); call.state.shards()];
    for channel in &channels {
        // What cannot be a channel has no subscribers.
        if let Ok(name) = channel_text(channel) {
            let name = call.state.hasher.name(name);
            by_home[name.home(call.state.shards())].push(name);
        }
    }
    let reply_to = call.reply_to();
    let mut shards_left = 0;
    for (shard, channels) in by_home.into_iter().enumerate().filter(|(_, channels)| !channels.is_empty()) {
        shards_left += 1;
        call.state.send_to(shard, ToShard::CountSubscribers { channels, reply_to });
    }
    if shards_left == 0 {
        return Ok(counts_reply(&channels, &HashMap::new()).into());
    }
    Ok(Outcome::Wait(Waiting::Counts { shards_left, channels, counts: HashMap::new() }))
}

/// `PUBSUB NUMPAT`.
pub(super) fn count_patterns(_call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Ok(Reply::Integer(0).into())
}
