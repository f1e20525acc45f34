//! `/metrics`: the Prometheus text exposition format, version 0.0.4.
//!
//! [`FAMILIES`] is the whole list; a new figure is one more row. Names end in their unit, counters
//! in `_total`. A shard that is stuck keeps its last figures and is told apart by
//! `tidegate_thread_up`.

use std::{collections::BTreeMap, fmt::Write, time::Instant};

use super::{
    api::{ApiFigures, MethodFigures},
    hook_lane::{LaneFigures, Outcome},
    key_sets::KeySetFigures,
    memory::MemoryFigures,
    observer::{Snapshot, ThreadState},
    process::{self, ProcessFigures},
    reload::ReloadFigures,
    trace_queue::TraceFigures,
};
use crate::{
    log,
    mesh::{CompressionFigures, Histogram, IngestFigures, ShardFigures},
    tls::CertificateFacts,
};

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text of all metrics.
pub fn render(snapshot: &Snapshot, api: &ApiFigures, process: &ProcessFigures) -> String {
    let mut text = String::with_capacity(32 * 1024);
    for family in FAMILIES {
        family.render(snapshot, api, process, &mut text);
    }
    text
}

struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    source: Source,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Where a family's samples come from.
enum Source {
    /// One sample per shard.
    Shard(fn(&ShardFigures) -> u64),
    /// One histogram per shard, and how many of its units are one of the metric's.
    Histogram(fn(&ShardFigures) -> &Histogram, f64),
    /// Sums over all shards, one sample per key.
    ShardsBy(&'static str, fn(&ShardFigures) -> &[(&'static str, u64)]),
    /// Sums over all shards, one sample per namespace.
    Compression(fn(&CompressionFigures) -> f64),
    /// The same, of counts that are put together.
    ShardsByOwned(&'static str, fn(&ShardFigures) -> Vec<(&'static str, u64)>),
    /// One sample.
    Ingest(fn(&IngestFigures) -> u64),
    /// One sample per key.
    IngestBy(&'static str, fn(&IngestFigures) -> &[(&'static str, u64)]),
    /// One sample, if the server fetches published keys.
    KeySets(fn(&KeySetFigures, Instant) -> Option<f64>),
    /// One sample.
    Reloads(fn(&ReloadFigures) -> f64),
    /// One sample per kind of question to the application's back end.
    Hooks(fn(&LaneFigures) -> f64),
    /// One sample per kind of question and its end.
    HookOutcomes,
    /// One sample per end of spans, if there is a collector.
    TraceSpans,
    /// One sample, if there is a collector.
    Traces(fn(&TraceFigures) -> f64),
    /// One sample per method of the server API.
    Api(fn(&MethodFigures) -> f64),
    /// One sample per method of the server API and its end.
    ApiOutcomes,
    /// One sample per reason for which a request to the server API was no call.
    ApiRejections,
    /// One sample per log.
    Logs(fn(&log::Figures) -> u64),
    /// One sample per log and reason.
    LostLines,
    /// One sample, where there are connections.
    KernelPerConnection,
    /// One sample, if it is known.
    Memory(fn(&MemoryFigures) -> Option<f64>),
    /// One sample per certificate.
    Certificates(fn(&CertificateFacts) -> f64),
    /// One sample per outcome of a renewal of certificates, if there are any.
    CertificateRenewals,
    /// One sample, if the kernel gives it.
    Process(fn(&ProcessFigures) -> Option<f64>),
    /// One sample per thread: whether it answers.
    ThreadUp,
    /// One sample per thread: how long its last answer took.
    ThreadAnswerTime,
    /// One sample: 1, labelled with the version.
    Build,
    /// One sample: when the process started.
    StartTime,
}

use Kind::{Counter, Gauge};

