//! What EC2's metadata service says of the instance, as attributes: region, zone, type, image, VPC,
//! subnet, and how it is paid for.
//! In: the setting `instance_metadata`, the machine's own words. Out: attributes by name, as many as came
//! within `LIMIT`. Never: asks on a machine that is not of EC2, unless the file names the service; keeps
//! the agent from starting.
//! Source: Amazon EC2 User Guide, "Instance metadata categories".

use crate::errors::chain;
use crate::imds::{self, Imds};
use crate::time::sleep;
use lighter_model::attribute;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Before the agent starts without: the service answers within milliseconds or is not there.
const LIMIT: Duration = Duration::from_secs(5);
/// A machine that boots may have no route yet.
const PAUSE: Duration = Duration::from_millis(250);

const MAC: &str = "/latest/meta-data/mac";
/// Where one value is, and the attribute it becomes.
const VALUES: [(&str, &str); 5] = [
    ("/latest/meta-data/placement/region", attribute::REGION),
    ("/latest/meta-data/placement/availability-zone", attribute::AVAILABILITY_ZONE),
    ("/latest/meta-data/instance-type", attribute::INSTANCE_TYPE),
    ("/latest/meta-data/ami-id", attribute::AMI_ID),
    ("/latest/meta-data/instance-id", attribute::EC2_INSTANCE_ID),
];
const LIFE_CYCLE: &str = "/latest/meta-data/instance-life-cycle";

/// Where a machine says whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) firmware: PathBuf,
    pub(crate) hypervisor_uuid: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self { firmware: imds::FIRMWARE_DIR.into(), hypervisor_uuid: imds::HYPERVISOR_UUID.into() }
    }
}

/// The service to ask: `setting` is `auto`, `off` or a URL.
fn service<'a>(setting: &'a str, machine: &Machine) -> Option<&'a str> {
    match setting {
        "off" => None,
        "auto" => imds::is_ec2(&machine.firmware, &machine.hypervisor_uuid).then_some(imds::EC2),
        url => Some(url),
    }
}

/// What the service says; nothing when there is none to ask.
pub(crate) async fn of_instance(setting: &str, machine: &Machine) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Some(base) = service(setting, machine) else { return found };
    let mut asking = Asking { imds: Imds::new(base), found: &mut found };
    tokio::select! {
        () = asking.all() => {}
        () = sleep(LIMIT) => {
            tracing::warn!(service = base, limit = ?LIMIT, "the instance metadata service did not say all in time");
        }
    }
    tracing::info!(service = base, attributes = ?found, "the instance metadata service was asked");
    found
}

struct Asking<'a> {
    imds: Imds,
    found: &'a mut BTreeMap<String, String>,
}

impl Asking<'_> {
    async fn all(&mut self) {
        let mac = self.first(MAC).await;
        for (path, name) in VALUES {
            let value = self.value(path).await;
            self.keep(name, value);
        }
        if let Some(mac) = mac {
            for (last, name) in [("vpc-id", attribute::VPC_ID), ("subnet-id", attribute::SUBNET_ID)] {
                let value =
                    self.value(&format!("/latest/meta-data/network/interfaces/macs/{mac}/{last}")).await;
                self.keep(name, value);
            }
        }
        let life_cycle = self.value(LIFE_CYCLE).await;
        self.keep(attribute::CAPACITY_TYPE, life_cycle.as_deref().and_then(capacity_type).map(str::to_owned));
    }

    /// Asks until the service answers at all; the caller's limit ends it.
    async fn first(&mut self, path: &str) -> Option<String> {
        let mut told = false;
        loop {
            match self.imds.get(path).await {
                Ok(value) => return value.map(|value| value.trim().to_owned()),
                Err(error) if !told => {
                    tracing::warn!(cause = %chain(error.as_ref()), "the instance metadata service does not answer yet");
                    told = true;
                }
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// One value; what cannot be had is told of and done without.
    async fn value(&mut self, path: &str) -> Option<String> {
        match self.imds.get(path).await {
            Ok(value) => value.map(|value| value.trim().to_owned()),
            Err(error) => {
                tracing::warn!(path, cause = %chain(error.as_ref()), "the instance metadata service does not say it");
                None
            }
        }
    }

    fn keep(&mut self, name: &str, value: Option<String>) {
        let Some(value) = value else { return };
        match attribute::check(name, &value) {
            Ok(()) => {
                self.found.insert(name.to_owned(), value);
            }
            Err(problem) => {
                tracing::warn!(name, problem, "the instance metadata service said what is no attribute")
            }
        }
    }
}

/// Of `instance-life-cycle`; a word that is none of ours says nothing. A reservation of capacity is
/// bought for a time, as `scheduled` was.
fn capacity_type(life_cycle: &str) -> Option<&'static str> {
    match life_cycle {
        "on-demand" => Some("on-demand"),
        "spot" => Some("spot"),
        "scheduled" | "capacity-block" => Some("reserved"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
