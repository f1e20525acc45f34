//! A server that runs for one measurement: started from a command line, stopped at the end.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::proc::listener;

const START_MAX: Duration = Duration::from_secs(15);
const STOP_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub struct Served {
    child: Child,
}

impl Served {
    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// If somebody else listens there already, or the server ends or never listens.
    pub fn start(command: &str, address: SocketAddr) -> Result<Served> {
        if let Some(pid) = listener::process_of(address) {
            bail!("process {pid} listens on {address} already: stop it first, or leave out --serve to measure it");
        }
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{command} cannot be started"))?;
        let mut served = Served { child };
        let started = Instant::now();
        while listener::process_of(address).is_none() {
            if let Some(status) = served.child.try_wait()? {
                bail!("{command} ended before it listened on {address}: {status}");
            }
            if started.elapsed() > START_MAX {
                bail!("{command} does not listen on {address}: is --url its client.listen?");
            }
            sleep(LOOK_EVERY);
        }
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A server that has ended by itself needs no signal; it is waited for all the same.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let started = Instant::now();
        while started.elapsed() < STOP_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(LOOK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_does_not_start_is_told() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let error = Served::start("false", address).unwrap_err().to_string();
        assert!(error.contains("ended before it listened"), "{error}");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = Served::start("true", taken.local_addr().unwrap()).unwrap_err().to_string();
        assert!(error.contains("listens on") && error.contains("already"), "{error}");
    }
}
