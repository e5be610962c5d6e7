//! `lighter image pull|ls|inspect|rm|prune|load|save`: the images of this node, through its agent's
//! socket; those of other nodes in `nodes`.
//! In: the socket, archives. Out: tables, JSON, archives. Never: touches a file of the agent itself;
//! leaves half an archive behind under the name that was asked for.

mod nodes;

use crate::args::{AgentSocket, Format, Global, ImageCommand};
use crate::failure::Failure;
use crate::table::Table;
use crate::{client, output, time, words};
use lighter_proto::v1;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// One message of an archive; a few of them are on their way.
const PART_BYTES: usize = 256 << 10;
const PARTS: usize = 4;

pub async fn run(global: &Global, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Pull { image, pull_behavior, task_definition, nodes, socket } => {
            let behavior = pull_behavior.unwrap_or_default();
            match (image, nodes.elsewhere()) {
                (image, true) => {
                    nodes::pull(global, nodes, image, behavior, task_definition.unwrap_or_default()).await
                }
                (Some(image), false) => pull(global, &socket, image, behavior).await,
                // The arguments forbid it.
                (None, false) => Ok(()),
            }
        }
        ImageCommand::Ls { nodes, .. } if nodes.elsewhere() => nodes::ls(global, nodes).await,
        ImageCommand::Ls { socket, .. } => ls(global, &socket).await,
        ImageCommand::Prune { nodes, .. } if nodes.elsewhere() => nodes::prune(global, nodes).await,
        ImageCommand::Prune { socket, .. } => super::system::prune(global, &socket, false).await,
        ImageCommand::Inspect { image, socket } => inspect(&socket, image).await,
        ImageCommand::Rm { images, socket } => rm(global, &socket, images).await,
        ImageCommand::Load { file, name, socket } => load(global, &socket, &file, name).await,
        ImageCommand::Save { image, file, socket } => save(&socket, image, &file).await,
    }
}

async fn pull(
    global: &Global,
    socket: &AgentSocket,
    image: String,
    pull_behavior: String,
) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let request = v1::PullImageRequest { image: image.clone(), pull_behavior };
    let what = || format!("pull {image}");
    let mut said = agent.pull_image(request).await.map_err(Failure::rpc(what()))?.into_inner();
    let (mut digest, mut layers_done) = (String::new(), None);
    while let Some(message) = said.message().await.map_err(Failure::rpc(what()))? {
        if let Some(step) = message.progress.filter(|step| Some(step.layers_done) != layers_done) {
            layers_done = Some(step.layers_done);
            if !global.quiet {
                output::note(&self::step(&image, &step));
            }
        }
        digest = message.image_digest;
    }
    match global.output {
        Format::Json => output::json(&json!({"image": image, "imageDigest": digest})),
        _ => output::line(&digest),
    }
}

/// How far a pull is.
fn step(image: &str, step: &v1::PullProgress) -> String {
    let (done, total) = (words::bytes(step.bytes_done), words::bytes(step.bytes_total));
    format!("{image}: {} of {} layers, {done} of {total}", step.layers_done, step.layers_total)
}

/// Name, digest, size, when it was used, and whether it is.
fn image_row(image: &v1::LocalImage, now_unix_ms: i64) -> [String; 5] {
    let digest = image.image_digest.trim_start_matches("sha256:");
    [
        image.reference.clone(),
        digest.chars().take(12).collect(),
        words::bytes(image.size_bytes),
        time::age(image.last_used_at_unix_ms, now_unix_ms),
        if image.in_use { "yes".to_owned() } else { String::new() },
    ]
}

fn as_json(image: &v1::LocalImage) -> Value {
    json!({"reference": image.reference, "imageDigest": image.image_digest, "configDigest": image.config_digest,
        "platform": image.platform, "sizeBytes": image.size_bytes, "inUse": image.in_use,
        "fromRegistry": image.from_registry, "lastUsedAt": time::rfc3339(image.last_used_at_unix_ms)})
}

async fn ls(global: &Global, socket: &AgentSocket) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let answer = agent.list_images(v1::ListImagesRequest {}).await;
    let images = answer.map_err(Failure::rpc("list the images"))?.into_inner().images;
    if global.output == Format::Json {
        return output::json(&images.iter().map(as_json).collect());
    }
    if global.quiet {
        return output::print(
            &images.iter().map(|image| format!("{}\n", image.reference)).collect::<String>(),
        );
    }
    let mut table = Table::new(&["IMAGE", "DIGEST", "SIZE", "USED", "IN USE"]);
    let now = time::now_unix_ms();
    for image in &images {
        table.row(image_row(image, now));
    }
    super::print_table(global, &table)
}

