//! Makes nodes members of the cluster, once; their certificates serve all runs.
//! In: a control plane. Out: identities, one JSON object a line: {certificate, key, cpu, memory, zone}.

use super::plane::Plane;
use super::tls::{self, Admin};
use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_client::NodeClient;
use serde_json::{Value, json};
use std::path::Path;
use tonic::transport::Channel;

/// CPU units and MiB that one task of the family `bench` takes.
pub(crate) const CPU_UNITS: usize = 128;
pub(crate) const MEMORY_MIB: usize = 128;
pub(crate) const ZONES: [&str; 3] = ["a", "b", "c"];
/// Joins at a time.
const AT_ONCE: usize = 16;

/// Lets `nodes` join, of three sizes in three zones, and writes their identities.
pub(crate) async fn join(plane: &Plane, nodes: usize, places: usize, file: &Path) -> Result<()> {
    let admin: Admin = plane.admin()?;
    let people = LighterClient::new(admin.connect(plane.address).await?);
    let anonymous = NodeClient::new(tls::endpoint(plane.address, &admin.ca, None)?.connect().await?);
    let joins = (0..nodes).map(|number| one(people.clone(), anonymous.clone(), number, places));
    let lines: Vec<String> = stream::iter(joins).buffered(AT_ONCE).try_collect().await?;
    std::fs::write(file, lines.join("\n")).context("write the identities")
}

async fn one(
    mut people: LighterClient<Channel>,
    mut anonymous: NodeClient<Channel>,
    number: usize,
    places: usize,
) -> Result<String> {
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
    let token = people.create_join_token(v1::CreateJoinTokenRequest::default()).await?.into_inner().token;
    let joined = anonymous
        .join(v1::JoinRequest { token, certificate_request_pem: request, name: format!("node-{number}") })
        .await?
        .into_inner();
    // Sizes and zones independent of each other: nine kinds of node.
    let places = [places / 2, places, places + places.div_ceil(2)][number % 3];
    let zone = ZONES[number / 3 % 3];
    let line: Value = json!({
        "certificate": joined.certificate_pem,
        "key": key.serialize_pem(),
        "cpu": places * CPU_UNITS,
        "memory": places * MEMORY_MIB,
        "zone": zone,
    });
    Ok(line.to_string())
}
