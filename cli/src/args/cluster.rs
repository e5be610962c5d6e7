//! Arguments of the commands about clusters, tags and attributes. In: arguments. Out: values.
//! Never: acts.

use super::pair;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster; one that is there already stays as it is
    Create {
        /// 1 to 255 letters, digits, hyphens, underscores
        name: String,
        /// Like defaultPropagateTags=TASK_DEFINITION; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        setting: Vec<(String, String)>,
        /// May be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
        tag: Vec<(String, String)>,
    },
    /// List clusters
    Ls,
    /// Everything about a cluster
    Show {
        #[arg(default_value = "default")]
        name: String,
    },
    /// Change settings
    Update {
        name: String,
        /// defaultPropagateTags=NONE or =TASK_DEFINITION: whether new tasks take over their definition's tags
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair,
              required_unless_present = "release_brake")]
        setting: Vec<(String, String)>,
        /// Replace lost tasks although many nodes are silent; nodes that fall silent later count anew
        #[arg(long)]
        release_brake: bool,
    },
    /// Delete a cluster that has no nodes and no tasks; it can be shown as INACTIVE for a day
    Rm { name: String },
}

#[derive(Debug, Subcommand)]
pub enum OrphanCommand {
    /// List orphans
    Ls {
        /// Only of this node: name, id, or the beginning of one
        #[arg(long)]
        node: Option<String>,
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Make it a task of the cluster; it runs on
    Adopt {
        /// Id, or the beginning of one
        task: String,
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Make it a task of the cluster, and stop it
    Stop {
        /// Id, or the beginning of one
        task: String,
        /// Why; kept with the task
        #[arg(long)]
        reason: Option<String>,
        #[arg(long)]
        cluster: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum TagCommand {
    /// Set tags
    Add {
        /// cluster/NAME, task-definition/FAMILY:REVISION, container-instance/CLUSTER/ID, task/CLUSTER/ID, service/CLUSTER/NAME, or an ARN
        resource: String,
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = pair)]
        tags: Vec<(String, String)>,
    },
    /// Take tags away
    Rm {
        /// As for `tag add`
        resource: String,
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// List the tags of a resource
    Ls {
        /// As for `tag add`
        resource: String,
    },
}

#[derive(Debug, Args)]
pub struct AttributeArgs {
    /// Name, id, or the beginning of one
    pub node: String,
    /// NAME=VALUE sets an attribute, NAME- takes it away; none lists them all
    pub changes: Vec<String>,
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Debug, Args)]
pub struct RemoveNodeArgs {
    /// Name, id, or the beginning of one
    pub node: String,
    /// Although it has tasks: they run on there, and are no longer known here
    #[arg(long)]
    pub force: bool,
    #[arg(long)]
    pub cluster: Option<String>,
}
