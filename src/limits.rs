//! Every cap of the server, the relations between caps, and the memory budget.
//!
//! Owns the numbers that no operator changes. What an operator may change has its default, its
//! bounds and its value in [`crate::config`].
//!
//! Invariants: the constant assertions below. Breaking one stops the build, because a queue,
//! a buffer or an index somewhere else relies on it.

/// Most shards in one process: a home shard keeps its interest per channel in a 64-bit set.
pub const SHARDS_MAX: usize = 64;

/// Sockets that a service manager may pass: one for clients from each shard, and one for each other purpose.
pub const PASSED_SOCKETS_MAX: usize = SHARDS_MAX + 4;

/// Longest channel name, in bytes (protocol.md section 12).
pub const CHANNEL_BYTES_MAX: usize = 255;

/// Longest user id, in bytes: its personal channel is `#` and the user id.
pub const USER_BYTES_MAX: usize = CHANNEL_BYTES_MAX - 1;

/// Connections beyond `client.connections_max` that may still bring requests to `/emulation`: each is short, and a full
/// server's clients must be heard.
pub const fn uplinks_reserved(connections_max: u32) -> u32 {
    let part = connections_max / 64;
    if part < 16 {
        16
    } else if part > 4096 {
        4096
    } else {
        part
    }
}

/// Bytes that are kept of each text by which a client's program names itself and its version. Libraries' are shorter.
pub const PROGRAM_TEXT_BYTES_MAX: usize = 64;

/// Longest reason in a WebSocket close frame, in bytes (RFC 6455 section 5.5: 125 less the code).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Payload of a WebSocket control frame, in bytes (RFC 6455 section 5.5).
pub const CONTROL_FRAME_BYTES_MAX: usize = 125;

/// Messages within messages in one client's command in Protobuf: enough for any filter by tags that is meant, and
/// little of a stack. JSON's reader has the same order of limit.
pub const COMMAND_DEPTH_MAX: usize = 64;

/// Comparisons, operations and values in a subscription's filter by tags: a list of a hundred tickers fits, and a
/// publication is tested against it in microseconds.
pub const FILTER_NODES_MAX: usize = 256;

/// Operations within operations in a filter by tags.
pub const FILTER_DEPTH_MAX: usize = 16;

/// Bytes of names and values in a filter by tags.
pub const FILTER_BYTES_MAX: usize = 4 * 1024;

/// Comparisons, operations and values in all filters of one channel's subscriptions on a shard: a publication is tested
/// against all of them in a millisecond or two. One filter more is refused.
pub const CHANNEL_FILTER_NODES_MAX: usize = 32 * 1024;

/// Longest WebSocket frame header that a client sends, in bytes: 2, 8 of length, 4 of mask.
pub const FRAME_HEADER_BYTES_MAX: usize = 14;

/// Bytes that a compressed message may have for what it becomes to have `message_bytes`: deflate makes longer what it
/// cannot compress, zlib by 5 bytes in 16 KiB as it is used mostly, by 5 in 127 with the least memory.
pub const fn deflated_bytes_max(message_bytes: usize) -> usize {
    message_bytes + message_bytes / 16 + 64
}

/// Streams of deflate that one compressed message may consist of. Beginning one takes 2.4 µs of the shard's time, where a
/// window of 32 KiB is carried over, and two bytes of the message; hardly any client begins a second. So a message holds a
/// shard for 0.6 ms by them.
pub const DEFLATE_STREAMS_MAX: usize = 256;

/// Longest HTTP request head, in bytes.
pub const REQUEST_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Most header fields in a request head.
pub const REQUEST_HEADERS_MAX: usize = 64;

/// Received bytes of one connection in one receive: the unit of a shard's scratch buffer.
pub const RECEIVE_BYTES_MAX: usize = 16 * 1024;

/// Receives that a shard submits together; times [`RECEIVE_BYTES_MAX`] it is the shard's scratch buffer.
pub const RECEIVE_BATCH_MAX: usize = 64;

/// Sends that a shard submits together.
pub const SEND_BATCH_MAX: usize = 512;

/// Messages between two threads that wait at most; beyond, the sender holds them back and stops taking in.
pub const MESH_QUEUE_MESSAGES_MAX: usize = 1024;

/// Messages that a shard takes from one queue in one turn, so that no neighbour starves its sockets.
pub const MESH_TURN_MESSAGES_MAX: usize = 256;

/// Requests of clients that a shard has put to home shards and that are not answered yet; beyond, it receives nothing
/// from clients. Home shards hold back answers that find no room, and this bounds them.
pub const CLIENT_REQUESTS_MAX: usize = 2 * MESH_QUEUE_MESSAGES_MAX;

