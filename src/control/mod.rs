//! The control thread: figures, health, the console, signals and the order of the stop.
//!
//! Owns the operators' port, all outgoing HTTP, and the decision when and in which order threads stop. Leaves to others:
//! binding the port and exit codes ([`crate::server`]), what a shard or the ingest thread does when
//! it is told to stop or asked for its figures (they themselves).
//!
//! Invariants:
//! - Shards are woken for figures only while somebody wants them: a request to `/metrics` or
//!   `/health`, an open console, every ten seconds at most a service manager. An idle server stays idle.
//! - What the server API asks of shards goes by the loop too, in bounded number, and is waited for no longer than
//!   figures. While a message is held back for a full queue, no more is asked.
//! - Figures in an answer were asked for after the request arrived, so an operator reads his own
//!   writes; a thread that does not answer in [`observer::ANSWER_TIME_MAX`] is reported, never
//!   waited for longer.
//! - The loop below is the only owner of this thread's end of the mesh; HTTP handlers ask the loop.
//!   Two owners could send two questions to one thread, against `observer`'s invariant.

mod api;
mod console;
mod deny;
mod guard;
mod health;
mod hook_lane;
mod hooks;
mod http;
mod http_client;
mod inquiries;
mod key_sets;
mod listener;
mod memory;
mod metrics;
mod observer;
mod otlp;
mod process;
mod reload;
mod service;
mod shards;
mod stop;
mod trace_assembly;
mod trace_queue;
mod traces;
mod transport;
mod user_search;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, extract::connect_info::IntoMakeServiceWithConnectInfo, http::Request};
use crossbeam_channel::TryRecvError;
use http_body_util::Full;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, oneshot, watch},
    time::{Interval, MissedTickBehavior},
};

pub use self::guard::COMMAND_HEADER;
pub use self::reload::{LoadConfig, ReloadRequest, Reloading, Report};
use self::{
    api::Api,
    console::Overviews,
    deny::{DenyCommand, DenyList},
    hooks::{Ended, Hooks, Told},
    http::Handlers,
    http_client::HttpClient,
    inquiries::{Inquiries, Inquiry, NoAnswer},
    key_sets::{KeySetStep, KeySets},
    listener::{BoundedListener, HandedListener, Peer},
    memory::{MemoryWatch, Pressure},
    observer::{Observer, Snapshot, ThreadId},
    process::ProcessFigures,
    reload::Reloads,
    service::Service,
    shards::Shards,
    stop::{Stop, StopRequest, StopStep},
    trace_queue::Delivery,
    traces::Traces,
};
use crate::{
    config::{Config, Loaded, TokenConfig},
    doctor::Host,
    limits::{
        ADMIN_CONNECTIONS_MAX, API_CONNECTIONS_MAX, API_CONNECTIONS_WAITING_MAX, HELD_RETRY_MS, KEY_SET_BYTES_MAX,
        KEY_SET_FETCH_MS_MAX, OBSERVE_INTERVAL_MS_MIN, TLS_RELOAD_INTERVAL_MS,
    },
    mesh::{ApiConnection, Bell, ChannelHasher, ControlMesh, ToControl, ToIngest, ToShard},
    protocol::KeySet,
    systemd::ServiceManager,
    tls::{Port, Ports},
};

/// Mints a short-lived connection token for the operator's own console page.
pub type OperatorToken = Arc<dyn Fn() -> String + Send + Sync>;

/// Everything that the control thread needs.
pub struct Control {
    /// What the operator chose, until a reload brings another one.
    pub config: Arc<Config>,
    /// How that is done.
    pub reloading: Reloading,
    /// This thread's end of the mesh.
    pub mesh: ControlMesh,
    /// Alike in all threads.
    pub hasher: ChannelHasher,
    /// The operators' port, bound.
    pub listener: TcpListener,
    /// The server API's own port, bound, if it has one.
    pub api_listener: Option<TcpListener>,
    /// The ports that speak TLS, whose certificates are renewed here.
    pub tls: Ports,
    /// For the console page.
    pub operator_token: OperatorToken,
    /// Whether the demonstration's ticker runs, so that the console shows it at once.
    pub demo: bool,
    /// Who is told how the server is.
    pub manager: ServiceManager,
}