async fn inspect(socket: &AgentSocket, image: String) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let answer = agent.inspect_image(v1::InspectImageRequest { image: image.clone() }).await;
    let found = answer.map_err(Failure::rpc(format!("inspect {image}")))?.into_inner();
    let document = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let mut shown = as_json(&found.image.unwrap_or_default());
    shown["manifest"] = document(&found.manifest_json);
    shown["config"] = document(&found.config_json);
    output::json(&shown)
}

async fn rm(global: &Global, socket: &AgentSocket, images: Vec<String>) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let (mut layers, mut bytes) = (0, 0);
    for image in &images {
        let answer = agent.remove_image(v1::RemoveImageRequest { image: image.clone() }).await;
        let freed = answer.map_err(Failure::rpc(format!("remove {image}")))?.into_inner();
        (layers, bytes) = (layers + freed.layers, bytes + freed.bytes);
    }
    if global.output == Format::Json {
        return output::json(&json!({"images": images, "layers": layers, "bytes": bytes}));
    }
    output::line(&format!("removed {} images, {layers} layers: {}", images.len(), words::bytes(bytes)))
}

async fn load(
    global: &Global,
    socket: &AgentSocket,
    file: &str,
    name: Option<String>,
) -> Result<(), Failure> {
    let mut source: Box<dyn Read + Send> = match file {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(|e| Failure::io(format!("open {path}"), e))?),
    };
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let (parts, stream) = mpsc::channel(PARTS);
    let reading = tokio::task::spawn_blocking(move || {
        let mut name = name.unwrap_or_default();
        loop {
            let mut data = Vec::with_capacity(PART_BYTES);
            let read = source.by_ref().take(PART_BYTES as u64).read_to_end(&mut data)?;
            let part = v1::LoadImageRequest { name: std::mem::take(&mut name), data };
            // An agent that takes no more says why in its answer.
            if read == 0 || parts.blocking_send(part).is_err() {
                return Ok(());
            }
        }
    });
    let answer = agent.load_image(ReceiverStream::new(stream)).await;
    // A reader that still waits for standard input ends with this process.
    let answer = answer.map_err(Failure::rpc(format!("load {file}")))?.into_inner();
    match reading.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Failure::io(format!("read {file}"), error)),
        Err(_) => return Err(Failure::io(format!("read {file}"), std::io::ErrorKind::Interrupted.into())),
    }
    if global.output == Format::Json {
        return output::json(&json!({"images": answer.references}));
    }
    output::print(&answer.references.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// Where an archive goes: under another name until it is whole.
enum Destination {
    Stdout,
    File { part: PathBuf, file: std::fs::File, path: PathBuf },
}

impl Destination {
    fn open(file: &str) -> Result<Self, Failure> {
        if file == "-" {
            if std::io::stdout().is_terminal() {
                return Err(Failure::Refused {
                    message: "an archive is nothing for a terminal".to_owned(),
                    next: "name a file, or send it to a program".to_owned(),
                });
            }
            return Ok(Self::Stdout);
        }
        let path = Path::new(file).to_owned();
        let part = PathBuf::from(format!("{file}.part"));
        let file =
            std::fs::File::create(&part).map_err(|e| Failure::io(format!("make {}", part.display()), e))?;
        Ok(Self::File { part, file, path })
    }

    fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => std::io::stdout().write_all(data),
            Self::File { file, .. } => file.write_all(data),
        }
    }

    /// The archive is whole, or is not and goes.
    fn end(self, whole: bool) -> std::io::Result<()> {
        match self {
            Self::Stdout => std::io::stdout().flush(),
            Self::File { part, file, path } if whole => {
                file.sync_all()?;
                std::fs::rename(part, path)
            }
            Self::File { part, .. } => std::fs::remove_file(part),
        }
    }
}

async fn save(socket: &AgentSocket, image: String, file: &str) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let mut to = Destination::open(file)?;
    let what = format!("save {image}");
    let saved = async {
        let request = v1::SaveImageRequest { image };
        let mut parts = agent.save_image(request).await.map_err(Failure::rpc(what.clone()))?.into_inner();
        while let Some(part) = parts.message().await.map_err(Failure::rpc(what.clone()))? {
            to.write(&part.data).map_err(|error| Failure::io(format!("write {file}"), error))?;
        }
        Ok(())
    }
    .await;
    let ended = to.end(saved.is_ok()).map_err(|error| Failure::io(format!("write {file}"), error));
    saved.and(ended)
}
