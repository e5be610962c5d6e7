//! QEMU's machine protocol: one command, one answer, over a Unix socket.
//! In: command names and arguments. Out: the answer's `return` member.
//! Owns: the connection. Never: interprets events; they are skipped.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to one QEMU process.
pub struct Qmp {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Waits for QEMU to open its socket, at most `limit`.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        let writer = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("QEMU did not open its control socket");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // loadvm and savevm answer when they are done, which takes seconds under emulation.
        writer.set_read_timeout(Some(Duration::from_secs(120)))?;
        let reader = BufReader::new(writer.try_clone()?);
        let mut qmp = Self { writer, reader };
        qmp.line()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// One command of the protocol.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.writer.write_all(line.as_bytes()).with_context(|| format!("send {command}"))?;
        loop {
            let answer = self.line().with_context(|| format!("answer to {command}"))?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {error}");
            }
        }
    }

    /// One line of the human monitor, for what has no command of its own (savevm, info usernet).
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_string())
    }

    fn line(&mut self) -> Result<Value> {
        let mut text = String::new();
        if self.reader.read_line(&mut text)? == 0 {
            bail!("QEMU closed its control socket");
        }
        Ok(serde_json::from_str(&text)?)
    }
}

/// The host's port that QEMU's user network forwards to the guest's port 22.
pub fn forwarded_ssh_port(usernet: &str) -> Option<u16> {
    let line = usernet.lines().find(|l| l.contains("HOST_FORWARD"))?;
    line.split_whitespace().skip_while(|word| *word != "127.0.0.1").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_forwarded_port() {
        let text = "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                    TCP[HOST_FORWARD]  12       127.0.0.1 45115       10.0.2.15    22     0     0\r\n";
        assert_eq!(forwarded_ssh_port(text), Some(45115));
        assert_eq!(forwarded_ssh_port("nothing"), None);
    }
}