/// How the server came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A signal asked for it, and every thread ended in time.
    Stopped,
    /// A signal asked for it, but these threads had not ended in time.
    TimedOut {
        /// Their names.
        threads: Vec<String>,
    },
    /// A second signal: nothing is waited for.
    Interrupted,
    /// A thread ended without being asked to; the others were stopped.
    ThreadLost {
        /// Its name.
        thread: String,
    },
}

impl Control {
    /// Serves operators until the server has stopped, on the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses what the runtime needs (descriptors, a signal handler).
    pub fn run(self) -> io::Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (stop_requests, stop_request) = mpsc::channel(4);
            let (reload_requests, reload_request) = mpsc::channel(RELOADS_WAITING_MAX);
            forward_signal(SignalKind::terminate(), stop_requests.clone(), || StopRequest::Signal("SIGTERM"))?;
            forward_signal(SignalKind::interrupt(), stop_requests.clone(), || StopRequest::Signal("SIGINT"))?;
            let by_signal = || ReloadRequest { by: "SIGHUP", asker: None };
            forward_signal(SignalKind::hangup(), reload_requests.clone(), by_signal)?;
            self.run_until((stop_requests, stop_request), (reload_requests, reload_request)).await
        })
    }

    async fn run_until(
        self,
        (stop_requests, stop_request): Requests<StopRequest>,
        (reload_requests, reload_request): Requests<ReloadRequest>,
    ) -> io::Result<Outcome> {
        process::begin();
        let shared_config = watch::Sender::new(Arc::clone(&self.config));
        let doors = Doors {
            listener: self.listener,
            api_listener: self.api_listener,
            tls: self.tls.clone(),
            operator_token: self.operator_token,
            demo: self.demo,
        };
        let shards = (self.mesh.to_shards.len(), self.hasher);
        let asked = doors.open(&shared_config, shards, stop_requests, reload_requests)?;
        renew_certificates(&self.tls);
        let bell = poll_bell(Arc::clone(&self.mesh.bell))?;
        let mut tick = tokio::time::interval(CONSOLE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let client = self.config.asks_others().then(HttpClient::new);
        // One fetch of keys at a time, and one request to the collector of traces.
        let (fetched, fetch) = mpsc::channel(1);
        let (loaded_sender, loaded) = mpsc::channel(1);
        let publisher = Publisher::new(&self.config.client.token, client.clone(), fetched);
        let (hook_ends, hook_end) = mpsc::channel(HOOK_ENDS_MAX);
        let hooks = client.clone().and_then(|client| Hooks::new(&self.config, client, hook_ends.clone()));
        let trace_ends = mpsc::channel(1);
        let traces = client.as_ref().and_then(|client| Traces::new(&self.config.tracing, client, &trace_ends.0));
        let denied = DenyList::new(&self.config.client.deny);
        let control_loop = ControlLoop {
            observer: Observer::new(self.mesh.to_shards.len()),
            config: self.config,
            mesh: self.mesh,
            questions: asked.questions,
            inquiry: asked.inquiry,
            inquiries: Inquiries::default(),
            stop_request,
            service: Service::ready(self.manager, Instant::now()),
            round: None,
            wanted: Round::default(),
            last_round_at: None,
            overview: asked.overview,
            overviews: Overviews::default(),
            stop: None,
            lost: None,
            publisher,
            fetch,
            hooks,
            hook_ends,
            hook_end,
            traces,
            trace_ends,
            client,
            api_connections: asked.api_connections,
            deny_command: asked.deny_command,
            denied,
            memory: MemoryWatch::new(Host::here()),
            memory_due_at: Instant::now(),
            tls: self.tls,
            shared_config,
            reloading: self.reloading,
            reload_request,
            reloads: Reloads::default(),
            is_reload_told: false,
            loaded_sender,
            loaded,
        };
        Ok(control_loop.run(&bell, &asked.console_opened, &mut tick).await)
    }
}

/// Looks again and again whether the files of certificates have changed, if there are any.
fn renew_certificates(ports: &Ports) {
    if ports.each().next().is_none() {
        return;
    }
    let ports = ports.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(TLS_RELOAD_INTERVAL_MS));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            ports.reload_certificates();
        }
    });
}

