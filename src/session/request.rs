//! Requests, while a connection speaks HTTP: the head, the body if there is one, and which of the endpoints answers.

use super::{
    Effects, Flow, Phase, Reason,
    conversation::{Conversation, Step},
    endpoint::{self, Endpoint},
    origin,
    state::Flag,
    turned_away,
};
use crate::http::{self, Answer, Body, BodyLength, BodyRead, Head, Request, answer};

/// A request whose body is under way.
#[derive(Debug)]
pub(super) struct PendingRequest {
    /// Its head, which was welcome.
    head: Vec<u8>,
    body: Body,
}

impl<E: Effects> Conversation<'_, E> {
    /// Reads a request, or goes on with one.
    pub(super) fn read_request(&mut self, input: &[u8], pending: &mut Option<Box<PendingRequest>>) -> Step {
        match pending.take() {
            Some(mut request) => match request.body.read(input) {
                Ok(BodyRead::Complete(bytes)) => {
                    let Ok(Head::Complete { request: head, .. }) = http::parse(&request.head) else {
                        unreachable!("it was read before")
                    };
                    Step::Taken(bytes, self.answer(&head, &request.body.into_content()))
                }
                Ok(BodyRead::Incomplete) => {
                    *pending = Some(request);
                    Step::Taken(input.len(), Flow::Continue)
                }
                Err(rejection) => Step::Taken(input.len(), self.reject(rejection)),
            },
            None => match http::parse(input) {
                Ok(Head::Incomplete) => Step::Incomplete,
                Ok(Head::Complete { request, bytes })
                    if self.rules.config.api.on_client_port && endpoint::is_api(request.path) =>
                {
                    self.hand_over(bytes)
                }
                Ok(Head::Complete { request, bytes }) => match self.welcome(&request) {
                    Ok(()) => self.begin_request(&request, bytes, input, pending),
                    Err(flow) => Step::Taken(bytes, flow),
                },
                Err(rejection) => Step::Taken(input.len(), self.reject(rejection)),
            },
        }
    }

    /// A request that is welcome: it is answered, or its body awaited.
    fn begin_request(
        &mut self,
        request: &Request<'_>,
        head_bytes: usize,
        input: &[u8],
        pending: &mut Option<Box<PendingRequest>>,
    ) -> Step {
        let (head, rest) = input.split_at(head_bytes);
        let content_bytes_max = self.rules.config.client.message_bytes_max as usize;
        let mut body = match Body::new(request.body, content_bytes_max) {
            Ok(body) => body,
            Err(rejection) => return Step::Taken(input.len(), self.reject(rejection)),
        };
        match body.read(rest) {
            Ok(BodyRead::Complete(bytes)) => {
                Step::Taken(head_bytes + bytes, self.answer(request, &body.into_content()))
            }
            Ok(BodyRead::Incomplete) => {
                if request.expects_continue && rest.is_empty() {
                    self.effects.output().extend_from_slice(answer::CONTINUE);
                }
                *pending = Some(Box::new(PendingRequest { head: head.to_vec(), body }));
                Step::Taken(input.len(), Flow::Continue)
            }
            Err(rejection) => Step::Taken(input.len(), self.reject(rejection)),
        }
    }

    /// A request to the server API: nothing of it is taken here, so that its body, which may be long, is not the shard's.
    fn hand_over(&mut self, head_bytes: usize) -> Step {
        if self.session.has(Flag::Answered) {
            // The answer to the request before may be on its way still, and this one's must not overtake it.
            let body = "the server API takes connections of their own\n";
            return Step::Taken(head_bytes, self.turn_away(421, Reason::PathUnknown, body, None));
        }
        self.session.set(Flag::Paused);
        Step::Taken(0, Flow::HandOver)
    }

    /// Judges a request by its head. Who is not welcome is answered here.
    fn welcome(&mut self, request: &Request<'_>) -> Result<(), Flow> {
        let Some(endpoint) = Endpoint::at(request.path) else {
            let body = "nothing is here; clients connect to /connection/websocket\n";
            return Err(self.turn_away(404, Reason::PathUnknown, body, None));
        };
        if endpoint != Endpoint::Emulation
            && let Some(why) = self.effects.no_place()
        {
            self.effects.count(why.reason());
            turned_away::write(why, request.origin, self.effects.output());
            self.session.phase = Phase::Ended;
            return Err(Flow::Closing);
        }
        if let Some(origin) = request.origin {
            let client = &self.rules.config.client;
            let allowed = client.allowed_origins.iter().chain(&self.rules.console_origins).map(String::as_str);
            if !origin::is_allowed(origin, request.host, allowed) || !answer::is_origin_harmless(origin) {
                let body = "pages of this origin may not connect; client.allowed_origins lists those that may\n";
                return Err(self.turn_away(403, Reason::OriginForbidden, body, None));
            }
        }
        if !endpoint.takes(request.method) {
            self.effects.count(Reason::MethodNotAllowed);
            let body = format!("this endpoint takes {}\n", endpoint.methods());
            let fields = [("Allow", endpoint.methods())];
            let answer = Answer { fields: &fields, origin: request.origin, ..Answer::last(405, &body) };
            return Err(self.answer_last(&answer));
        }
        if request.method != "POST" && request.body != BodyLength::Bytes(0) {
            let body = "this request has no body\n";
            return Err(self.turn_away(400, Reason::RequestBodyPresent, body, request.origin));
        }
        Ok(())
    }

    /// Answers a request that is welcome and whole.
    fn answer(&mut self, request: &Request<'_>, body: &[u8]) -> Flow {
        let endpoint = Endpoint::at(request.path).expect("the request was welcome");
        if request.method == "OPTIONS" {
            answer::write_preflight(self.effects.output(), request, endpoint.methods(), !request.closes);
            return self.answered(!request.closes);
        }
        match endpoint {
            Endpoint::WebSocket(shape) => self.upgrade(request, shape),
            Endpoint::Stream(shape, carrier) => self.open_stream(request, shape, carrier, body),
            Endpoint::Emulation => self.take_uplink(request, body),
        }
    }

    /// A request is answered; the next may come, unless the client does not want that.
    pub(super) fn answered(&mut self, keeps_alive: bool) -> Flow {
        if keeps_alive {
            self.session.set(Flag::Answered);
            return Flow::Answered;
        }
        self.session.phase = Phase::Ended;
        Flow::Closing
    }

    /// Answers a request that cannot be read.
    fn reject(&mut self, rejection: http::Rejection) -> Flow {
        self.turn_away(rejection.status(), rejection.into(), &format!("{rejection}\n"), None)
    }

    /// Answers a request that asks for what is not to be had. Pages of the origin, if any, may read why.
    pub(super) fn turn_away(&mut self, status: u16, reason: Reason, body: &str, origin: Option<&str>) -> Flow {
        self.effects.count(reason);
        self.answer_last(&Answer { origin, ..Answer::last(status, body) })
    }

    fn answer_last(&mut self, answer: &Answer<'_>) -> Flow {
        answer.write(self.effects.output());
        self.session.phase = Phase::Ended;
        Flow::Closing
    }
}