/// Microseconds in the unit of metrics.
const SECOND: f64 = 1_000_000.0;

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    Family { name: "tidegate_build_info", kind: Gauge, help: "The running version; always 1.", source: Source::Build },
    Family { name: "tidegate_thread_up", kind: Gauge, help: "Whether the thread answers the control thread: 1, or 0 if it is stuck or has ended.", source: Source::ThreadUp },
    Family { name: "tidegate_thread_answer_seconds", kind: Gauge, help: "How long the thread's last answer to the control thread took.", source: Source::ThreadAnswerTime },

    Family { name: "tidegate_connections", kind: Gauge, help: "Clients that are connected now.", source: Source::Shard(|figures| figures.connections) },
    Family { name: "tidegate_users", kind: Gauge, help: "Users with clients on the shard now; one with clients on several shards is counted on each.", source: Source::Shard(|figures| figures.users_connected) },
    Family { name: "tidegate_sockets", kind: Gauge, help: "Client sockets that are open now, in any state.", source: Source::Shard(|figures| figures.sockets) },
    Family { name: "tidegate_channels", kind: Gauge, help: "Channels with subscribers or users on the shard now; one on several shards is counted on each.", source: Source::Shard(|figures| figures.channels) },
    Family { name: "tidegate_subscriptions", kind: Gauge, help: "Subscriptions now.", source: Source::Shard(|figures| figures.subscriptions) },
    Family { name: "tidegate_outbox_bytes", kind: Gauge, help: "Bytes that wait for slow clients now.", source: Source::Shard(|figures| figures.outbox_bytes) },
    Family { name: "tidegate_outboxes", kind: Gauge, help: "Connections that something waits for now.", source: Source::Shard(|figures| figures.outboxes) },
    Family { name: "tidegate_connection_table_bytes", kind: Gauge, help: "User memory that the shard's tables hold for connections now.", source: Source::Shard(|figures| figures.connection_bytes) },
    Family { name: "tidegate_history_bytes", kind: Gauge, help: "Memory that the history of channels takes on their home shard now.", source: Source::Shard(|figures| figures.history_bytes) },
    Family { name: "tidegate_history_evicted_total", kind: Counter, help: "Publications that left history before their time because shards.history_size_max was reached.", source: Source::Shard(|figures| figures.history_evicted) },
    Family { name: "tidegate_history_compressed_payload_bytes_total", kind: Counter, help: "Payload bytes of history that were compressed (history_compression_size_min).", source: Source::Shard(|figures| figures.history_packed_payload_bytes) },
    Family { name: "tidegate_history_compressed_bytes_total", kind: Counter, help: "Bytes that they became.", source: Source::Shard(|figures| figures.history_packed_bytes) },
    Family { name: "tidegate_history_decompressed_blocks_total", kind: Counter, help: "Blocks of history that were decompressed for clients.", source: Source::Shard(|figures| figures.history_unpacked_blocks) },
    Family { name: "tidegate_members", kind: Gauge, help: "Subscriptions that presence and join_leave are kept for on their channel's home shard now.", source: Source::Shard(|figures| figures.members) },
    Family { name: "tidegate_accepted_sockets_total", kind: Counter, help: "Client sockets accepted.", source: Source::Shard(|figures| figures.accepted) },
    Family { name: "tidegate_publications_total", kind: Counter, help: "Publications numbered by the shard as their channel's home.", source: Source::Shard(|figures| figures.publications) },
    Family { name: "tidegate_deliveries_total", kind: Counter, help: "Publications delivered to the shard, before the fan-out to its subscribers.", source: Source::Shard(|figures| figures.deliveries) },
    Family { name: "tidegate_messages_sent_total", kind: Counter, help: "Messages (WebSocket frames) to clients.", source: Source::Shard(|figures| figures.messages_sent) },
    Family { name: "tidegate_messages_received_total", kind: Counter, help: "Messages from clients.", source: Source::Shard(|figures| figures.messages_received) },
    Family { name: "tidegate_sent_bytes_total", kind: Counter, help: "Bytes to clients.", source: Source::Shard(|figures| figures.bytes_sent) },
    Family { name: "tidegate_received_bytes_total", kind: Counter, help: "Bytes from clients.", source: Source::Shard(|figures| figures.bytes_received) },
    Family { name: "tidegate_pings_sent_total", kind: Counter, help: "Pings to clients.", source: Source::Shard(|figures| figures.pings) },
    Family { name: "tidegate_slow_consumer_dropped_total", kind: Counter, help: "Publications dropped for slow consumers, by their namespace's policy.", source: Source::ShardsBy("policy", |figures| &figures.dropped) },
    Family { name: "tidegate_rejections_total", kind: Counter, help: "Requests, commands and connections of clients that were refused or ended, by reason.", source: Source::ShardsBy("reason", |figures| &figures.reasons) },
    Family { name: "tidegate_compressed_messages_total", kind: Counter, help: "Messages that were compressed, once for all clients that are sent them, by namespace.", source: Source::Compression(|figures| figures.messages as f64) },
    Family { name: "tidegate_compression_kept_messages_total", kind: Counter, help: "Messages that stayed plain because compression would have made them no shorter, by namespace.", source: Source::Compression(|figures| figures.messages_kept as f64) },
    Family { name: "tidegate_compression_input_bytes_total", kind: Counter, help: "Bytes of messages before they were compressed, by namespace.", source: Source::Compression(|figures| figures.bytes_before as f64) },
    Family { name: "tidegate_compression_output_bytes_total", kind: Counter, help: "Bytes of the same messages after, by namespace.", source: Source::Compression(|figures| figures.bytes_after as f64) },
    Family { name: "tidegate_compression_delivered_plain_bytes_total", kind: Counter, help: "Bytes of publications for clients that agreed on compression, as if nothing were compressed, by namespace.", source: Source::Compression(|figures| figures.delivered_bytes_before as f64) },
    Family { name: "tidegate_compression_delivered_bytes_total", kind: Counter, help: "Bytes of publications that these clients were given, by namespace.", source: Source::Compression(|figures| figures.delivered_bytes_after as f64) },
    Family { name: "tidegate_compression_seconds_total", kind: Counter, help: "Time that compression took, by namespace.", source: Source::Compression(|figures| figures.nanoseconds as f64 / 1e9) },
    Family { name: "tidegate_compression_members", kind: Gauge, help: "Connections that have a channel's shared window now.", source: Source::Shard(|figures| figures.cohort_members) },
    Family { name: "tidegate_compression_waiting", kind: Gauge, help: "Subscriptions that wait for a keyframe to get a channel's shared window now.", source: Source::Shard(|figures| figures.cohort_waiting) },
    Family { name: "tidegate_compression_window_bytes", kind: Gauge, help: "Memory that shared windows take now.", source: Source::Shard(|figures| figures.cohort_bytes) },
    Family { name: "tidegate_compression_keyframes_total", kind: Counter, help: "Keyframes, at which a shared window begins anew, by cause.", source: Source::ShardsBy("cause", |figures| &figures.keyframes) },

    Family { name: "tidegate_tls_handshakes_begun_total", kind: Counter, help: "TLS handshakes that clients have begun.", source: Source::Shard(|figures| figures.tls_handshakes_begun) },
    Family { name: "tidegate_tls_handshakes_total", kind: Counter, help: "TLS handshakes with clients that have ended well.", source: Source::Shard(|figures| figures.tls_handshakes) },
    Family { name: "tidegate_tls_handshakes_under_way", kind: Gauge, help: "TLS handshakes that are under way now.", source: Source::Shard(|figures| figures.tls_handshakes_under_way) },
    Family { name: "tidegate_tls_handshakes_waiting", kind: Gauge, help: "Clients whose TLS handshake waits for others now, for client.tls.handshakes_max or its rate.", source: Source::Shard(|figures| figures.tls_handshakes_waiting) },
    Family { name: "tidegate_mesh_held_messages_total", kind: Counter, help: "Messages to other threads that found a queue full and were held back.", source: Source::Shard(|figures| figures.mesh_held) },
    Family { name: "tidegate_io_uring_enters_total", kind: Counter, help: "Calls of io_uring_enter.", source: Source::Shard(|figures| figures.enters) },
    Family { name: "tidegate_io_uring_sends_total", kind: Counter, help: "Sends submitted.", source: Source::Shard(|figures| figures.sends) },
    Family { name: "tidegate_io_uring_receives_total", kind: Counter, help: "Receives submitted.", source: Source::Shard(|figures| figures.receives) },
    Family { name: "tidegate_system_calls_total", kind: Counter, help: "System calls of shards, by name. What goes through io_uring is one of io_uring_enter.", source: Source::ShardsByOwned("call", system_calls) },
    Family { name: "tidegate_connection_states", kind: Gauge, help: "Client sockets by state now: head, awaiting_connect, connecting, connected, closing.", source: Source::ShardsBy("state", |figures| &figures.states) },
    Family { name: "tidegate_accept_to_connected_seconds", kind: Kind::Histogram, help: "Time from a socket's accept to its connect reply.", source: Source::Histogram(|figures| &figures.accept_to_connected, SECOND) },
    Family { name: "tidegate_ingest_to_socket_seconds", kind: Kind::Histogram, help: "Time from a publication's arrival in the server to the end of the sends to the shard's subscribers.", source: Source::Histogram(|figures| &figures.ingest_to_socket, SECOND) },
    Family { name: "tidegate_loop_turn_seconds", kind: Kind::Histogram, help: "Time of a turn of the shard's loop, without its sleep.", source: Source::Histogram(|figures| &figures.turn_time, SECOND) },
    Family { name: "tidegate_outbox_depth_bytes", kind: Kind::Histogram, help: "Bytes that wait for a slow client, each time when more is added.", source: Source::Histogram(|figures| &figures.outbox_depth, 1.0) },
    Family { name: "tidegate_mesh_holding_messages", kind: Gauge, help: "Messages to other threads that are held back now.", source: Source::Shard(|figures| figures.mesh_holding) },
    Family { name: "tidegate_loop_turns_total", kind: Counter, help: "Turns of the shard's loop.", source: Source::Shard(|figures| figures.turns) },

    Family { name: "tidegate_ingest_connections", kind: Gauge, help: "Producers that are connected now.", source: Source::Ingest(|figures| figures.connections) },
    Family { name: "tidegate_ingest_accepted_connections_total", kind: Counter, help: "Producers' connections accepted.", source: Source::Ingest(|figures| figures.accepted) },
    Family { name: "tidegate_ingest_commands_total", kind: Counter, help: "Producers' commands, by name.", source: Source::IngestBy("command", |figures| &figures.commands) },
    Family { name: "tidegate_ingest_rejections_total", kind: Counter, help: "Commands and connections of producers that were refused or ended, by reason.", source: Source::IngestBy("reason", |figures| &figures.reasons) },
    Family { name: "tidegate_ingest_received_bytes_total", kind: Counter, help: "Bytes from producers.", source: Source::Ingest(|figures| figures.bytes_received) },
    Family { name: "tidegate_ingest_backpressure_total", kind: Counter, help: "Times that a full queue to a shard stopped the reading from producers.", source: Source::Ingest(|figures| figures.backpressure) },
    Family { name: "tidegate_ingest_zstd_payloads_total", kind: Counter, help: "Payloads that producers compressed with zstd.", source: Source::Ingest(|figures| figures.compressed_payloads) },
    Family { name: "tidegate_ingest_zstd_received_bytes_total", kind: Counter, help: "Bytes of these payloads as they came.", source: Source::Ingest(|figures| figures.compressed_bytes) },
    Family { name: "tidegate_ingest_zstd_decompressed_bytes_total", kind: Counter, help: "Bytes of these payloads, decompressed.", source: Source::Ingest(|figures| figures.decompressed_bytes) },

    Family { name: "tidegate_config_reloads_total", kind: Counter, help: "Times that the configuration was read anew and taken over.", source: Source::Reloads(|figures| figures.taken_over as f64) },
    Family { name: "tidegate_config_reload_failures_total", kind: Counter, help: "Times that the configuration was read anew and refused; nothing changed.", source: Source::Reloads(|figures| figures.refused as f64) },
    Family { name: "tidegate_config_last_reload_successful", kind: Gauge, help: "Whether the configuration was taken over when it was read last: 1, or 0 if it was refused.", source: Source::Reloads(|figures| if figures.is_last_refused { 0.0 } else { 1.0 }) },

    Family { name: "tidegate_token_key_fetches_total", kind: Counter, help: "Fetches of published keys that brought some.", source: Source::KeySets(|figures, _| Some(figures.fetched as f64)) },
    Family { name: "tidegate_token_key_fetch_failures_total", kind: Counter, help: "Fetches of published keys that failed; the last keys went on counting.", source: Source::KeySets(|figures, _| Some(figures.failed as f64)) },
    Family { name: "tidegate_token_keys", kind: Gauge, help: "Published keys that verify tokens now.", source: Source::KeySets(|figures, _| Some(figures.keys as f64)) },
    Family { name: "tidegate_token_keys_age_seconds", kind: Gauge, help: "Time since published keys were fetched last.", source: Source::KeySets(|figures, now| figures.fetched_at.map(|at| now.saturating_duration_since(at).as_secs_f64())) },

    Family { name: "tidegate_tls_connections", kind: Gauge, help: "Clients' connections that speak TLS now, those that shake hands among them, by who seals and opens their records: the kernel, or the server itself.", source: Source::ShardsBy("records", |figures| &figures.tls_connections) },
    Family { name: "tidegate_tls_kernel_refusals_total", kind: Counter, help: "Connections whose records the server goes on to seal and open, or that ended, because the kernel refused their keys although client.tls.kernel is on.", source: Source::Shard(|figures| figures.tls_kernel_refusals) },
    Family { name: "tidegate_tls_certificate_expiry_timestamp_seconds", kind: Gauge, help: "Until when the certificate is valid, in seconds since 1970.", source: Source::Certificates(|facts| facts.ends_unix_seconds as f64) },
    Family { name: "tidegate_tls_certificate_renewals_total", kind: Counter, help: "Changes of the files of certificates: those that new handshakes have, and those that were refused, so that the old certificates go on.", source: Source::CertificateRenewals },

    Family { name: "tidegate_hook_requests_total", kind: Counter, help: "Questions to the application's back end, by kind and by how they ended; overloaded ones were not sent.", source: Source::HookOutcomes },
    Family { name: "tidegate_hook_request_seconds_total", kind: Counter, help: "Time that sent questions to the application's back end took.", source: Source::Hooks(|figures| figures.time.as_secs_f64()) },
    Family { name: "tidegate_hook_sent_requests_total", kind: Counter, help: "Questions to the application's back end that were sent and have ended.", source: Source::Hooks(|figures| figures.sent as f64) },
    Family { name: "tidegate_hook_requests_under_way", kind: Gauge, help: "Questions to the application's back end that are under way now.", source: Source::Hooks(|figures| figures.under_way as f64) },
    Family { name: "tidegate_hook_requests_waiting", kind: Gauge, help: "Questions to the application's back end that wait for their turn now.", source: Source::Hooks(|figures| figures.waiting as f64) },

    Family { name: "tidegate_trace_spans_total", kind: Counter, help: "Spans of traces, by what became of them: exported, rejected by the collector, failed while it was away, dropped for want of room.", source: Source::TraceSpans },
    Family { name: "tidegate_trace_spans_waiting", kind: Gauge, help: "Spans that wait for the collector, or are on their way to it, now.", source: Source::Traces(|figures| figures.waiting as f64) },

    Family { name: "tidegate_api_calls_total", kind: Counter, help: "Calls of the server API, those in batches among them, by method and by how they ended: a result, or an error.", source: Source::ApiOutcomes },
    Family { name: "tidegate_api_call_seconds_total", kind: Counter, help: "Time that calls of the server API took, by method.", source: Source::Api(|figures| figures.time.as_secs_f64()) },
    Family { name: "tidegate_api_rejections_total", kind: Counter, help: "Requests to the server API that were no call, by reason.", source: Source::ApiRejections },

    Family { name: "tidegate_log_lines_total", kind: Counter, help: "Lines of logs that were written.", source: Source::Logs(|figures| figures.written) },
    Family { name: "tidegate_log_lost_lines_total", kind: Counter, help: "Lines of logs that were lost: the queue to their writer was full, or writing failed.", source: Source::LostLines },
    Family { name: "tidegate_memory_left_bytes", kind: Gauge, help: "Memory that is left to the server: the host's, or its cgroup's if that ends sooner.", source: Source::Memory(|memory| memory.left_bytes.map(|bytes| bytes as f64)) },
    Family { name: "tidegate_memory_reserve_bytes", kind: Gauge, help: "What of it clients have to leave (client.limits.memory_reserve).", source: Source::Memory(|memory| Some(memory.reserve_bytes as f64)) },
    Family { name: "tidegate_memory_short", kind: Gauge, help: "Whether new clients are turned away because memory is short: 1 or 0.", source: Source::Memory(|memory| Some(f64::from(u8::from(memory.is_short)))) },

    Family { name: "tidegate_kernel_memory_per_connection_bytes", kind: Gauge, help: "Growth of the host's slabs and TCP buffers since the server's start, by open client sockets. With less than some thousand of them it tells of the host rather.", source: Source::KernelPerConnection },
    Family { name: "tidegate_host_slab_memory_bytes", kind: Gauge, help: "Slabs of the host's kernel: sockets, files and inodes among them.", source: Source::Process(|process| process.kernel.slab_bytes.map(|bytes| bytes as f64)) },
    Family { name: "tidegate_host_tcp_memory_bytes", kind: Gauge, help: "What waits in TCP sockets of the host.", source: Source::Process(|process| process.kernel.tcp_bytes.map(|bytes| bytes as f64)) },
    Family { name: "tidegate_host_tcp_sockets", kind: Gauge, help: "TCP sockets in use in the server's network namespace.", source: Source::Process(|process| process.kernel.tcp_sockets.map(|count| count as f64)) },

    Family { name: "process_resident_memory_bytes", kind: Gauge, help: "Resident memory size in bytes.", source: Source::Process(|process| process.resident_bytes.map(|bytes| bytes as f64)) },
    Family { name: "process_virtual_memory_bytes", kind: Gauge, help: "Virtual memory size in bytes.", source: Source::Process(|process| process.virtual_bytes.map(|bytes| bytes as f64)) },
    Family { name: "process_open_fds", kind: Gauge, help: "Number of open file descriptors.", source: Source::Process(|process| process.open_fds.map(|count| count as f64)) },
    Family { name: "process_max_fds", kind: Gauge, help: "Maximum number of open file descriptors.", source: Source::Process(|process| process.max_fds.map(|count| count as f64)) },
    Family { name: "process_threads", kind: Gauge, help: "Number of OS threads in the process.", source: Source::Process(|process| process.threads.map(|count| count as f64)) },
    Family { name: "process_cpu_seconds_total", kind: Counter, help: "Total user and system CPU time spent in seconds.", source: Source::Process(|process| process.cpu_seconds) },
    Family { name: "process_start_time_seconds", kind: Gauge, help: "Start time of the process since unix epoch in seconds.", source: Source::StartTime },
];