/// The ports of operators and of the server API, with what their pages show.
struct Doors {
    listener: TcpListener,
    api_listener: Option<TcpListener>,
    tls: Ports,
    operator_token: OperatorToken,
    demo: bool,
}

/// What handlers of requests ask of the loop, and what it tells them.
struct Asked {
    questions: mpsc::Receiver<Question>,
    inquiry: mpsc::Receiver<Inquiry>,
    deny_command: mpsc::Receiver<DenyCommand>,
    overview: Arc<watch::Sender<Arc<str>>>,
    console_opened: Arc<Notify>,
    api_connections: mpsc::Sender<ApiConnection>,
}

impl Doors {
    /// Serves whoever comes to the ports. `shards`: how many there are, and how they hash channels.
    fn open(
        self,
        config: &watch::Sender<Arc<Config>>,
        shards: (usize, ChannelHasher),
        stop_requests: mpsc::Sender<StopRequest>,
        reloads: mpsc::Sender<ReloadRequest>,
    ) -> io::Result<Asked> {
        // A connection asks for one thing at a time.
        let (questions_sender, questions) = mpsc::channel(ADMIN_CONNECTIONS_MAX);
        let (inquiries, inquiry) = mpsc::channel(ADMIN_CONNECTIONS_MAX);
        let (deny_commands, deny_command) = mpsc::channel(ADMIN_CONNECTIONS_MAX);
        let shards = Shards::new(shards.0, shards.1, inquiries);
        let overview = Arc::new(watch::Sender::new(Arc::from("")));
        let console_opened = Arc::new(Notify::new());
        let handlers = Handlers {
            config: config.subscribe(),
            demo: self.demo,
            operator_token: self.operator_token,
            shards: shards.clone(),
            api: Arc::new(Api::new(config.subscribe(), shards, questions_sender.clone())),
            questions: questions_sender,
            reloads,
            overview: Arc::clone(&overview),
            console_opened: Arc::clone(&console_opened),
            deny_commands,
            stop_requests,
        };
        let api_connections = serve_api(&handlers, self.api_listener, self.tls.api)?;
        serve_operators(handlers, self.listener, self.tls.admin)?;
        Ok(Asked { questions, inquiry, deny_command, overview, console_opened, api_connections })
    }
}

/// Serves the operators' port.
fn serve_operators(handlers: Handlers, listener: TcpListener, tls: Option<Arc<Port>>) -> io::Result<()> {
    let listener = BoundedListener::new(listener, ADMIN_CONNECTIONS_MAX, tls)?;
    let service = http::router(handlers).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(axum::serve(listener, service).into_future());
    Ok(())
}

/// Serves the API where it is configured besides the operators' port: to whoever comes to the listener, and to those whom
/// shards hand over.
fn serve_api(
    handlers: &Handlers,
    listener: Option<TcpListener>,
    tls: Option<Arc<Port>>,
) -> io::Result<mpsc::Sender<ApiConnection>> {
    if let Some(listener) = listener {
        let listen = listener.local_addr()?;
        let is_secure = tls.is_some();
        let listener = BoundedListener::new(listener, API_CONNECTIONS_MAX, tls)?;
        tokio::spawn(axum::serve(listener, api_service(handlers, listen, is_secure)).into_future());
    }
    let (api_connections, handed) = mpsc::channel(API_CONNECTIONS_WAITING_MAX);
    // Whether shards hand any over may change with a reload.
    let listen = handlers.config().client.listen;
    let listener = HandedListener::new(handed, API_CONNECTIONS_MAX, listen);
    tokio::spawn(axum::serve(listener, api_service(handlers, listen, false)).into_future());
    Ok(api_connections)
}

fn api_service(
    handlers: &Handlers,
    listen: SocketAddr,
    is_secure: bool,
) -> IntoMakeServiceWithConnectInfo<Router, Peer> {
    http::api_router(handlers.clone(), listen, is_secure).into_make_service_with_connect_info::<Peer>()
}

const ROUND_INTERVAL_MIN: Duration = Duration::from_millis(OBSERVE_INTERVAL_MS_MIN);

