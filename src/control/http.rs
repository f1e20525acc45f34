//! The operators' port and the server API's: routes, and what every answer carries.
//!
//! Handlers own nothing: they ask the control loop for figures and write them down, or hand it an operator's command.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::to_bytes,
    extract::{ConnectInfo, FromRequestParts, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::{any, get, post},
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    OperatorToken, Question,
    api::{self, Api, Asked, Credentials, Rejection, Route},
    console::page,
    deny::{DenyCommand, DenyRequest},
    guard::{self, Refusal, Sender},
    health::Health,
    listener::Peer,
    metrics,
    observer::Snapshot,
    process::ProcessFigures,
    reload::ReloadRequest,
    shards::Shards,
    stop::StopRequest,
    user_search,
};
use crate::{
    config::{ApiConfig, Config, ErrorMode},
    limits::{API_BODY_BYTES_MAX, AUDIT_LINES_PER_REASON_MAX},
    log::{AUDIT, Gate},
    mesh::TraceContext,
};

/// What handlers share.
#[derive(Clone)]
pub struct Handlers {
    /// What the operator chose, as it counts now.
    pub config: watch::Receiver<Arc<Config>>,
    /// Whether the demonstration runs.
    pub demo: bool,
    /// For the console.
    pub operator_token: OperatorToken,
    /// Who answers what the console asks about a user.
    pub shards: Shards,
    /// The server API.
    pub api: Arc<Api>,
    /// To the control loop.
    pub questions: mpsc::Sender<Question>,
    /// To the control loop too.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Where the control loop puts the console's overview, once a second while anyone has subscribed.
    pub overview: Arc<watch::Sender<Arc<str>>>,
    /// Tells the control loop that a console has opened.
    pub console_opened: Arc<Notify>,
    /// Tells the control loop to change the deny list.
    pub deny_commands: mpsc::Sender<DenyCommand>,
    /// Tells the control loop to stop the server.
    pub stop_requests: mpsc::Sender<StopRequest>,
}

/// The routes of the operators' port.
pub fn router(handlers: Handlers) -> Router {
    let routes = Router::new()
        .route("/", get(console))
        .route("/console/events", get(console_events))
        .route("/console/token", get(console_token))
        .route("/console/user", get(console_user))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/drain", post(drain))
        .route("/deny", post(deny))
        .route("/reload", post(reload))
        .merge(api_routes())
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found);
    let admin = &handlers.config().admin;
    let (listen, is_secure) = (admin.listen, admin.tls.is_on());
    guard_routes(routes, handlers, listen, is_secure)
}

/// The routes of the server API alone, on the port at this address, which speaks TLS or does not.
pub fn api_router(handlers: Handlers, listen: SocketAddr, is_secure: bool) -> Router {
    guard_routes(api_routes().fallback(api_not_found), handlers, listen, is_secure)
}

fn api_routes() -> Router<Handlers> {
    Router::new()
        .route("/api", any(server_api))
        .route("/api/", any(server_api))
        .route("/api/{*method}", any(server_api))
}

/// Routes of the port at this address.
fn guard_routes(routes: Router<Handlers>, handlers: Handlers, listen: SocketAddr, is_secure: bool) -> Router {
    let port = Port { config: handlers.config.clone(), listen, is_secure };
    routes.layer(middleware::from_fn_with_state(port, guarded)).with_state(handlers)
}

/// What decides which hosts a port answers for.
#[derive(Clone)]
struct Port {
    listen: SocketAddr,
    /// Whether it speaks TLS.
    is_secure: bool,
    /// It says whether requests to the server API have to show a key.
    config: watch::Receiver<Arc<Config>>,
}

/// The host that a request addressed, checked.
#[derive(Clone)]
struct AddressedHost(String);