impl Family {
    fn render(&self, snapshot: &Snapshot, api: &ApiFigures, process: &ProcessFigures, text: &mut String) {
        let kind = match self.kind {
            Counter => "counter",
            Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", self.name, self.help, self.name);
        let mut sample = |label: Option<(&str, &str)>, value: f64| self.sample(label.as_slice(), value, text);
        match &self.source {
            Source::Shard(value) => {
                for (shard, report) in snapshot.shards.iter().enumerate() {
                    if let Some(figures) = &report.figures {
                        sample(Some(("shard", &shard.to_string())), value(figures) as f64);
                    }
                }
            }
            Source::Histogram(histogram, per_unit) => self.render_histograms(snapshot, *histogram, *per_unit, text),
            Source::ShardsByOwned(label, values) => {
                let counts: Vec<_> = snapshot.shard_figures().flat_map(values).collect();
                for (key, value) in sum_by_key(counts.iter()) {
                    sample(Some((label, key)), value as f64);
                }
            }
            Source::ShardsBy(label, values) => {
                for (key, value) in sum_by_key(snapshot.shard_figures().flat_map(values)) {
                    sample(Some((label, key)), value as f64);
                }
            }
            Source::Compression(value) => {
                let mut sums: BTreeMap<&str, CompressionFigures> = BTreeMap::new();
                for (namespace, figures) in snapshot.shard_figures().flat_map(|figures| &figures.compression) {
                    sums.entry(namespace).or_default().add(figures);
                }
                for (namespace, figures) in sums {
                    sample(Some(("namespace", namespace)), value(&figures));
                }
            }
            Source::Ingest(value) => {
                if let Some(figures) = &snapshot.ingest.figures {
                    sample(None, value(figures) as f64);
                }
            }
            Source::IngestBy(label, values) => {
                for (key, value) in sum_by_key(snapshot.ingest.figures.iter().flat_map(|figures| values(figures))) {
                    sample(Some((label, key)), value as f64);
                }
            }
            Source::ThreadUp => {
                for (thread, state, _) in snapshot.states() {
                    let up = if state == ThreadState::Answering { 1.0 } else { 0.0 };
                    sample(Some(("thread", &thread.to_string())), up);
                }
            }
            Source::ThreadAnswerTime => {
                for (thread, _, answer_time) in snapshot.states() {
                    if let Some(answer_time) = answer_time {
                        sample(Some(("thread", &thread.to_string())), answer_time.as_secs_f64());
                    }
                }
            }
            Source::Build => sample(Some(("version", env!("CARGO_PKG_VERSION"))), 1.0),
            Source::StartTime => sample(None, process::start_time_seconds()),
            Source::Api(_) | Source::ApiOutcomes | Source::ApiRejections => self.render_api(api, text),
            other => self.render_surroundings(other, snapshot, process, text),
        }
    }

    /// What is not of the server's own threads.
    fn render_surroundings(&self, source: &Source, snapshot: &Snapshot, process: &ProcessFigures, text: &mut String) {
        let mut sample = |label: Option<(&str, &str)>, value: f64| self.sample(label.as_slice(), value, text);
        match source {
            Source::KeySets(value) => {
                if let Some(value) = snapshot.key_sets.and_then(|figures| value(&figures, snapshot.at)) {
                    sample(None, value);
                }
            }
            Source::Reloads(value) => sample(None, value(&snapshot.reloads)),
            Source::Hooks(value) => {
                for (hook, figures) in &snapshot.hooks {
                    sample(Some(("hook", hook.label())), value(figures));
                }
            }
            Source::HookOutcomes => {
                for (hook, figures) in &snapshot.hooks {
                    for (outcome, count) in Outcome::ALL.into_iter().zip(figures.ended) {
                        self.sample(&[("hook", hook.label()), ("outcome", outcome.label())], count as f64, text);
                    }
                }
            }
            Source::TraceSpans => self.render_trace_spans(snapshot, text),
            Source::Traces(value) => {
                if let Some(figures) = &snapshot.traces {
                    sample(None, value(figures));
                }
            }
            Source::Logs(value) => {
                for (name, figures) in log::figures() {
                    sample(Some(("log", name)), value(&figures) as f64);
                }
            }
            Source::LostLines => {
                for (log, figures) in log::figures() {
                    for (reason, count) in [("queue_full", figures.queue_full), ("failed", figures.failed)] {
                        self.sample(&[("log", log), ("reason", reason)], count as f64, text);
                    }
                }
            }
            Source::Memory(value) => {
                if let Some(value) = value(&snapshot.memory) {
                    sample(None, value);
                }
            }
            Source::KernelPerConnection => {
                let sockets = snapshot.shard_figures().map(|figures| figures.sockets).sum();
                if let Some(bytes) = process.kernel_bytes_per_socket(sockets) {
                    sample(None, bytes);
                }
            }
            Source::Certificates(value) => {
                for (section, facts) in &snapshot.tls.certificates {
                    let file = facts.file.to_string_lossy();
                    self.sample(&[("section", section), ("file", &file)], value(facts), text);
                }
            }
            Source::CertificateRenewals => {
                for (outcome, count) in &snapshot.tls.renewals {
                    sample(Some(("outcome", outcome)), *count as f64);
                }
            }
            Source::Process(value) => {
                if let Some(value) = value(process) {
                    sample(None, value);
                }
            }
            _ => unreachable!("the caller has rendered the others"),
        }
    }

    fn render_trace_spans(&self, snapshot: &Snapshot, text: &mut String) {
        let Some(figures) = &snapshot.traces else { return };
        let dropped_by_shards: u64 = snapshot.shard_figures().map(|figures| figures.trace_spans_dropped).sum();
        for (outcome, count) in [
            ("exported", figures.exported),
            ("rejected", figures.rejected),
            ("failed", figures.failed),
            ("dropped", figures.dropped + dropped_by_shards),
        ] {
            self.sample(&[("outcome", outcome)], count as f64, text);
        }
    }

    fn render_api(&self, api: &ApiFigures, text: &mut String) {
        if let Source::ApiRejections = self.source {
            for (reason, count) in &api.rejections {
                self.sample(&[("reason", reason)], *count as f64, text);
            }
            return;
        }
        for figures in &api.methods {
            if let Source::Api(value) = &self.source {
                self.sample(&[("method", figures.method)], value(figures), text);
                continue;
            }
            for (outcome, count) in &figures.ended {
                self.sample(&[("method", figures.method), ("outcome", outcome)], *count as f64, text);
            }
        }
    }

    fn render_histograms(
        &self,
        snapshot: &Snapshot,
        histogram: fn(&ShardFigures) -> &Histogram,
        per_unit: f64,
        text: &mut String,
    ) {
        for (shard, report) in snapshot.shards.iter().enumerate() {
            let Some(figures) = &report.figures else { continue };
            let (shard, histogram) = (shard.to_string(), histogram(figures));
            let shard = ("shard", shard.as_str());
            for (bound, below) in histogram.cumulative() {
                let bound = (bound as f64 / per_unit).to_string();
                self.named_sample("_bucket", &[shard, ("le", &bound)], below as f64, text);
            }
            self.named_sample("_bucket", &[shard, ("le", "+Inf")], histogram.count() as f64, text);
            self.named_sample("_sum", &[shard], histogram.sum() as f64 / per_unit, text);
            self.named_sample("_count", &[shard], histogram.count() as f64, text);
        }
    }

    fn sample(&self, labels: &[(&str, &str)], value: f64, text: &mut String) {
        self.named_sample("", labels, value, text);
    }

    fn named_sample(&self, suffix: &str, labels: &[(&str, &str)], value: f64, text: &mut String) {
        text.push_str(self.name);
        text.push_str(suffix);
        for (position, (name, label)) in labels.iter().enumerate() {
            text.push(if position == 0 { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            for character in label.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

fn system_calls(figures: &ShardFigures) -> Vec<(&'static str, u64)> {
    let enters = [("io_uring_enter", figures.enters)];
    enters.into_iter().chain(figures.other_calls.iter().copied()).collect()
}

/// Sums counts that are named alike, sorted by name.
pub fn sum_by_key<'a>(counts: impl Iterator<Item = &'a (&'static str, u64)>) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (key, count) in counts {
        *sums.entry(*key).or_default() += count;
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{config::Hook, control::observer::ThreadReport, tls::PortFigures};

    fn certificate() -> CertificateFacts {
        CertificateFacts {
            file: "/a.pem".into(),
            names: vec!["a.example".to_owned()],
            ends_unix_seconds: 1_800_000_000,
        }
    }

    fn hook_figures() -> LaneFigures {
        let mut figures = LaneFigures { time: Duration::from_millis(2_500), sent: 4, ..LaneFigures::default() };
        figures.ended[Outcome::TimedOut as usize] = 3;
        figures
    }

    fn api_figures() -> ApiFigures {
        let ended = vec![("result", 7), ("bad_request", 2)];
        ApiFigures {
            methods: vec![MethodFigures { method: "publish", ended, time: Duration::from_millis(1_500) }],
            rejections: vec![("unauthorized", 6)],
        }
    }

    fn snapshot() -> Snapshot {
        let shard = |connections, reasons: &[(&'static str, u64)], state| ThreadReport {
            state,
            figures: Some(Arc::new(ShardFigures {
                connections,
                bytes_received: 1 << 53,
                reasons: reasons.to_vec(),
                dropped: vec![("drop-oldest", 4)],
                compression: vec![(
                    "news".to_owned(),
                    CompressionFigures { messages: 3, nanoseconds: 500_000_000, ..CompressionFigures::default() },
                )],
                ..ShardFigures::default()
            })),
            answer_time: Some(Duration::from_micros(250)),
        };
        Snapshot {
            at: Instant::now(),
            stopping: false,
            shards: vec![
                shard(3, &[("bad_origin", 2), ("odd\"name\\", 1)], ThreadState::Answering),
                shard(4, &[("bad_origin", 5)], ThreadState::Stuck),
            ],
            ingest: ThreadReport {
                state: ThreadState::Answering,
                figures: Some(Arc::new(IngestFigures {
                    connections: 2,
                    commands: vec![("publish", 9)],
                    ..IngestFigures::default()
                })),
                answer_time: None,
            },
            key_sets: Some(KeySetFigures { fetched: 5, failed: 2, keys: 3, fetched_at: Some(Instant::now()) }),
            hooks: vec![(Hook::Rpc, hook_figures())],
            traces: Some(TraceFigures { exported: 7, dropped: 2, waiting: 4, ..TraceFigures::default() }),
            memory: MemoryFigures::default(),
            tls: PortFigures {
                certificates: vec![("client.tls", certificate())],
                renewals: vec![("renewed", 2), ("refused", 1)],
            },
            reloads: ReloadFigures { taken_over: 2, refused: 1, is_last_refused: true },
        }
    }

    /// Parses by the rules of the exposition format and panics where they are broken: each family
    /// has HELP, then TYPE, then its samples, once and in one piece; names and labels are well
    /// formed; no sample appears twice; the text ends in a line feed.
    fn parse(text: &str) -> HashMap<String, f64> {
        assert!(text.ends_with('\n'));
        let mut samples = HashMap::new();
        let mut families = HashSet::new();
        let mut family = String::new();
        let mut kind = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty());
                assert!(families.insert(name.to_owned()), "family {name} twice");
                family = name.to_owned();
                kind.clear();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, named_kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert!(kind.is_empty());
                assert!(["counter", "gauge", "histogram"].contains(&named_kind));
                assert_eq!(named_kind == "counter", name.ends_with("_total"), "{name}");
                kind = named_kind.to_owned();
            } else {
                assert!(!kind.is_empty(), "a sample before its TYPE: {line}");
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let suffixes = if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
                assert!(suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(&family)), "{name}");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
                if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                    let labels = labels.strip_prefix('{').unwrap().strip_suffix("\"}").unwrap();
                    for label in labels.split("\",") {
                        let (label, value) = label.split_once("=\"").unwrap();
                        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
                        let unescaped = value.replace("\\\\", "").replace("\\\"", "").replace("\\n", "");
                        assert!(!unescaped.contains(['"', '\\']), "not escaped: {value}");
                    }
                }
                let value: f64 = value.parse().unwrap();
                assert!(value.is_finite());
                assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
            }
        }
        samples
    }

    #[test]
    fn the_text_follows_the_format_and_holds_the_figures() {
        let samples = parse(&render(&snapshot(), &api_figures(), &ProcessFigures::read()));
        assert_eq!(samples["tidegate_connections{shard=\"0\"}"], 3.0);
        assert_eq!(samples["tidegate_connections{shard=\"1\"}"], 4.0);
        assert_eq!(samples["tidegate_rejections_total{reason=\"bad_origin\"}"], 7.0);
        assert_eq!(samples["tidegate_rejections_total{reason=\"odd\\\"name\\\\\"}"], 1.0);
        assert_eq!(samples["tidegate_slow_consumer_dropped_total{policy=\"drop-oldest\"}"], 8.0);
        assert_eq!(samples["tidegate_compressed_messages_total{namespace=\"news\"}"], 6.0);
        assert_eq!(samples["tidegate_compression_seconds_total{namespace=\"news\"}"], 1.0);
        assert_eq!(samples["tidegate_received_bytes_total{shard=\"0\"}"], (1u64 << 53) as f64);
        assert_eq!(samples["tidegate_thread_up{thread=\"shard-0\"}"], 1.0);
        assert_eq!(samples["tidegate_thread_up{thread=\"shard-1\"}"], 0.0);
        assert_eq!(samples["tidegate_thread_up{thread=\"ingest\"}"], 1.0);
        assert_eq!(samples["tidegate_thread_answer_seconds{thread=\"shard-0\"}"], 0.00025);
        assert!(!samples.contains_key("tidegate_thread_answer_seconds{thread=\"ingest\"}"));
        assert_eq!(samples["tidegate_hook_requests_total{hook=\"rpc\",outcome=\"timeout\"}"], 3.0);
        assert_eq!(samples["tidegate_trace_spans_total{outcome=\"exported\"}"], 7.0);
        assert_eq!(samples["tidegate_trace_spans_waiting"], 4.0);
        assert_eq!(samples["tidegate_hook_request_seconds_total{hook=\"rpc\"}"], 2.5);
        assert_eq!(samples["tidegate_api_calls_total{method=\"publish\",outcome=\"result\"}"], 7.0);
        assert_eq!(samples["tidegate_api_calls_total{method=\"publish\",outcome=\"bad_request\"}"], 2.0);
        assert_eq!(samples["tidegate_api_call_seconds_total{method=\"publish\"}"], 1.5);
        assert_eq!(samples["tidegate_api_rejections_total{reason=\"unauthorized\"}"], 6.0);
        assert_eq!(samples["tidegate_tls_certificate_renewals_total{outcome=\"refused\"}"], 1.0);
        let expiry = "tidegate_tls_certificate_expiry_timestamp_seconds{section=\"client.tls\",file=\"/a.pem\"}";
        assert_eq!(samples[expiry], 1_800_000_000.0);
        assert_eq!(samples["tidegate_ingest_commands_total{command=\"publish\"}"], 9.0);
        assert!(samples["process_resident_memory_bytes"] > 0.0);
        assert!(samples["process_start_time_seconds"] > 1.6e9);
        assert!(samples.keys().any(|series| series.starts_with("tidegate_build_info{version=")));
    }

    #[test]
    fn histograms_are_told_by_bound_sum_and_count() {
        let mut snapshot = snapshot();
        let mut figures = ShardFigures { shard: 1, ..ShardFigures::default() };
        [10, 16, 17, 3_000_000].into_iter().for_each(|time| figures.turn_time.record(time));
        snapshot.shards[1].figures = Some(Arc::new(figures));
        let samples = parse(&render(&snapshot, &ApiFigures::default(), &ProcessFigures::default()));
        let bucket = |bound: &str| samples[&format!("tidegate_loop_turn_seconds_bucket{{shard=\"1\",le=\"{bound}\"}}")];
        assert_eq!((bucket("0.000016"), bucket("0.000032"), bucket("+Inf")), (2.0, 3.0, 4.0));
        assert_eq!(samples["tidegate_loop_turn_seconds_count{shard=\"1\"}"], 4.0);
        assert_eq!(samples["tidegate_loop_turn_seconds_sum{shard=\"1\"}"], 3.000043);
    }

    #[test]
    fn threads_that_never_answered_have_no_figures() {
        let silent = || ThreadReport { state: ThreadState::Stuck, figures: None, answer_time: None };
        let snapshot = Snapshot {
            at: Instant::now(),
            stopping: false,
            shards: vec![silent()],
            ingest: ThreadReport { state: ThreadState::Stuck, figures: None, answer_time: None },
            key_sets: None,
            reloads: ReloadFigures::default(),
            hooks: Vec::new(),
            traces: None,
            memory: MemoryFigures::default(),
            tls: PortFigures::default(),
        };
        let samples = parse(&render(&snapshot, &ApiFigures::default(), &ProcessFigures::default()));
        assert_eq!(samples["tidegate_thread_up{thread=\"shard-0\"}"], 0.0);
        assert!(!samples.keys().any(|series| series.starts_with("tidegate_connections")));
        assert!(!samples.contains_key("process_open_fds"));
    }
}