/// How often the queues are looked at although no bell rang: a thread that ends without a word is
/// found by its closed queue only.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often memory is measured.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// How often consoles are told.
const CONSOLE_INTERVAL: Duration = Duration::from_secs(1);

/// A handler's wish: figures that are asked for after now.
type Question = oneshot::Sender<Arc<Snapshot>>;

struct ControlLoop {
    config: Arc<Config>,
    mesh: ControlMesh,
    observer: Observer,
    questions: mpsc::Receiver<Question>,
    /// What the server API wants to ask.
    inquiry: mpsc::Receiver<Inquiry>,
    inquiries: Inquiries,
    stop_request: mpsc::Receiver<StopRequest>,
    service: Service,
    /// The round under way.
    round: Option<Round>,
    /// Who wants the next one.
    wanted: Round,
    last_round_at: Option<Instant>,
    /// Its receivers are the open consoles.
    overview: Arc<watch::Sender<Arc<str>>>,
    overviews: Overviews,
    stop: Option<Stop>,
    lost: Option<ThreadId>,
    /// Whose keys verify tokens, beside those that are configured.
    publisher: Option<Publisher>,
    /// Outcomes of fetches.
    fetch: mpsc::Receiver<Option<KeySet>>,
    /// The application's back end, if it is asked anything.
    hooks: Option<Hooks>,
    /// Ends of questions to it.
    hook_end: mpsc::Receiver<Ended>,
    /// The other end, for those that are sent.
    hook_ends: mpsc::Sender<Ended>,
    /// The collector of traces, if there is one.
    traces: Option<Traces>,
    /// Ends of requests to it.
    trace_ends: Requests<Delivery>,
    /// For what is asked of others over HTTP, if anything was yet.
    client: Option<HttpClient>,
    /// To the server API, from the clients' port.
    api_connections: mpsc::Sender<ApiConnection>,
    deny_command: mpsc::Receiver<DenyCommand>,
    denied: DenyList,
    memory: MemoryWatch,
    /// When it is measured next.
    memory_due_at: Instant,
    tls: Ports,
    /// For handlers of requests.
    shared_config: watch::Sender<Arc<Config>>,
    reloading: Reloading,
    reload_request: mpsc::Receiver<ReloadRequest>,
    reloads: Reloads,
    /// The service manager waits to hear that it has ended.
    is_reload_told: bool,
    loaded_sender: mpsc::Sender<Result<Loaded, Vec<String>>>,
    loaded: mpsc::Receiver<Result<Loaded, Vec<String>>>,
}

/// Both ends of a queue of what signals, handlers and tasks tell the loop.
type Requests<R> = (mpsc::Sender<R>, mpsc::Receiver<R>);

/// Wishes for a reload that wait for the one under way.
const RELOADS_WAITING_MAX: usize = 4;

/// Ends of questions that wait for this loop; more wait in their tasks.
const HOOK_ENDS_MAX: usize = 256;

/// Who publishes keys, and what is known of them.
struct Publisher {
    sets: KeySets,
    endpoint: String,
    client: HttpClient,
    fetched: mpsc::Sender<Option<KeySet>>,
    /// Whether the last fetch failed: operators are told when that changes.
    is_failing: bool,
}

/// Who wants the figures of a round.
#[derive(Default)]
struct Round {
    questions: Vec<Question>,
    consoles: bool,
    service: bool,
}

impl Round {
    fn is_wanted(&self) -> bool {
        self.consoles || self.service || !self.questions.is_empty()
    }
}

