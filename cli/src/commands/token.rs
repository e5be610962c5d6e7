//! `lighter token create`: a one-use token, and the command in which it is used.
//! In: cluster, time to live, attributes. Out: the token, once; the control plane keeps a hash.

use crate::args::{Format, Global};
use crate::client::{self, Client, Target};
use crate::failure::Failure;
use crate::{output, time};
use lighter_proto::v1;
use serde_json::json;
use std::time::Duration;

pub async fn create(
    global: &Global,
    client: &mut Client,
    cluster: Option<String>,
    time_to_live: Duration,
    attributes: Vec<(String, String)>,
) -> Result<(), Failure> {
    let request = v1::CreateJoinTokenRequest {
        cluster: super::cluster(cluster),
        // 0 would mean the default; the API bounds the rest.
        time_to_live_s: u32::try_from(time_to_live.as_secs()).unwrap_or(u32::MAX).max(1),
        attributes: attributes
            .into_iter()
            .map(|(name, value)| v1::Attribute { name, value, ..Default::default() })
            .collect(),
    };
    let answer =
        client.create_join_token(request).await.map_err(Failure::rpc("create a join token"))?.into_inner();
    let expires = time::rfc3339(answer.expires_at_unix_ms).unwrap_or_default();
    if global.output == Format::Json {
        return output::json(&json!({"token": answer.token, "expiresAt": expires}));
    }
    output::line(&answer.token)?;
    if !global.quiet {
        let control = client::targets(global)?.into_iter().map(|target| match target {
            Target::Tls(url) => url,
            Target::Unix(_) | Target::Plain(_) => "https://CONTROL-PLANE:7443".to_owned(),
        });
        let control = control.collect::<Vec<_>>().join(",");
        output::note(&format!("good for one node until {expires}; on that node, as root:"));
        output::note(&format!("  lighter agent join {control} --token {}", answer.token));
    }
    Ok(())
}