async fn guarded(State(port): State<Port>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(Peer(peer))| peer.to_string());
    let uri = request.uri();
    let path = uri.path();
    let needs_key = !port.config.borrow().api.insecure;
    let shows_key = needs_key && (path == "/api" || path.starts_with("/api/"));
    let path_asked = path.to_owned();
    let host = guard::check_host(request.version(), uri, request.headers(), port.listen, port.is_secure, path);
    let mut response = match host {
        Ok(host) => {
            request.extensions_mut().insert(AddressedHost(host));
            next.run(request).await
        }
        // Who shows a key is no page that a name was made to point here for.
        Err(Refusal::ForeignHost) if shows_key => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if let Some(Refused(reason)) = response.extensions().get::<Refused>() {
        audit(reason, &peer.unwrap_or_default(), port.listen, &path_asked);
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// On an answer: why the request was refused, in a word for the audit trail.
#[derive(Clone, Copy)]
struct Refused(&'static str);

fn audit(reason: &str, address: &str, listen: SocketAddr, path: &str) {
    static GATE: Gate = Gate::new(AUDIT_LINES_PER_REASON_MAX);
    if let Some(suppressed) = GATE.pass_now() {
        let port = listen.port();
        tracing::warn!(target: AUDIT, reason, address, port, path, suppressed, "a request was refused");
    }
}

async fn console(
    State(handlers): State<Handlers>,
    Extension(AddressedHost(host)): Extension<AddressedHost>,
) -> Response {
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        tracing::error!(%error, "the kernel gives no random bytes");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let page = page(&handlers.config(), handlers.demo, &host, &nonce);
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (header::CONTENT_SECURITY_POLICY, page.policy)];
    (headers, page.html).into_response()
}

async fn console_token(
    State(handlers): State<Handlers>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Response {
    if guard::sender(&headers) != Sender::OwnPage {
        return Refusal::ForeignPage.into_response();
    }
    match guard::check_own_machine(peer) {
        Ok(()) => Json(serde_json::json!({ "token": (handlers.operator_token)() })).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

#[derive(Deserialize)]
struct UserQuery {
    user: String,
}

async fn console_user(
    State(handlers): State<Handlers>,
    Query(UserQuery { user }): Query<UserQuery>,
    headers: HeaderMap,
) -> Response {
    if guard::sender(&headers) != Sender::OwnPage {
        return Refusal::ForeignPage.into_response();
    }
    match user_search::find(&handlers.shards, &user).await {
        Ok(found) => Json(found).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "a shard does not answer\n").into_response(),
    }
}

async fn console_events(State(handlers): State<Handlers>, headers: HeaderMap) -> Response {
    if guard::sender(&headers) == Sender::ForeignPage {
        return Refusal::ForeignPage.into_response();
    }
    // What an earlier console was told is old, and not shown to this one.
    let receiver = handlers.overview.subscribe();
    handlers.console_opened.notify_one();
    Sse::new(overviews(receiver)).into_response()
}

fn overviews(receiver: watch::Receiver<Arc<str>>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(receiver, async |mut receiver| {
        // An error means that the control loop has ended: so does the stream.
        receiver.changed().await.ok()?;
        let overview = Arc::clone(&receiver.borrow_and_update());
        Some((Ok(Event::default().data(&*overview)), receiver))
    })
}

async fn metrics(State(handlers): State<Handlers>) -> Response {
    match handlers.figures().await {
        Some(snapshot) => {
            let text = metrics::render(&snapshot, &handlers.api.figures(), &ProcessFigures::read());
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
        }
        None => gone(),
    }
}

async fn health(State(handlers): State<Handlers>) -> Response {
    match handlers.figures().await {
        Some(snapshot) => {
            let health = Health::of(&snapshot);
            (health.status_code(), Json(health)).into_response()
        }
        None => gone(),
    }
}

/// Stops the server as SIGTERM does. The answer says how long that takes, as the configuration has it.
async fn drain(Operator(peer): Operator, State(handlers): State<Handlers>) -> Response {
    tracing::info!(target: AUDIT, reason = "drain", address = %peer, "an operator's command");
    if handlers.stop_requests.send(StopRequest::Drain).await.is_err() {
        return gone();
    }
    let shutdown = &handlers.config().shutdown;
    let plan = DrainPlan { unready_ms: shutdown.unready_ms, spread_ms: shutdown.spread_ms, ms_max: shutdown.ms_max };
    (StatusCode::ACCEPTED, Json(plan)).into_response()
}

/// Changes the deny list, or shows it.
async fn deny(Operator(peer): Operator, State(handlers): State<Handlers>, uri: Uri) -> Response {
    let request = DenyRequest::of_query(uri.query().unwrap_or_default());
    if !request.is_empty() {
        let (add, remove) = (&request.add, &request.remove);
        tracing::info!(target: AUDIT, reason = "deny", address = %peer, ?add, ?remove, "an operator's command");
    }
    let (asker, outcome) = oneshot::channel();
    if handlers.deny_commands.send(DenyCommand { request, asker }).await.is_err() {
        return gone();
    }
    match outcome.await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(reason)) => (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
        Err(_) => gone(),
    }
}

/// The answer to `/drain`.
#[derive(Serialize)]
struct DrainPlan {
    unready_ms: u32,
    spread_ms: u32,
    ms_max: u32,
}

async fn server_api(State(handlers): State<Handlers>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let config = handlers.config();
    let route = match route_of(&config.api, &head) {
        Ok(route) => route,
        Err(rejection) => return rejected(&handlers.api, rejection),
    };
    let error_mode = match text_field(&head.headers, "x-centrifugo-error-mode") {
        Some("transport") => ErrorMode::Transport,
        _ => config.api.error_mode,
    };
    let Ok(body) = to_bytes(body, API_BODY_BYTES_MAX).await else {
        return rejected(&handlers.api, Rejection::BodyMissing);
    };
    // What is none is passed over (W3C Trace Context section 3.2).
    let trace = text_field(&head.headers, "traceparent").and_then(|text| TraceContext::parse(text.as_bytes()));
    let answer = handlers.api.answer(route, error_mode, &Asked { body, trace }).await;
    let content_type = if answer.is_json { "application/json" } else { "text/plain; charset=utf-8" };
    (answer.status, [(header::CONTENT_TYPE, content_type)], answer.body).into_response()
}

/// What the head of a request to the API asks for, if it may ask.
fn route_of(config: &ApiConfig, head: &Parts) -> Result<Route, Rejection> {
    if config.insecure && guard::sender(&head.headers) == Sender::ForeignPage {
        return Err(Rejection::ForeignPage);
    }
    let credentials = Credentials {
        header: text_field(&head.headers, "x-api-key"),
        authorization: text_field(&head.headers, header::AUTHORIZATION.as_str()),
        query: head.uri.query(),
    };
    if !api::may_ask(config, credentials) {
        return Err(Rejection::Unauthorized);
    }
    if head.method != Method::POST {
        return Err(Rejection::NotPost);
    }
    Route::of(head.uri.path()).ok_or(Rejection::UnknownMethod)
}

/// The answer to a request that was no call, which is counted.
fn rejected(api: &Api, rejection: Rejection) -> Response {
    api.rejected(rejection);
    match rejection {
        Rejection::ForeignPage => Refusal::ForeignPage.into_response(),
        Rejection::Unauthorized => (StatusCode::UNAUTHORIZED, Extension(Refused("api_key_invalid"))).into_response(),
        Rejection::NotPost => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], "use POST\n").into_response(),
        Rejection::UnknownMethod => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
        Rejection::BodyMissing => {
            (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than it may be, or broke off\n").into_response()
        }
        Rejection::Unreadable => (StatusCode::BAD_REQUEST, "Bad Request\n").into_response(),
    }
}

fn text_field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Reads the configuration anew as SIGHUP does. The answer says what came of it.
async fn reload(_: Operator, State(handlers): State<Handlers>) -> Response {
    let (asker, report) = oneshot::channel();
    if handlers.reloads.send(ReloadRequest { by: "the command line", asker: Some(asker) }).await.is_err() {
        return gone();
    }
    match report.await {
        Ok(report) => (report.status_code(), Json(report)).into_response(),
        Err(_) => gone(),
    }
}

/// Whoever may give commands to the running server, by their address. Others are refused before a handler is asked.
struct Operator(SocketAddr);

impl FromRequestParts<Handlers> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, handlers: &Handlers) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().ok_or(Refusal::ForeignCommand)?.0.0;
        guard::check_command(&parts.headers, peer, handlers.config().admin.password.as_ref())?;
        Ok(Self(peer))
    }
}

async fn api_not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found; there is /api\n").into_response()
}

async fn not_found() -> Response {
    let hint = "not found; there are /, /metrics, /health, /drain, /deny, /reload and /api\n";
    (StatusCode::NOT_FOUND, hint).into_response()
}

async fn method_not_allowed(method: Method) -> Response {
    // axum adds Allow.
    let hint = format!("{method} does nothing here; Allow says what does\n");
    (StatusCode::METHOD_NOT_ALLOWED, hint).into_response()
}

fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the server has stopped\n").into_response()
}

impl Handlers {
    /// What the operator chose, as it counts now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Figures that all threads were asked for after this call; none if the control loop has ended.
    async fn figures(&self) -> Option<Arc<Snapshot>> {
        let (question, answer) = oneshot::channel();
        self.questions.send(question).await.ok()?;
        answer.await.ok()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status(), Extension(Refused(self.reason())), format!("{self}\n")).into_response()
    }
}