impl ControlLoop {
    async fn run(mut self, bell: &AsyncFd<BellEvent>, console_opened: &Notify, tick: &mut Interval) -> Outcome {
        loop {
            // Announced before the queues are looked at for the last time: see the mesh's invariants.
            self.mesh.bell.begin_sleep();
            let now = Instant::now();
            self.receive(now);
            let service_wake = self.turn_service(now);
            let round_wake = self.turn_round(now);
            let stop_wake = match self.turn_stop(now) {
                Ok(wake) => wake,
                Err(outcome) => return outcome,
            };
            let hooks_wake = self.turn_hooks(now);
            self.turn_memory(now);
            let inquiries_wake = self.turn_inquiries(now);
            let keys_wake = self.publisher.as_mut().and_then(|publisher| publisher.turn(now));
            let reload_wake = self.turn_reload(now);
            let traces_wake = self.traces.as_mut().and_then(|traces| traces.turn(now));
            let questions_wake = [keys_wake, inquiries_wake, hooks_wake, traces_wake];
            let wake_at = [service_wake, round_wake, stop_wake, reload_wake]
                .into_iter()
                .chain(questions_wake)
                .flatten()
                .fold(now + LOOK_INTERVAL, Instant::min);
            let consoles_open = self.overview.receiver_count() > 0;

            tokio::select! {
                ready = bell.readable() => {
                    let mut ready = ready.expect("an eventfd does not fail to be polled while the runtime runs");
                    self.mesh.bell.clear();
                    ready.clear_ready();
                }
                Some(question) = self.questions.recv() => self.wanted.questions.push(question),
                Some(inquiry) = self.inquiry.recv(), if !self.is_holding() => self.begin_inquiry(inquiry),
                Some(keys) = self.fetch.recv() => self.keys_fetched(keys),
                Some(end) = self.hook_end.recv() => self.hook_ended(end),
                Some(delivery) = self.trace_ends.1.recv() => self.trace_told(&delivery),
                Some(command) = self.deny_command.recv(), if !self.is_holding() => self.deny(command),
                Some(request) = self.reload_request.recv(), if self.reloads.is_idle() => self.begin_reload(request),
                Some(loaded) = self.loaded.recv() => self.config_loaded(loaded),
                () = console_opened.notified() => {
                    tick.reset();
                    self.wanted.consoles = true;
                }
                _ = tick.tick(), if consoles_open => self.wanted.consoles = true,
                Some(request) = self.stop_request.recv() => match (request, &self.stop) {
                    (StopRequest::Signal(signal), Some(_)) => {
                        tracing::warn!(signal, "second signal: exiting at once");
                        return Outcome::Interrupted;
                    }
                    (StopRequest::Drain, Some(_)) => {}
                    (_, None) => {
                        tracing::info!(?request, ms_max = self.config.shutdown.ms_max, "stopping");
                        self.begin_stop(Stop::begin(&self.config.shutdown, Instant::now()));
                    }
                },
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
            self.mesh.bell.end_sleep();
        }
    }

    fn receive(&mut self, now: Instant) {
        for queue in 0..self.mesh.inbound.len() {
            let thread = if queue < self.mesh.to_shards.len() { ThreadId::Shard(queue) } else { ThreadId::Ingest };
            loop {
                match self.mesh.inbound[queue].try_recv() {
                    Ok(ToControl::Shard { ticket, figures }) => {
                        self.observer.answer_shard(queue, ticket, figures, now);
                    }
                    Ok(ToControl::Ingest { ticket, figures }) => self.observer.answer_ingest(ticket, figures, now),
                    Ok(ToControl::Answer { ticket, part, answer }) => self.inquiries.answer(ticket, part, answer),
                    Ok(ToControl::Reconfigured { reload }) => self.reloads.confirmed(thread, reload),
                    Ok(ToControl::TokenKeysWanted { shard }) => {
                        if let Some(publisher) = &mut self.publisher {
                            publisher.sets.asked(shard);
                        }
                    }
                    Ok(ToControl::Hook(question)) => {
                        let hooks = self.hooks.as_mut().expect("shards ask where a back end is configured");
                        if let Some(told) = hooks.ask(question, now) {
                            tell(&mut self.mesh, told);
                        }
                    }
                    Ok(ToControl::Trace(note)) => {
                        if let Some(traces) = &mut self.traces {
                            traces.note(*note, now);
                        }
                    }
                    // It is closed if too many wait already.
                    Ok(ToControl::ApiConnection(connection)) => _ = self.api_connections.try_send(*connection),
                    Ok(ToControl::ShardStopped { .. } | ToControl::IngestStopped) => self.thread_stopped(thread),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.thread_stopped(thread);
                        break;
                    }
                }
            }
        }
    }

