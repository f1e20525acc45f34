//! The demonstration's producer: a ticker that publishes through the real ingest port, as any producer would.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// The channel that ticks.
pub const CHANNEL: &str = "demo:ticks";

/// Ten ticks a second.
const INTERVAL: Duration = Duration::from_millis(100);

/// Pause before the ticker connects again, should the ingest port close its connection.
const RECONNECT: Duration = Duration::from_secs(1);

/// Starts the ticker on a thread of its own; it ends with the process.
///
/// # Errors
/// When the kernel gives no thread.
pub fn spawn_ticker(ingest: SocketAddr, password: Option<String>) -> io::Result<()> {
    let body = move || {
        let mut walk = RandomWalk::new();
        loop {
            if let Err(error) = tick(ingest, password.as_deref(), &mut walk) {
                tracing::debug!("the demonstration's ticker reconnects: {error}");
            }
            thread::sleep(RECONNECT);
        }
    };
    thread::Builder::new().name("demo-ticker".to_owned()).spawn(body).map(|_| ())
}

fn tick(ingest: SocketAddr, password: Option<&str>, walk: &mut RandomWalk) -> io::Result<()> {
    let mut stream = TcpStream::connect(ingest)?;
    stream.set_nodelay(true)?;
    let mut replies = BufReader::new(stream.try_clone()?);
    if let Some(password) = password {
        call(&mut stream, &mut replies, &["AUTH", password])?;
    }
    let mut due = Instant::now();
    loop {
        call(&mut stream, &mut replies, &["PUBLISH", CHANNEL, &walk.next_tick()])?;
        due += INTERVAL;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// One command whose reply is one line.
fn call(stream: &mut TcpStream, replies: &mut impl BufRead, arguments: &[&str]) -> io::Result<()> {
    let mut command = format!("*{}\r\n", arguments.len());
    for argument in arguments {
        command.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
    }
    stream.write_all(command.as_bytes())?;
    let mut reply = String::new();
    match replies.read_line(&mut reply)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if reply.starts_with('-') => Err(io::Error::other(reply)),
        _ => Ok(()),
    }
}

/// Prices that wander, so that the console has something to draw.
struct RandomWalk {
    state: u64,
    sequence: u64,
    prices: [(&'static str, i64); 4],
}

impl RandomWalk {
    fn new() -> Self {
        Self {
            state: 0x5eed,
            sequence: 0,
            prices: [("EURUSD", 108_420), ("GBPUSD", 126_910), ("USDJPY", 149_330), ("XAUUSD", 265_510)],
        }
    }

    fn next_tick(&mut self) -> String {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = self.state >> 33;
        let place = self.sequence as usize % self.prices.len();
        let (symbol, price) = &mut self.prices[place];
        *price += random as i64 % 41 - 20;
        self.sequence += 1;
        format!(r#"{{"seq":{},"symbol":"{symbol}","price":{}.{:02}}}"#, self.sequence, *price / 100, *price % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_json_and_numbered() {
        let mut walk = RandomWalk::new();
        for sequence in 1..1000 {
            let tick: serde_json::Value = serde_json::from_str(&walk.next_tick()).unwrap();
            assert_eq!(tick["seq"], sequence);
            assert!(tick["price"].as_f64().unwrap() > 0.0);
        }
    }
}