/// Publications that a client's history or recovery reply carries at most (protocol.md section 9).
pub const HISTORY_REPLY_PUBLICATIONS_MAX: usize = 300;

/// Payload bytes that a history or recovery reply carries at most, one publication always fitting: 300 long ones would
/// make a frame of gigabytes. Recovery of more begins anew, as that of too many does; history goes on from the last.
pub const HISTORY_REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Level at which history is compressed: the fastest of the regular ones. The others gain a few percent of bytes for
/// several times the time.
pub const HISTORY_COMPRESSION_LEVEL: i32 = 1;

/// Bytes of history that a shard keeps decompressed, so that a storm of clients that come back costs each block once.
pub const HISTORY_UNPACKED_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of replies that wait for one client at most; with more it counts as slow. They are not counted as what the
/// server pushes is, because a client has asked for them; so there must be room for the longest of them, and others.
pub const OUTBOX_REPLY_BYTES_MAX: usize = 2 * HISTORY_REPLY_BYTES_MAX;

/// Clients that a presence reply names at most: some 2 MB. Beyond, the command is answered error 106, and
/// `presence_stats` still tells how many there are.
pub const PRESENCE_REPLY_CLIENTS_MAX: usize = 10_000;

/// Bytes of frames after which a shard takes no more messages in a turn, but sends: what it has encoded is addressed
/// by 32 bits, and is memory.
pub const TURN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Letters of an epoch, upper and lower case: 5 * 10^13 of them (protocol.md section 7).
pub const EPOCH_LETTERS: usize = 8;

/// Milliseconds that a stream's position (epoch and offset) outlives its last publication, subscriber and
/// question. A client that comes back within them learns that it missed nothing, or what; one that was away for
/// longer begins anew, as it must after most outages of that length anyway, history being shorter. A day, not the
/// reference's 30, because a position costs some 300 bytes for each channel that was published to.
pub const STREAM_POSITION_MS: u64 = 24 * 60 * 60 * 1000;

/// The same for a stream without any publication so far: all that is lost with it is the knowledge that nothing
/// was missed, and clients can create such streams at will by asking for names.
pub const STREAM_UNUSED_MS: u64 = 5 * 60 * 1000;

/// Bytes of idempotency keys that a home shard remembers: some 370,000 keys of usual length, or 1,200 a second
/// over the default window. Beyond, the oldest are forgotten early.
pub const IDEMPOTENCY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Milliseconds that a count of subscribers may be old when a producer is told it.
pub const SUBSCRIBER_COUNT_AGE_MS_MAX: u64 = 100;

/// Milliseconds that a handshake may take in any case; older ones make room where there are too many. A client on a bad
/// mobile network needs half of it.
pub const HANDSHAKE_MS_MIN: u64 = 1_000;

/// Bytes that the host gets back for a connection that is closed: the kernel's socket and poll, and the slot.
pub const CONNECTION_HOST_BYTES: u64 = 4_250;

/// Prefixes that operators add to the deny list while the server runs: each is looked for among some tens.
pub const DENIED_PREFIXES_MAX: usize = 4_096;

/// Connections that were turned away and that wait, on one shard, for their peers to take the answer; more are closed
/// without one.
pub const REFUSALS_MAX: usize = 1_024;

/// Milliseconds that each of them waits at most.
pub const REFUSAL_LINGER_MS_MAX: u64 = 1_000;

/// Milliseconds between a close frame sent and the socket's end, if the peer does not answer (protocol.md section 14).
pub const CLOSE_HANDSHAKE_MS_MAX: u64 = 5_000;

/// The same while the server stops: who does not answer must not keep it from ending in time.
pub const CLOSE_HANDSHAKE_STOPPING_MS_MAX: u64 = 1_000;

/// Payload bytes of one producer's command, all arguments together.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Arguments of one producer's command.
pub const COMMAND_ARGUMENTS_MAX: usize = 1024;

/// Bytes of one inline command (a line typed by hand).
pub const INLINE_COMMAND_BYTES_MAX: usize = 64 * 1024;

/// Connections to the operators' port at a time; more wait in the kernel's queue.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Milliseconds that a connection to the operators' port may be idle. Longer than a scraper's usual interval of a
/// minute, so that its connection stays; an open console is written to every second.
pub const ADMIN_IDLE_MS_MAX: u64 = 75_000;

/// Milliseconds that a thread may take to answer the control thread before it counts as stuck. A shard's turn lasts
/// some milliseconds, so two seconds are no load: something holds it.
pub const THREAD_ANSWER_MS_MAX: u64 = 2_000;

/// Milliseconds between two rounds of questions for figures, so that a flood of requests to the operators' port cannot
/// keep shards awake.
pub const OBSERVE_INTERVAL_MS_MIN: u64 = 20;