    fn is_holding(&self) -> bool {
        self.mesh.to_shards.iter().any(|outlet| outlet.is_holding())
    }

    fn begin_inquiry(&mut self, inquiry: Inquiry) {
        if self.stop.as_ref().is_some_and(|stop| !stop.is_serving()) {
            // Shards may be gone before they answer.
            let _ = inquiry.asker.send(Err(NoAnswer::Stopping));
            return;
        }
        for (shard, question) in self.inquiries.begin(inquiry, Instant::now()) {
            self.mesh.to_shards[shard].send(question);
        }
        self.mesh.to_shards.iter_mut().for_each(|outlet| outlet.ring());
    }

    /// Hands over what was held back, as far as there is room, and gives up what is late. When to look again.
    fn turn_inquiries(&mut self, now: Instant) -> Option<Instant> {
        for outlet in &mut self.mesh.to_shards {
            outlet.flush();
            outlet.ring();
        }
        let retry = self.is_holding().then(|| now + Duration::from_millis(HELD_RETRY_MS));
        [self.inquiries.expire(now), retry].into_iter().flatten().min()
    }

    fn thread_stopped(&mut self, thread: ThreadId) {
        if !self.observer.stopped(thread) {
            return;
        }
        if self.stop.is_some() {
            tracing::info!(%thread, "stopped");
        } else {
            tracing::error!(%thread, "ended without being asked to; stopping the server");
            self.lost = Some(thread);
            self.begin_stop(Stop::begin_at_once(&self.config.shutdown, Instant::now()));
        }
    }

    /// Asks for figures if the service manager is due to be told. When to look again.
    fn turn_service(&mut self, now: Instant) -> Option<Instant> {
        match self.service.wants_figures(now) {
            Ok(()) => {
                self.wanted.service = true;
                None
            }
            Err(look_at) => look_at,
        }
    }

    /// Ends the round under way if all have answered or time is up, begins the next if somebody
    /// waits. When to look again.
    fn turn_round(&mut self, now: Instant) -> Option<Instant> {
        if self.round.is_some() {
            if let Some(ends_at) = self.observer.round_ends_at(now) {
                return Some(ends_at);
            }
            if let Some(round) = self.round.take() {
                self.end_round(round, now);
            }
        }
        if !self.wanted.is_wanted() {
            return None;
        }
        let earliest = self.last_round_at.map_or(now, |last| last + ROUND_INTERVAL_MIN);
        if earliest > now {
            return Some(earliest);
        }
        self.last_round_at = Some(now);
        let is_watched = self.wanted.consoles;
        self.round = Some(std::mem::take(&mut self.wanted));
        let (ticket, threads) = self.observer.begin_round(now);
        for thread in threads {
            match thread {
                ThreadId::Shard(shard) => {
                    self.mesh.to_shards[shard].send(ToShard::Observe { ticket, is_watched });
                    self.mesh.to_shards[shard].ring();
                }
                ThreadId::Ingest => {
                    self.mesh.to_ingest.send(ToIngest::Observe { ticket });
                    self.mesh.to_ingest.ring();
                }
            }
        }
        // If no thread was asked, the round is over already.
        self.observer.round_ends_at(now).or(Some(now))
    }

    fn end_round(&mut self, round: Round, now: Instant) {
        let key_sets = self.publisher.as_ref().map(|publisher| publisher.sets.figures());
        let hooks = self.hooks.as_ref().map(Hooks::figures).unwrap_or_default();
        let traces = self.traces.as_ref().map(Traces::figures);
        let (memory, tls, reloads) = (self.memory.figures(), self.tls.figures(), self.reloads.figures());
        let snapshot = self.observer.snapshot(now, self.stop.is_some());
        let snapshot = Arc::new(Snapshot { key_sets, hooks, traces, memory, tls, reloads, ..snapshot });
        for question in round.questions {
            // A handler that has gone away, with its client, wants no answer.
            let _ = question.send(Arc::clone(&snapshot));
        }
        if round.service {
            self.service.tell(&snapshot);
        }
        if round.consoles {
            let overview = self.overviews.next(&snapshot, &ProcessFigures::read());
            let json = serde_json::to_string(&overview).expect("numbers and strings become JSON");
            self.overview.send_replace(json.into());
        }
    }

