//! Outgoing HTTP: one client, with one pool of connections, for all that the control thread asks of others.
//!
//! Owns limits of time and size, and the host's certificates. What is asked, how often and how many at a time is the
//! asker's business. Redirections are not followed: who configures an address means it.

use std::{sync::Arc, time::Duration};

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

/// How long a connection that nobody uses is kept.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Asks others. Cheap to clone; all clones share one pool.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection, or it broke; the system's words.
    #[error("{0}")]
    Broken(String),
    /// The time is over.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The body is longer than it may be.
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
}

impl HttpClient {
    /// A client that trusts the host's certificates (those of `SSL_CERT_FILE`, if it is set). A host without any can
    /// still ask over plain HTTP.
    pub fn new() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!("this host has no certificates of authorities, so nothing can be fetched over https");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the protocol's versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .build(connector);
        Self { client }
    }

    /// The answer to a request, whole.
    ///
    /// # Errors
    /// When it does not come, or not in time, or is too long. An answer of any status is one.
    pub async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        time_max: Duration,
        body_bytes_max: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| HttpError::Broken(words_of(&error)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, body_bytes_max).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    HttpError::TooLarge(body_bytes_max)
                } else {
                    HttpError::Broken(words_of(&*error))
                }
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(time_max, answer).await.unwrap_or(Err(HttpError::TimedOut(time_max)))
    }
}

/// An error with its causes, of which the last says most.
fn words_of(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
