//! Against a real control plane without nodes: definitions, refusals, names, keys, exit codes.

use super::program::{Done, lighter, run};
use lighter_control::config::PlaintextListen;
use lighter_control::{Control, ControlConfig, ControlHandle};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A control plane with its runtime and directory.
pub struct Cluster {
    pub runtime: tokio::runtime::Runtime,
    handle: Option<ControlHandle>,
    pub folder: TempDir,
}

impl Cluster {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        // The one provider of cryptography; set already when another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut config = ControlConfig {
            data_dir: folder.path().join("data"),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            listen_plaintext: vec![PlaintextListen::Unix(folder.path().join("control.sock"))],
            ..ControlConfig::default()
        };
        change(&mut config);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.block_on(Control::start(config)).unwrap();
        Self { runtime, handle: Some(handle), folder }
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        run(&self.folder.path().join("control.sock"), arguments)
    }

    pub fn tls_endpoint(&self) -> String {
        format!("https://{}", self.handle.as_ref().unwrap().addresses()[0])
    }

    /// Over TLS, with a key file.
    fn run_tls(&self, key: &str, arguments: &[&str]) -> Done {
        let mut command = lighter();
        command.args(["--endpoint", &self.tls_endpoint(), "--key", key]).args(arguments);
        command.output().unwrap().into()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub fn web(&self) -> String {
        self.file("web.json", &definition(json!({})).to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
            self.runtime.block_on(handle.join());
        }
    }
}

pub fn definition(container: Value) -> Value {
    let mut web = json!({"name": "web", "image": "r/nginx:1", "memory": 64});
    for (name, value) in container.as_object().unwrap() {
        web[name] = value.clone();
    }
    json!({"family": "web", "containerDefinitions": [web]})
}

#[test]
fn a_definition_is_registered_listed_and_shown_so_that_it_can_be_registered_again() {
    let cluster = Cluster::start();
    let first = cluster.run(&["task-definition", "register", &cluster.web()]);
    assert_eq!((first.code, first.out.as_str()), (0, "web:1\n"), "{}", first.err);
    let shown = cluster.run(&["task-definition", "show", "web"]);
    assert!(shown.err.starts_with("web:1 ACTIVE"), "{}", shown.err);
    let again = cluster.file("again.json", &shown.out);
    let second = cluster.run(&["td", "register", &again, "-o", "json"]);
    let second: Value = serde_json::from_str(&second.out).unwrap();
    assert_eq!(
        (&second["taskDefinition"], &second["definition"]["family"]),
        (&json!("web:2"), &json!("web"))
    );
    let list = cluster.run(&["task-definition", "ls", "-q"]);
    assert_eq!(list.out.lines().collect::<Vec<_>>(), ["web:1", "web:2"]);
    assert_eq!(cluster.run(&["task-definition", "ls", "other", "-q"]).out, "");
}

#[test]
fn a_command_that_asks_too_often_waits_and_asks_again() {
    let reads = Some(lighter_control::rate_limit::Rate { per_second: 4, burst: 1 });
    let cluster = Cluster::start_with(|config| config.rate_limits.reads = reads);
    let begun = std::time::Instant::now();
    // Each reads twice: whether it is led, and the list.
    for _ in 0..2 {
        let done = cluster.run(&["task-definition", "ls", "-q"]);
        assert_eq!((done.code, done.out.as_str()), (0, ""), "{}", done.err);
    }
    assert!(begun.elapsed() >= std::time::Duration::from_millis(750), "{:?}", begun.elapsed());
}