/// Connections that one shard lists of one user: some hundred kilobytes.
pub const LISTED_CONNECTIONS_MAX: usize = 1_000;

/// Connections to the server API's own port at a time: a back end keeps some open per worker. More wait in the kernel's
/// queue.
pub const API_CONNECTIONS_MAX: usize = 512;

/// Connections from the clients' port that wait for room among the server API's; more are closed.
pub const API_CONNECTIONS_WAITING_MAX: usize = 64;

/// Bytes of a request to the server API: the longest payload in base64, or a batch of many short ones.
pub const API_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Questions of the server API that shards have yet to answer; further requests wait.
pub const API_QUESTIONS_MAX: usize = 4 * MESH_QUEUE_MESSAGES_MAX;

/// Channels that one publication is broadcast to by the server API, and commands in one batch: some 300 bytes each on
/// their way to the shards.
pub const API_LIST_ITEMS_MAX: usize = 64 * 1024;

/// Publications that the server API's `history` brings at most, within [`HISTORY_REPLY_BYTES_MAX`].
pub const API_HISTORY_PUBLICATIONS_MAX: usize = 10_000;

/// Channels that the server API lists: some 10 MB. With more, a pattern has to choose.
pub const API_CHANNELS_MAX: usize = 100_000;

/// Bytes of shared windows of compression on a shard: 16,000 channels with 4 KiB each. Beyond, further channels' messages
/// are compressed one by one.
pub const COHORT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Topics that a shard looks through in one turn when channels and users are counted: well under a millisecond.
pub const CENSUS_TOPICS_MAX: u32 = 4 * 1024;

/// Milliseconds between attempts to hand over what a full queue of the mesh did not take.
pub const HELD_RETRY_MS: u64 = 1;

/// Lines of a log that wait to be written; with more, the newest are lost, and counted. Some hundred kilobytes.
pub const LOG_QUEUE_LINES_MAX: usize = 4 * 1024;

/// Bytes of one line of a log; what is longer is cut.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;

/// Lines about one reason that a shard writes in ten seconds; the next one after them says how many were not written.
pub const LOG_LINES_PER_REASON_MAX: u64 = 5;

/// The same of the audit trail, which should have each event: enough for a person's mistakes, and for the begin of an
/// attack.
pub const AUDIT_LINES_PER_REASON_MAX: u64 = 200;

/// Ends of connections that a shard remembers, for who asks why a user's connection closed: some 100 KB.
pub const CLOSES_KEPT_MAX: usize = 1024;

/// Of these, those that one answer tells.
pub const CONSOLE_CLOSES_MAX: usize = 50;

/// Slow clients, and clients that send much, that the console lists for each shard.
pub const CONSOLE_CLIENTS_MAX: usize = 10;

/// Clients whose bytes are counted at a time to find those that send most. One in so many of all bytes is found for sure.
pub const TALKERS_COUNTED_MAX: usize = 32;

/// Channels that the console lists.
pub const CONSOLE_CHANNELS_MAX: usize = 10;

/// Bytes of a producer's arguments above its longest payload: channels, keys, tags, a long `PUBSUB NUMSUB`.
pub const COMMAND_OVERHEAD_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that the ingest thread receives from a producer in one read, unless a payload is known to be longer.
pub const INGEST_READ_BYTES: usize = 32 * 1024;

/// Commands of one producer that wait for shards' answers; beyond, it is not read from.
pub const INGEST_PENDING_COMMANDS_MAX: usize = 8 * 1024;

/// Bytes of replies that wait for one producer to read them; beyond, it is not read from.
pub const INGEST_REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one producer's commands between MULTI and EXEC, with [`INGEST_TRANSACTION_COMMAND_BYTES`] for each.
pub const INGEST_TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a queued command costs beside its bytes.
pub const INGEST_TRANSACTION_COMMAND_BYTES: usize = 128;

/// Bytes of a text that a producer names itself or its library with.
pub const INGEST_LABEL_BYTES_MAX: usize = 128;

/// Dictionaries by which producers may compress.
pub const DICTIONARIES_MAX: usize = 64;

/// Bytes of such a dictionary; `zstd --train` makes 110 KiB unless it is told otherwise.
pub const DICTIONARY_BYTES_MAX: usize = 1024 * 1024;

/// Milliseconds that a publisher of keys has to answer. With the interval below, a client whose key is not at hand waits
/// for five seconds at most, which is what client libraries wait for.
pub const KEY_SET_FETCH_MS_MAX: u64 = 3_000;

/// Milliseconds between the beginnings of two fetches of published keys.
pub const KEY_SET_INTERVAL_MS_MIN: u64 = 2_000;

/// Bytes of a published set of keys.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// Keys of a published set (JWKS) that are looked at. Identity providers publish two or three.
pub const KEY_SET_KEYS_MAX: usize = 64;

