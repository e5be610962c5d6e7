//! EC2's instance metadata service, version 2: where it is, its session token, and one value at a path.
//! In: a base URL, paths. Out: text, or `None` where there is nothing (404).
//! Owns: the session token, asked for anew when it is refused.
//! Source: Amazon EC2 User Guide, "Use IMDSv2", "Instance metadata categories".
//! Never: version 1, which answers without a token; a question on a machine that is not of EC2, unless
//! the file names the service.

mod http;

use crate::errors::{Cause, words};
use http::{Answer, request};
use std::path::Path;

/// Where every instance of EC2 finds it.
pub(crate) const EC2: &str = "http://169.254.169.254";
/// The firmware's words about the machine.
pub(crate) const FIRMWARE_DIR: &str = "/sys/devices/virtual/dmi/id";
/// On older, Xen-based instances the hypervisor's.
pub(crate) const HYPERVISOR_UUID: &str = "/sys/hypervisor/uuid";

const TOKEN: &str = "/latest/api/token";
/// The longest the service grants.
const TOKEN_LIFE_S: &str = "21600";

/// The service, and the token it gave.
pub(crate) struct Imds {
    base: String,
    token: Option<String>,
}

impl Imds {
    pub(crate) fn new(base: &str) -> Self {
        Self { base: base.to_owned(), token: None }
    }

    /// `None`: there is nothing at this path (404).
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<String>, Cause> {
        for fresh in [false, true] {
            let token = self.token(fresh).await?;
            let headers = [("X-aws-ec2-metadata-token", token.as_str())];
            let Answer { status, body } = request("GET", &self.base, path, &headers).await?;
            match status {
                200 => return Ok(Some(body)),
                404 => return Ok(None),
                401 => {}
                other => return Err(words(format!("the metadata service answered {path} with {other}"))),
            }
        }
        Err(words("the metadata service refuses its own token".to_owned()))
    }

    async fn token(&mut self, fresh: bool) -> Result<String, Cause> {
        if let Some(token) = self.token.as_ref().filter(|_| !fresh) {
            return Ok(token.clone());
        }
        let headers = [("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFE_S)];
        let Answer { status, body } = request("PUT", &self.base, TOKEN, &headers).await?;
        if status != 200 {
            return Err(words(format!("the metadata service gives no token: {status}")));
        }
        Ok(self.token.insert(body.trim().to_owned()).clone())
    }
}

/// Whether the machine is an instance of EC2, by what it says of itself; nothing is asked.
/// Source: Amazon EC2 User Guide, "Detect whether a host is an EC2 instance".
pub(crate) fn is_ec2(firmware: &Path, hypervisor_uuid: &Path) -> bool {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().trim().to_ascii_lowercase();
    read(&firmware.join("sys_vendor")) == "amazon ec2"
        || read(&firmware.join("product_uuid")).starts_with("ec2")
        || read(hypervisor_uuid).starts_with("ec2")
}