#[test]
fn an_invalid_definition_is_refused_naming_the_field() {
    let cluster = Cluster::start();
    for (container, words) in [
        (json!({"memory": 5}), "containerDefinitions[0].memory"),
        (json!({"memroy": 64}), "containerDefinitions[0].memroy: no such member"),
        (
            json!({"secrets": [{"name": "A", "valueFrom": "arn"}]}),
            "containerDefinitions[0].secrets: not supported yet",
        ),
        (
            json!({"mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]}),
            "containerDefinitions[0].mountPoints[0].sourceVolume",
        ),
        (
            json!({"portMappings": [{"containerPort": 70_000}]}),
            "containerDefinitions[0].portMappings[0].containerPort",
        ),
    ] {
        let file = cluster.file("bad.json", &definition(container).to_string());
        let refused = cluster.run(&["task-definition", "register", &file]);
        assert_eq!((refused.code, refused.out.as_str()), (3, ""));
        assert!(refused.err.contains(words) && refused.err.contains("\n  try: "), "{}", refused.err);
    }
    let missing = cluster.run(&["task-definition", "register", "/nonexistent/x.json"]);
    assert_eq!(missing.code, 4, "{}", missing.err);
}

#[test]
fn without_nodes_a_run_fails_with_ecs_words() {
    let cluster = Cluster::start();
    let file = cluster.web();
    let refused = cluster.run(&["run", &file]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(refused.err.contains("No Container Instances were found in your cluster."), "{}", refused.err);
    assert!(refused.err.contains("lighter agent join"), "{}", refused.err);
    let waited = cluster.run(&["run", "web:1", "--wait"]);
    assert_eq!(waited.code, 125, "{}", waited.err);
    let json = cluster.run(&["run", "web", "-o", "json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["failures"].as_array().map(Vec::len), Some(1));
}

#[test]
fn rm_deregisters_what_the_file_registered() {
    let cluster = Cluster::start();
    let file = cluster.web();
    assert_eq!(cluster.run(&["run", &file, "--rm"]).code, 125);
    assert_eq!(cluster.run(&["task-definition", "ls", "-q"]).out, "");
    assert_eq!(cluster.run(&["task-definition", "ls", "-q", "--inactive"]).out, "web:1\n");
}

#[test]
fn what_is_not_there_is_exit_code_4_and_says_where_to_look() {
    let cluster = Cluster::start();
    for (arguments, next) in [
        (&["task", "show", "0123abcd"][..], "try: lighter ps -a"),
        (&["task", "show", "web"], "try: lighter ps -a"),
        (&["task", "show", "a b/c"], "try: lighter ps -a"),
        (&["logs", "web"], "try: lighter ps -a"),
        (&["stop", "web", "--reason", "x"], "try: lighter ps -a"),
        (&["node", "show", "n1"], "try: lighter node ls"),
        (&["ps", "--node", "n1"], "try: lighter node ls"),
        (&["task-definition", "show", "web"], "try: lighter task-definition ls"),
        (&["run", "web"], "try: lighter task-definition ls"),
        (&["ps", "--cluster", "nope"], "try: "),
    ] {
        let done = cluster.run(arguments);
        assert_eq!(done.code, 4, "{arguments:?}: {}", done.err);
        assert!(done.err.starts_with("error: ") && done.err.contains(next), "{arguments:?}: {}", done.err);
    }
}

#[test]
fn empty_lists_are_empty_tables_and_empty_json() {
    let cluster = Cluster::start();
    for command in [&["ps", "-a"][..], &["node", "ls"]] {
        assert_eq!(cluster.run(command).out.lines().count(), 1);
        let json: Value =
            serde_json::from_str(&cluster.run(&[command, &["-o", "json"]].concat()).out).unwrap();
        assert_eq!(json, json!([]));
        assert_eq!(cluster.run(&[command, &["-q"]].concat()).out, "");
    }
}

#[test]
fn the_key_opens_the_tls_door_and_nothing_else_does() {
    let cluster = Cluster::start();
    let key = cluster.handle.as_ref().unwrap().admin_key_path().display().to_string();
    let done = cluster.run_tls(&key, &["node", "ls"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let copy = cluster.file("copy.pem", &std::fs::read_to_string(&key).unwrap());
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o644)).unwrap();
    let open = cluster.run_tls(&copy, &["node", "ls"]);
    assert_eq!(open.code, 6, "{}", open.err);
    assert!(open.err.contains("0644") && open.err.contains("chmod 600"), "{}", open.err);
    let empty = cluster.file("empty.pem", "");
    std::fs::set_permissions(&empty, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(cluster.run_tls(&empty, &["node", "ls"]).code, 6);
    // A key of another control plane: each side refuses the other.
    let stranger = Cluster::start();
    let strange_key = stranger.handle.as_ref().unwrap().admin_key_path().display().to_string();
    assert_eq!(cluster.run_tls(&strange_key, &["node", "ls"]).code, 5);
}

#[test]
fn usage_and_reachability_have_their_codes() {
    let run = |arguments: &[&str]| -> Done { lighter().args(arguments).output().unwrap().into() };
    assert_eq!(run(&["frobnicate"]).code, 2);
    assert_eq!(run(&["run", "web", "--count", "none"]).code, 2);
    assert_eq!(run(&["--endpoint", "http://10.1.2.3:1", "ps"]).code, 2);
    let away = run(&["--endpoint", "unix:///nonexistent/control.sock", "ps"]);
    assert_eq!(away.code, 5);
    assert!(away.err.contains("No such file or directory"), "{}", away.err);
    assert_eq!(run(&["system", "df"]).code, 5);
    assert_eq!(run(&["--help"]).code, 0);
}

#[test]
fn a_token_is_alone_on_standard_output() {
    let cluster = Cluster::start();
    let token = cluster.run(&["token", "create", "--ttl", "30m"]);
    assert_eq!(token.code, 0, "{}", token.err);
    assert!(token.out.starts_with("lighter1.") && token.out.lines().count() == 1, "{}", token.out);
    assert!(token.err.contains("lighter agent join"), "{}", token.err);
    assert_eq!(cluster.run(&["token", "create", "-q"]).err, "");
    assert_eq!(cluster.run(&["token", "create", "--ttl", "2d"]).code, 3);
}

#[test]
fn a_machine_joins_with_a_token_once() {
    let cluster = Cluster::start();
    let control = cluster.tls_endpoint();
    let token = cluster.run(&["token", "create", "-q"]).out.trim().to_owned();
    let folder = cluster.folder.path().join("node").display().to_string();
    let join = |token: &str, more: &[&str]| -> Done {
        let mut command = lighter();
        command
            .args(["agent", "join", &control, "--token", token, "--name", "n1", "--data-dir", &folder])
            .args(more);
        command.output().unwrap().into()
    };
    let joined = join(&token, &["-o", "json"]);
    assert_eq!(joined.code, 0, "{}", joined.err);
    let joined: Value = serde_json::from_str(&joined.out).unwrap();
    let mode = std::fs::metadata(joined["credentials"].as_str().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let shown: Value = serde_json::from_str(&cluster.run(&["node", "show", "n1", "-o", "json"]).out).unwrap();
    assert_eq!(shown["containerInstanceId"], joined["containerInstanceId"]);
    assert_eq!(shown["agentConnected"], false);
    let twice = join(&token, &[]);
    assert!(twice.code == 3 && twice.err.contains("--force"), "{}", twice.err);
    let used = join(&token, &["--force"]);
    assert!(used.code == 3 && used.err.contains("used already"), "{}", used.err);
    // The token pins the CA: another control plane is not believed, and learns nothing.
    let stranger = Cluster::start();
    let strange = stranger.run(&["token", "create", "-q"]).out.trim().to_owned();
    assert_eq!(join(&strange, &["--force"]).code, 5);
}

#[test]
fn events_tell_what_happened_in_order() {
    let cluster = Cluster::start();
    cluster.run(&["task-definition", "register", &cluster.web()]);
    let events = cluster.run(&["events", "-o", "json"]);
    let events: Vec<Value> = events.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["taskDefinition"]["taskDefinition"], "web:1");
    assert!(cluster.run(&["events"]).out.contains("task definition web:1 ACTIVE"));
    let after = events[0]["sequence"].to_string();
    assert_eq!(cluster.run(&["events", "--after", &after]).out, "");
}

#[test]
fn completion_scripts_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = lighter().args(["completion", shell]).output().unwrap();
        assert!(String::from_utf8(script.stdout).unwrap().contains("task-definition"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let full = PathBuf::from("/dev/full");
    let script =
        lighter().args(["completion", "bash"]).stdout(std::fs::File::create(full).unwrap()).output().unwrap();
    let done = Done::from(script);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("No space left on device"), "{}", done.err);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = Done::from(lighter().args(["completion", "bash"]).stdout(writer).output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (0, ""));
}

#[test]
fn images_of_nodes_that_are_not_there_are_refused_by_name_and_options_belong_together() {
    let cluster = Cluster::start();
    let gone = cluster.run(&["image", "pull", "r/web:1", "--node", "n1"]);
    assert_eq!(gone.code, 4, "{}", gone.err);
    assert!(gone.err.contains("there is no container instance \"n1\""), "{}", gone.err);
    let none = cluster.run(&["image", "ls", "--all"]);
    assert_eq!(none.code, 4, "{}", none.err);
    assert!(none.err.contains("no active node"), "{}", none.err);
    assert_eq!(cluster.run(&["image", "ls", "--all", "--cluster", "default"]).code, 4);
    let of_definition = ["image", "pull", "--task-definition", "web:9", "--all"];
    assert_eq!(cluster.run(&of_definition).code, 4);
    for usage in [
        &["image", "pull", "--all"][..],
        &["image", "pull", "--task-definition", "web:1"],
        &["image", "pull", "a", "--all", "--node", "n1"],
        &["image", "prune", "--cluster", "x"],
    ] {
        assert_eq!(cluster.run(usage).code, 2, "{usage:?}");
    }
}
