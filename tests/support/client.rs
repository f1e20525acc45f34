//! A client that says exactly what a test wants it to: WebSocket by tungstenite, the Centrifuge protocol by hand.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, protocol::CloseFrame};

use super::{
    PATIENCE,
    server::{Server, TOKEN_SECRET},
};

/// Where the Centrifuge protocol is spoken.
pub const PATH: &str = "/connection/websocket";

/// One client.
pub struct Client {
    socket: WebSocket<TcpStream>,
    commands: u32,
    pushes: VecDeque<Value>,
}

impl Client {
    /// Connects without a token.
    pub fn anonymous(server: &Server) -> Self {
        let mut client = Self::upgraded(server);
        let reply = client.command("connect", json!({}));
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    /// Connects with a token for a user.
    pub fn user(server: &Server, user: &str) -> Self {
        let mut client = Self::upgraded(server);
        let reply = client.command("connect", json!({ "token": token(&json!({ "sub": user })) }));
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    /// A WebSocket connection on which no command has been sent.
    pub fn upgraded(server: &Server) -> Self {
        let stream = TcpStream::connect(server.client_address()).expect("the client port accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let url = format!("ws://{}{PATH}", server.client_address());
        let (socket, _) = tungstenite::client(url, stream).expect("the upgrade succeeds");
        Self { socket, commands: 0, pushes: VecDeque::new() }
    }

    /// Sends a text message as it is.
    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the server reads");
    }

    /// Sends bytes past the WebSocket layer: a frame as the test made it.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("the server reads");
    }

    /// Sends a command and waits for the reply to it; pushes that come before are kept.
    pub fn command(&mut self, method: &str, request: Value) -> Value {
        let id = self.send_command(method, request);
        loop {
            let message = self.next_message();
            if message["id"] == id {
                return message;
            }
            assert!(message["id"].is_null(), "a reply to another command than {id}: {message}");
            self.pushes.push_back(message);
        }
    }

    /// Sends a command and does not wait.
    pub fn send_command(&mut self, method: &str, request: Value) -> u32 {
        self.commands += 1;
        let command = json!({ "id": self.commands, method: request });
        self.send(&command.to_string());
        self.commands
    }

    /// Subscribes; returns the result.
    pub fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.command("subscribe", json!({ "channel": channel }));
        assert!(reply["subscribe"].is_object(), "{reply}");
        reply["subscribe"].clone()
    }

    /// The next push; waits for it.
    pub fn next_push(&mut self) -> Value {
        let message = self.pushes.pop_front().unwrap_or_else(|| self.next_message());
        assert!(message["push"].is_object(), "not a push: {message}");
        message["push"].clone()
    }

    /// Payload of the next publication; waits for it.
    pub fn next_data(&mut self) -> Value {
        let push = self.next_push();
        assert!(push["pub"].is_object(), "not a publication: {push}");
        push["pub"]["data"].clone()
    }

    /// Code and reason of the close frame that comes next; messages before it are forgotten.
    pub fn close_frame(&mut self) -> (u16, String) {
        self.drain_until_close(&mut Vec::new())
    }

    /// Code and reason of the close frame that comes next; pushes before it are handed over.
    pub fn drain_until_close(&mut self, pushes: &mut Vec<Value>) -> (u16, String) {
        self.drain(pushes).unwrap_or_else(|error| panic!("no close frame, but: {error}"))
    }

    /// Reads until the end: a close frame's code and reason, or how the connection ended without one.
    pub fn drain(&mut self, pushes: &mut Vec<Value>) -> Result<(u16, String), tungstenite::Error> {
        pushes.extend(self.pushes.drain(..).map(|message| message["push"].clone()));
        loop {
            match self.socket.read()? {
                Message::Close(Some(CloseFrame { code, reason })) => return Ok((code.into(), reason.to_string())),
                Message::Close(None) => panic!("a close frame without a code"),
                Message::Text(text) => {
                    let messages = text.split('\n').filter_map(|line| serde_json::from_str::<Value>(line).ok());
                    pushes.extend(messages.map(|message| message["push"].clone()).filter(Value::is_object));
                }
                _ => {}
            }
        }
    }

    /// After [`close_frame`](Self::close_frame): whether the server ends the TCP connection too.
    pub fn assert_ends(&mut self) {
        let _ = self.socket.flush();
        let mut rest = [0; 64];
        match self.socket.get_mut().read(&mut rest) {
            Ok(0) | Err(_) => {}
            Ok(read) => panic!("more after the close frame: {:?}", &rest[..read]),
        }
    }

    /// The next WebSocket message, pings of either layer included.
    pub fn next_frame(&mut self) -> Message {
        self.socket.read().expect("a message comes")
    }

    /// Whether nothing comes for a while.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.socket.get_mut().set_read_timeout(Some(time)).expect("a timeout can be set");
        let outcome = self.socket.read();
        self.socket.get_mut().set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        matches!(outcome, Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The next reply or push; answers the server's pings on the way.
    fn next_message(&mut self) -> Value {
        let mut queued = VecDeque::new();
        while queued.is_empty() {
            match self.socket.read().unwrap_or_else(|error| panic!("no message, but: {error}")) {
                Message::Text(text) => {
                    for line in text.split('\n') {
                        let message: Value =
                            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
                        if message == json!({}) {
                            self.socket.send(Message::text("{}")).expect("the server reads");
                        } else {
                            queued.push_back(message);
                        }
                    }
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a text message: {other:?}"),
            }
        }
        let first = queued.pop_front().expect("the loop ends with one");
        self.pushes.extend(queued);
        first
    }
}

/// A token of these claims, signed with the tests' secret.
pub fn token(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("claims can be signed")
}

/// Seconds since 1970, as tokens count.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}