    /// Tells shards the published keys: all of them, if the keys are new; those that have asked, in any case.
    fn keys_fetched(&mut self, keys: Option<KeySet>) {
        let Some(publisher) = &mut self.publisher else { return };
        let is_current = keys.is_some();
        publisher.is_failing = !is_current;
        let fetched = publisher.sets.fetched(keys, Instant::now());
        for (shard, outlet) in self.mesh.to_shards.iter_mut().enumerate() {
            let is_answer = fetched.asked_by.iter().any(|asked_by| usize::from(*asked_by) == shard);
            if fetched.is_new || is_answer {
                outlet.send(ToShard::TokenKeys { keys: Arc::clone(&fetched.keys), is_current, is_answer });
                outlet.ring();
            }
        }
    }

    /// Questions to the back end have ended: those that have by now, in one go.
    fn hook_ended(&mut self, end: Ended) {
        let now = Instant::now();
        let Some(hooks) = &mut self.hooks else { return };
        let mut next = Some(end);
        while let Some(end) = next {
            if let Some(told) = hooks.ended(end, now) {
                tell(&mut self.mesh, told);
            }
            next = self.hook_end.try_recv().ok();
        }
    }

    /// A request to the collector of traces has ended.
    fn trace_told(&mut self, delivery: &Delivery) {
        if let Some(traces) = &mut self.traces {
            traces.ended(delivery, Instant::now());
        }
    }

    /// Changes the deny list, and tells shards. A request that changes nothing is a question.
    fn deny(&mut self, command: DenyCommand) {
        let DenyCommand { request, asker } = command;
        let changed = self.denied.change(&request);
        if changed.is_ok() && !request.is_empty() {
            self.tell_denied();
        }
        // An operator that has gone away wants no answer.
        let _ = asker.send(changed.map(|()| self.denied.report()));
    }

    /// Gives the deny list to the shards.
    fn tell_denied(&mut self) {
        let prefixes = self.denied.prefixes();
        for outlet in &mut self.mesh.to_shards {
            outlet.send(ToShard::Deny { prefixes: Arc::clone(&prefixes) });
            outlet.ring();
        }
    }

    /// Measures memory, if it is time. The loop looks as often anyway.
    fn turn_memory(&mut self, now: Instant) {
        if now < self.memory_due_at {
            return;
        }
        self.memory_due_at = now + MEMORY_INTERVAL;
        let reserve_bytes = self.config.client.limits.memory_reserve_bytes;
        let was_short = self.memory.figures().is_short;
        let Some(Pressure { is_short, shed_bytes }) = self.memory.measure(reserve_bytes) else { return };
        let left_bytes = self.memory.figures().left_bytes;
        match (was_short, is_short) {
            (false, true) => tracing::warn!(
                left_bytes,
                reserve_bytes,
                "memory is short: no new clients are taken. Add memory, or lower client.connections_max; \
                 client.limits.memory_reserve says how much is to be left"
            ),
            (true, false) => tracing::info!(left_bytes, reserve_bytes, "memory is there again: new clients are taken"),
            _ => {}
        }
        let shards = self.mesh.to_shards.len() as u64;
        for outlet in &mut self.mesh.to_shards {
            outlet.send(ToShard::Memory { is_short, shed_bytes: shed_bytes.div_ceil(shards) });
            outlet.ring();
        }
    }

    /// Gives up what the back end was not asked in time. When to look again.
    fn turn_hooks(&mut self, now: Instant) -> Option<Instant> {
        self.hooks.as_mut().and_then(|hooks| hooks.turn(now, |told| tell(&mut self.mesh, told)))
    }

    fn begin_stop(&mut self, stop: Stop) {
        self.service.stopping(Duration::from_millis(self.config.shutdown.ms_max.into()), stop.began_at());
        self.stop = Some(stop);
    }