/// Bytes of an answer of the application's back end.
pub const HOOK_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Questions about one client's commands that the back end may have yet to answer; with so many, no more is received
/// from the client. Client libraries subscribe to all channels at once, so there is room for as many as usual.
pub const HOOK_QUESTIONS_PER_CLIENT_MAX: u16 = 128;

/// Seconds until the back end is asked again whether a connection or a subscription goes on, if it did not answer.
pub const HOOK_RETRY_SECONDS: u32 = 60;

/// Traces that lack notes of shards; each is a few hundred bytes, and more with many shards.
pub const TRACES_UNDER_WAY_MAX: usize = 4 * 1024;

/// Milliseconds that a trace waits for the last note. A turn of a shard takes less, unless its subscribers are millions.
pub const TRACE_ASSEMBLY_MS_MAX: u64 = 10_000;

/// Spans that wait for a collector: some two megabytes.
pub const TRACE_SPANS_WAITING_MAX: u64 = 16 * 1024;

/// Spans after which a request to a collector ends, with the trace that they belong to.
pub const TRACE_BATCH_SPANS_MAX: u64 = 512;

/// Milliseconds that a request to a collector waits for more spans.
pub const TRACE_BATCH_MS_MAX: u64 = 1_000;

/// Milliseconds that a collector has to answer.
pub const TRACE_EXPORT_MS_MAX: u64 = 10_000;

/// Bytes of an answer of a collector.
pub const TRACE_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What an idle connection of a port with TLS keeps for it on the heap: for each direction a secret, a key and a nonce.
pub const TLS_CHANNEL_BYTES_MAX: usize = 288;

/// Handshakes that a shard advances in one turn: a millisecond or two, for which established clients wait.
pub const TLS_HANDSHAKES_PER_TURN_MAX: usize = 8;

/// Sessions that a port keeps for clients of TLS 1.2 that take no tickets.
pub const TLS_SESSIONS_MAX: usize = 1024;

/// Bytes that are sealed for one connection in one turn: what its socket does not take of them waits as it is, and can
/// no longer be dropped.
pub const TLS_SEALED_BYTES_MAX: usize = 64 * 1024;

/// Milliseconds between two looks at the files of certificates.
pub const TLS_RELOAD_INTERVAL_MS: u64 = 5_000;

/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Bytes of a version's epoch: each channel with versions keeps one.
pub const VERSION_EPOCH_BYTES_MAX: usize = 255;

/// Milliseconds for which nobody is accepted after descriptors or memory for another socket were missing.
pub const ACCEPT_PAUSE_MS: u64 = 100;

/// Milliseconds between looks at a full mesh queue, should the shard not ring before.
pub const INGEST_RETRY_MS: u64 = 1;

/// Bytes of user memory for an idle client of a user of its own, in its personal channel and one that it shares: the sum
/// below. The shard that is home to the personal channel, if it is another, spends some 12 bytes more.
pub const IDLE_CLIENT_BYTES_MAX: usize = 120;

/// A connection's slot.
pub const CONNECTION_BYTES: usize = 64;

/// The record of a topic; here that of the personal channel.
pub const TOPIC_BYTES: usize = 24;

/// A topic's part of the table by name: four bytes for two topics, and a quarter in reserve.
pub const TOPIC_PLACE_BYTES_MAX: usize = 3;

/// The name of a personal channel whose user has an id of up to 15 bytes; longer ids cost their length.
pub const PERSONAL_CHANNEL_NAME_BYTES: usize = 16;

/// A place in a shared topic's list: four bytes, and a quarter in reserve.
pub const TOPIC_MEMBER_BYTES_MAX: usize = 5;

const _: () = assert!(
    CONNECTION_BYTES + TOPIC_BYTES + TOPIC_PLACE_BYTES_MAX + PERSONAL_CHANNEL_NAME_BYTES + TOPIC_MEMBER_BYTES_MAX
        <= IDLE_CLIENT_BYTES_MAX
);

const _: () = {
    assert!(SHARDS_MAX <= u64::BITS as usize);
    assert!(CLOSE_REASON_BYTES_MAX + 2 == CONTROL_FRAME_BYTES_MAX);
    assert!(REQUEST_HEAD_BYTES_MAX <= RECEIVE_BYTES_MAX);
    assert!(MESH_TURN_MESSAGES_MAX <= MESH_QUEUE_MESSAGES_MAX);
    assert!(IDEMPOTENCY_KEY_BYTES_MAX < IDEMPOTENCY_BYTES_MAX);
    // A read may bring more commands than a queue takes; what is held back is bounded by the pending ones.
    assert!(MESH_QUEUE_MESSAGES_MAX <= INGEST_PENDING_COMMANDS_MAX);
};
