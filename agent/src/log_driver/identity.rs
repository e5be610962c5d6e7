//! Who a container is, as sinks are told. In: its record, the node's names. Out: texts. Pure.
//! Never: a secret; of the environment only what the definition's `env` option names.

use crate::store::records::LogDeliveryRecord;
use lighter_model::task_definition::log::{SinkSettings, TagField, TagTemplate};

/// Digits of the task's id in the short one. The id's beginning is a time, its end is random.
const SHORT_ID_DIGITS: usize = 12;

/// The node's own names.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeNames {
    pub cluster: String,
    pub host: String,
}

#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) tag: String,
    pub(super) short_id: String,
    pub(super) full_id: String,
    pub(super) container: String,
    pub(super) image: String,
    pub(super) task: String,
    pub(super) family: String,
    pub(super) cluster: String,
    pub(super) host: String,
    /// Chosen labels and variables.
    pub(super) extra: Vec<(String, String)>,
}

impl Identity {
    pub(super) fn new(record: &LogDeliveryRecord, sink: &SinkSettings, node: &NodeNames) -> Self {
        let (task, container) = (record.task.to_string(), record.container.to_string());
        let end = &task[task.len().saturating_sub(SHORT_ID_DIGITS)..];
        let mut identity = Self {
            tag: String::new(),
            short_id: format!("{end}-{container}"),
            full_id: format!("{task}-{container}"),
            container,
            image: record.image.clone(),
            task,
            family: record.family.clone(),
            cluster: node.cluster.clone(),
            host: node.host.clone(),
            extra: record.extra.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        };
        identity.tag = tag_of(sink).render(|field| identity.field(field));
        identity
    }

    fn field(&self, field: TagField) -> String {
        match field {
            TagField::Id => self.short_id.clone(),
            TagField::FullId => self.full_id.clone(),
            TagField::Name => self.container.clone(),
            TagField::ImageName => self.image.clone(),
            TagField::TaskId => self.task.clone(),
            TagField::Family => self.family.clone(),
            TagField::Cluster => self.cluster.clone(),
            TagField::DaemonName => "lighter".to_owned(),
        }
    }
}

fn tag_of(sink: &SinkSettings) -> TagTemplate {
    match sink {
        SinkSettings::Files | SinkSettings::Nothing => TagTemplate::default(),
        SinkSettings::Journald(attributes) => attributes.tag.clone(),
        SinkSettings::Syslog(syslog) => syslog.tag.clone(),
        SinkSettings::Fluentd(fluentd) => fluentd.attributes.tag.clone(),
        SinkSettings::Http(http) => http.attributes.tag.clone(),
    }
}