    fn turn_stop(&mut self, now: Instant) -> Result<Option<Instant>, Outcome> {
        let Some(stop) = &mut self.stop else { return Ok(None) };
        loop {
            match stop.step(self.observer.running(), now) {
                StopStep::Wait(until) => return Ok(Some(until)),
                StopStep::TellIngest => {
                    self.mesh.to_ingest.send(ToIngest::Shutdown);
                    self.mesh.to_ingest.ring();
                }
                StopStep::TellShards { spread_ms } => {
                    for to_shard in &mut self.mesh.to_shards {
                        to_shard.send(ToShard::Shutdown { spread_ms });
                        to_shard.ring();
                    }
                }
                StopStep::Finished => {
                    let ms = u64::try_from((now - stop.began_at()).as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(ms, "all threads have stopped");
                    return Err(match self.lost {
                        Some(thread) => Outcome::ThreadLost { thread: thread.to_string() },
                        None => Outcome::Stopped,
                    });
                }
                StopStep::TimeIsUp => {
                    let threads: Vec<_> = self.observer.running().map(|thread| thread.to_string()).collect();
                    tracing::warn!(?threads, "not stopped in time; exiting without them");
                    return Err(match self.lost {
                        Some(thread) => Outcome::ThreadLost { thread: thread.to_string() },
                        None => Outcome::TimedOut { threads },
                    });
                }
            }
        }
    }
}

/// Tells a shard what has become of a question.
fn tell(mesh: &mut ControlMesh, (ticket, answer): Told) {
    let outlet = &mut mesh.to_shards[usize::from(ticket.shard)];
    outlet.send(ToShard::HookAnswered { number: ticket.number, answer });
    outlet.ring();
}

impl Publisher {
    /// Of the configured address, if there is one.
    fn new(token: &TokenConfig, client: Option<HttpClient>, fetched: mpsc::Sender<Option<KeySet>>) -> Option<Self> {
        let endpoint = token.jwks_public_endpoint.clone()?;
        let sets = KeySets::new(Duration::from_millis(token.jwks_refresh_ms.into()), Instant::now());
        Some(Self { sets, endpoint, client: client?, fetched, is_failing: false })
    }

    /// Fetches, if it is time. When to look again.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        match self.sets.step(now) {
            KeySetStep::Fetch => {
                let (client, endpoint, fetched) = (self.client.clone(), self.endpoint.clone(), self.fetched.clone());
                let was_failing = self.is_failing;
                tokio::spawn(async move {
                    let keys = fetch_keys(&client, &endpoint).await;
                    match &keys {
                        Ok(keys) if was_failing => {
                            tracing::info!(endpoint, keys = keys.len(), "keys are published again")
                        }
                        Ok(_) => {}
                        Err(error) if was_failing => tracing::debug!(endpoint, error, "keys cannot be fetched"),
                        Err(error) => tracing::warn!(endpoint, error, "keys cannot be fetched; the last ones count"),
                    }
                    // The loop ends before its tasks.
                    let _ = fetched.send(keys.ok()).await;
                });
                None
            }
            KeySetStep::WaitUntil(at) => Some(at),
            KeySetStep::WaitForFetch => None,
        }
    }
}

/// The keys that are published, or why there are none.
async fn fetch_keys(client: &HttpClient, endpoint: &str) -> Result<KeySet, String> {
    let request = Request::get(endpoint).body(Full::default()).map_err(|error| error.to_string())?;
    let time_max = Duration::from_millis(KEY_SET_FETCH_MS_MAX);
    let response = client.ask(request, time_max, KEY_SET_BYTES_MAX).await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("HTTP {}", response.status()));
    }
    KeySet::parse(response.body()).map_err(|error| error.to_string())
}

/// The bell's eventfd, as tokio polls it.
struct BellEvent(Arc<Bell>);

impl AsRawFd for BellEvent {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event().as_fd().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that change or close while they are polled; the bell's does \
              neither, since BellEvent keeps the bell alive"
)]
fn poll_bell(bell: Arc<Bell>) -> io::Result<AsyncFd<BellEvent>> {
    AsyncFd::with_interest(BellEvent(bell), Interest::READABLE)
}

fn forward_signal<R: Send + 'static>(
    kind: SignalKind,
    requests: mpsc::Sender<R>,
    request: impl Fn() -> R + Send + 'static,
) -> io::Result<()> {
    let mut signal = signal(kind)?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            if requests.send(request()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests;
