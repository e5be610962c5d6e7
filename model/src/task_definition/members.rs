//! The list itself: every member of ECS's `RegisterTaskDefinition` input, with what Lighter does with it.
//! In: nothing. Out: `MEMBERS`, in the order of ECS's reference. Owns: the list, nothing else.
//! Never: lists a member as supported without the test that shows it.
//! Source: Amazon ECS API reference, RegisterTaskDefinition and the types it names.

use super::options::{CAPABILITIES, ULIMITS};
use super::support::{Member, Shape, Support};

const fn required(path: &'static str, shape: Shape, test: &'static str) -> Member {
    Member { path, shape, support: Support::Supported { required: true, test } }
}

const fn optional(path: &'static str, shape: Shape, test: &'static str) -> Member {
    Member { path, shape, support: Support::Supported { required: false, test } }
}

const fn checked(path: &'static str, shape: Shape, test: &'static str) -> Member {
    Member { path, shape, support: Support::Checked { test } }
}

const fn refused(path: &'static str, within: &'static [&'static str], why: &'static str) -> Member {
    Member { path, shape: Shape::Any, support: Support::Refused { why, harmless: &[], within } }
}

const fn refused_but(path: &'static str, harmless: &'static [&'static str], why: &'static str) -> Member {
    Member { path, shape: Shape::Any, support: Support::Refused { why, harmless, within: &[] } }
}

const NOT_YET: &str = "not supported yet";
const OUTPUT: &str = "only in the output of describe-task-definition; take it out";

/// The least memory of a container, in MiB (ECS; Docker's own minimum).
pub const MEMORY_MIB_MIN: u64 = 6;
const MEMORY: Shape = Shape::Whole { min: MEMORY_MIB_MIN, max: 1 << 30 };
/// 192 vCPUs, ECS's largest task-level amount.
pub(super) const CPU_UNITS_MAX: u64 = 196_608;
/// No bound, as on ECS's own instances: 136 years are what the field holds.
const STOP_TIMEOUT_S_MAX: u64 = u32::MAX as u64;
/// The largest amount of memory that can be written, in MiB.
const MIB_MAX: u64 = 1 << 30;

/// What tmpfs understands of ECS's list of mount options. `size` says how large it is, so `nr_blocks` is not here.
pub const TMPFS_OPTIONS: &[&str] = &[
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
/// Those that are written with a value, like `mode=1777` (tmpfs(5)).
pub const TMPFS_OPTIONS_WITH_VALUE: &[&str] = &["mode", "uid", "gid", "nr_inodes", "mpol"];

pub(super) const MEMBERS: &[Member] = &[
    required("family", Shape::Name, "run_and_fetch"),
    refused("taskRoleArn", &[], "IAM roles are not supported yet"),
    refused(
        "executionRoleArn",
        &[],
        "IAM roles are not supported yet; registry logins are in the agent's file",
    ),
    optional("networkMode", Shape::OneOf(&["bridge", "host", "none"]), "host_and_none_network"),
    required("containerDefinitions", Shape::List, "run_and_fetch"),
    optional("volumes", Shape::List, "volumes_are_kept_and_removed"),
    refused("placementConstraints", &["type", "expression"], "placement constraints are not supported yet"),
    checked(
        "requiresCompatibilities",
        Shape::ListOf(&["EC2", "EXTERNAL"]),
        "compatibilities_other_than_ec2_and_external_are_refused",
    ),
    optional("cpu", Shape::CpuAmount, "a_limit_of_the_task_holds_for_its_containers_together"),
    optional("memory", Shape::MemoryAmount, "a_limit_of_the_task_holds_for_its_containers_together"),
    // Ours: ECS has it as a setting of the node alone.
    optional(
        "pullBehavior",
        Shape::OneOf(&["default", "always", "once", "prefer-cached"]),
        "a_task_chooses_its_own_pull_behaviour",
    ),
    optional("tags", Shape::List, "tags_of_a_definition_are_kept_beside_it_and_handed_to_tasks"),
    required("tags[].key", Shape::Text, "tags_of_a_definition_are_kept_beside_it_and_handed_to_tasks"),
    optional("tags[].value", Shape::Text, "tags_of_a_definition_are_kept_beside_it_and_handed_to_tasks"),
    optional(
        "pidMode",
        Shape::OneOf(&["host", "task"]),
        "containers_of_a_task_share_processes_until_the_last_ends",
    ),
    optional(
        "ipcMode",
        Shape::OneOf(&["host", "task", "none"]),
        "containers_of_a_task_share_memory_and_nobody_else_does",
    ),
    // Ours: Docker has it as a setting of the daemon, podman as --userns=auto.
    optional(
        "usernsMode",
        Shape::OneOf(&["host", "auto"]),
        "root_of_a_user_namespace_is_nobody_on_the_host_and_owns_its_files",
    ),
    refused(
        "proxyConfiguration",
        &["type", "containerName", "properties", "name", "value"],
        "App Mesh is not supported",
    ),
    refused("inferenceAccelerators", &["deviceName", "deviceType"], "Elastic Inference is not supported"),
    refused("ephemeralStorage", &["sizeInGiB"], "only Fargate has it"),
    checked("runtimePlatform", Shape::Object, "a_default_runtime_platform_is_accepted"),
    refused("enableFaultInjection", &[], NOT_YET),
    refused("trustedExecutionConfiguration", &["type", "enabled"], NOT_YET),
    refused("taskDefinitionArn", &[], OUTPUT),
    refused("revision", &[], OUTPUT),
    refused("status", &[], OUTPUT),
    refused("requiresAttributes", &["name", "value", "targetType", "targetId"], OUTPUT),
    refused("compatibilities", &[], OUTPUT),
    refused("registeredAt", &[], OUTPUT),
    refused("registeredBy", &[], OUTPUT),
    refused("deregisteredAt", &[], OUTPUT),
    // ContainerDefinition
    required("containerDefinitions[].name", Shape::Name, "run_and_fetch"),
    required("containerDefinitions[].image", Shape::Text, "run_and_fetch"),
    refused(
        "containerDefinitions[].repositoryCredentials",
        &["credentialsParameter"],
        "Secrets Manager is not supported; registry logins are in the agent's file",
    ),
    optional(
        "containerDefinitions[].cpu",
        Shape::Whole { min: 0, max: 262_144 },
        "cpu_quota_is_a_quarter_of_a_core",
    ),
    optional("containerDefinitions[].memory", MEMORY, "memory_limit_ends_in_out_of_memory_error"),
    optional("containerDefinitions[].memoryReservation", MEMORY, "limits_are_numbers_of_the_kernel"),
    optional(
        "containerDefinitions[].links",
        Shape::WordList,
        "ranges_links_and_variables_of_real_containers",
    ),
    optional("containerDefinitions[].portMappings", Shape::List, "ports_static_and_dynamic"),
    optional("containerDefinitions[].essential", Shape::Flag, "essential_exit_stops_the_others"),
    optional(
        "containerDefinitions[].restartPolicy",
        Shape::Object,
        "a_container_is_started_again_where_it_was",
    ),
    optional(
        "containerDefinitions[].entryPoint",
        Shape::TextList,
        "entrypoint_and_command_combine_as_docker_combines_them",
    ),
    optional(
        "containerDefinitions[].command",
        Shape::TextList,
        "entrypoint_and_command_combine_as_docker_combines_them",
    ),
    optional(
        "containerDefinitions[].environment",
        Shape::List,
        "environment_is_layered_and_has_what_every_program_expects",
    ),
    optional(
        "containerDefinitions[].environmentFiles",
        Shape::List,
        "ranges_links_and_variables_of_real_containers",
    ),
    optional("containerDefinitions[].mountPoints", Shape::List, "volumes_are_kept_and_removed"),
    optional("containerDefinitions[].volumesFrom", Shape::List, "volumes_are_kept_and_removed"),
    optional(
        "containerDefinitions[].linuxParameters",
        Shape::Object,
        "devices_are_closed_but_for_those_allowed",
    ),
    refused("containerDefinitions[].secrets", &["name", "valueFrom"], NOT_YET),
    optional("containerDefinitions[].dependsOn", Shape::List, "init_main_and_sidecar_come_in_order"),
    optional(
        "containerDefinitions[].startTimeout",
        Shape::Whole { min: 0, max: STOP_TIMEOUT_S_MAX },
        "what_does_not_come_in_time_ends_the_task",
    ),
    optional(
        "containerDefinitions[].stopTimeout",
        Shape::Whole { min: 0, max: STOP_TIMEOUT_S_MAX },
        "stop_without_sigterm_handler",
    ),
    optional(
        "containerDefinitions[].versionConsistency",
        Shape::OneOf(&["enabled", "disabled"]),
        "a_tag_is_pinned_for_all_tasks_of_a_revision",
    ),
    optional(
        "containerDefinitions[].hostname",
        Shape::Text,
        "a_container_runs_and_its_exit_code_and_output_are_kept",
    ),
    optional(
        "containerDefinitions[].user",
        Shape::Text,
        "users_groups_and_working_directories_are_those_of_the_definition",
    ),
    optional(
        "containerDefinitions[].workingDirectory",
        Shape::Text,
        "users_groups_and_working_directories_are_those_of_the_definition",
    ),
    optional(
        "containerDefinitions[].disableNetworking",
        Shape::Flag,
        "ranges_links_and_variables_of_real_containers",
    ),
    optional(
        "containerDefinitions[].privileged",
        Shape::Flag,
        "a_privileged_container_is_unconfined_only_where_that_is_allowed",
    ),
    optional(
        "containerDefinitions[].readonlyRootFilesystem",
        Shape::Flag,
        "a_read_only_root_file_system_is_read_only_and_its_tmpfs_and_volumes_are_not",
    ),
    optional(
        "containerDefinitions[].dnsServers",
        Shape::WordList,
        "servers_and_domains_of_the_definition_replace_the_nodes",
    ),
    optional(
        "containerDefinitions[].dnsSearchDomains",
        Shape::WordList,
        "servers_and_domains_of_the_definition_replace_the_nodes",
    ),
    optional("containerDefinitions[].extraHosts", Shape::List, "a_link_is_a_name_in_the_hosts_file"),
    optional(
        "containerDefinitions[].dockerSecurityOptions",
        Shape::WordList,
        "seccomp_can_be_left_out_only_where_that_is_allowed",
    ),
    optional(
        "containerDefinitions[].interactive",
        Shape::Flag,
        "an_interactive_container_reads_what_attachers_write",
    ),
    optional(
        "containerDefinitions[].pseudoTerminal",
        Shape::Flag,
        "a_container_with_a_terminal_has_it_logged_and_attachers_may_resize_it",
    ),
    optional("containerDefinitions[].dockerLabels", Shape::TextMap, "labels_are_annotations_of_the_spec"),
    optional(
        "containerDefinitions[].groups",
        Shape::WordList,
        "users_groups_and_working_directories_are_those_of_the_definition",
    ),
    optional("containerDefinitions[].ulimits", Shape::List, "ulimits_and_kernel_parameters_are_in_force"),
    optional(
        "containerDefinitions[].logConfiguration",
        Shape::Object,
        "log_drivers_are_accepted_with_their_options",
    ),
    optional("containerDefinitions[].healthCheck", Shape::Object, "health_is_reported_and_only_its_changes"),
    optional(
        "containerDefinitions[].systemControls",
        Shape::List,
        "ulimits_and_kernel_parameters_are_in_force",
    ),
    optional(
        "containerDefinitions[].resourceRequirements",
        Shape::List,
        "a_device_is_given_to_one_container_at_a_time",
    ),
    refused("containerDefinitions[].firelensConfiguration", &["type", "options"], NOT_YET),
    refused("containerDefinitions[].credentialSpecs", &[], "only Windows has it"),
    // ContainerDependency
    required(
        "containerDefinitions[].dependsOn[].containerName",
        Shape::Name,
        "init_main_and_sidecar_come_in_order",
    ),
    required(
        "containerDefinitions[].dependsOn[].condition",
        Shape::OneOf(&["START", "COMPLETE", "SUCCESS", "HEALTHY"]),
        "init_main_and_sidecar_come_in_order",
    ),
    // HealthCheck; the last two are ours
    optional(
        "containerDefinitions[].healthCheck.command",
        Shape::TextList,
        "health_is_reported_and_only_its_changes",
    ),
    optional(
        "containerDefinitions[].healthCheck.interval",
        Shape::Whole { min: 5, max: 300 },
        "a_check_follows_docker_and_a_slow_reference",
    ),
    optional(
        "containerDefinitions[].healthCheck.timeout",
        Shape::Whole { min: 2, max: 60 },
        "a_check_follows_docker_and_a_slow_reference",
    ),
    optional(
        "containerDefinitions[].healthCheck.retries",
        Shape::Whole { min: 1, max: 10 },
        "a_check_follows_docker_and_a_slow_reference",
    ),
    optional(
        "containerDefinitions[].healthCheck.startPeriod",
        Shape::Whole { min: 0, max: 300 },
        "a_check_follows_docker_and_a_slow_reference",
    ),
    optional(
        "containerDefinitions[].healthCheck.fromImage",
        Shape::Flag,
        "the_images_check_counts_only_when_asked_for",
    ),
    optional(
        "containerDefinitions[].healthCheck.onUnhealthy",
        Shape::OneOf(&["report", "restart", "stop"]),
        "an_unhealthy_container_is_reported_restarted_or_ends_its_task",
    ),
    // ContainerRestartPolicy
    required(
        "containerDefinitions[].restartPolicy.enabled",
        Shape::Flag,
        "a_container_is_started_again_where_it_was",
    ),
    optional(
        "containerDefinitions[].restartPolicy.ignoredExitCodes",
        Shape::WholeList { min: 0, max: 255 },
        "a_restart_follows_ecs",
    ),
    optional(
        "containerDefinitions[].restartPolicy.restartAttemptPeriod",
        Shape::Whole { min: 0, max: 1800 },
        "a_restart_follows_ecs",
    ),
    // PortMapping
    optional(
        "containerDefinitions[].portMappings[].containerPort",
        Shape::Whole { min: 0, max: 65_535 },
        "ports_static_and_dynamic",
    ),
    optional(
        "containerDefinitions[].portMappings[].hostPort",
        Shape::Whole { min: 0, max: 65_535 },
        "ports_static_and_dynamic",
    ),
    optional("containerDefinitions[].portMappings[].protocol", Shape::OneOf(&["tcp", "udp"]), "ports_udp"),
    refused("containerDefinitions[].portMappings[].name", &[], "Service Connect is not supported yet"),
    refused("containerDefinitions[].portMappings[].appProtocol", &[], "Service Connect is not supported yet"),
    optional(
        "containerDefinitions[].portMappings[].containerPortRange",
        Shape::PortRange,
        "ranges_links_and_variables_of_real_containers",
    ),
    // KeyValuePair
    required(
        "containerDefinitions[].environment[].name",
        Shape::Text,
        "environment_is_layered_and_has_what_every_program_expects",
    ),
    optional(
        "containerDefinitions[].environment[].value",
        Shape::Text,
        "environment_is_layered_and_has_what_every_program_expects",
    ),
    // ResourceRequirement
    required(
        "containerDefinitions[].resourceRequirements[].type",
        Shape::Name,
        "a_device_is_given_to_one_container_at_a_time",
    ),
    required(
        "containerDefinitions[].resourceRequirements[].value",
        Shape::Text,
        "a_device_is_given_to_one_container_at_a_time",
    ),
    // EnvironmentFile
    required(
        "containerDefinitions[].environmentFiles[].value",
        Shape::Text,
        "variables_come_from_files_of_allowed_directories",
    ),
    required(
        "containerDefinitions[].environmentFiles[].type",
        Shape::OneOf(&["file"]),
        "variables_come_from_files_of_allowed_directories",
    ),
    // HostEntry
    required(
        "containerDefinitions[].extraHosts[].hostname",
        Shape::Text,
        "a_link_is_a_name_in_the_hosts_file",
    ),
    required(
        "containerDefinitions[].extraHosts[].ipAddress",
        Shape::Text,
        "a_link_is_a_name_in_the_hosts_file",
    ),
    // Ulimit
    required(
        "containerDefinitions[].ulimits[].name",
        Shape::OneOf(ULIMITS),
        "ulimits_and_kernel_parameters_are_in_force",
    ),
    required(
        "containerDefinitions[].ulimits[].softLimit",
        Shape::Limit,
        "ulimits_and_kernel_parameters_are_in_force",
    ),
    required(
        "containerDefinitions[].ulimits[].hardLimit",
        Shape::Limit,
        "ulimits_and_kernel_parameters_are_in_force",
    ),
    // SystemControl
    required(
        "containerDefinitions[].systemControls[].namespace",
        Shape::Text,
        "ulimits_and_kernel_parameters_are_in_force",
    ),
    required(
        "containerDefinitions[].systemControls[].value",
        Shape::Text,
        "ulimits_and_kernel_parameters_are_in_force",
    ),
    // MountPoint
    required(
        "containerDefinitions[].mountPoints[].sourceVolume",
        Shape::Name,
        "volumes_are_kept_and_removed",
    ),
    required(
        "containerDefinitions[].mountPoints[].containerPath",
        Shape::Text,
        "volumes_are_kept_and_removed",
    ),
    optional("containerDefinitions[].mountPoints[].readOnly", Shape::Flag, "volumes_are_kept_and_removed"),
    // VolumeFrom
    required(
        "containerDefinitions[].volumesFrom[].sourceContainer",
        Shape::Name,
        "volumes_are_kept_and_removed",
    ),
    optional("containerDefinitions[].volumesFrom[].readOnly", Shape::Flag, "volumes_are_kept_and_removed"),
    // LinuxParameters
    optional(
        "containerDefinitions[].linuxParameters.capabilities",
        Shape::Object,
        "capabilities_are_added_and_dropped",
    ),
    optional(
        "containerDefinitions[].linuxParameters.devices",
        Shape::List,
        "devices_are_closed_but_for_those_allowed",
    ),
    optional(
        "containerDefinitions[].linuxParameters.initProcessEnabled",
        Shape::Flag,
        "an_init_process_reaps_and_hands_signals_on",
    ),
    optional(
        "containerDefinitions[].linuxParameters.sharedMemorySize",
        Shape::Whole { min: 0, max: MIB_MAX },
        "shared_memory_has_the_size_of_the_definition",
    ),
    optional("containerDefinitions[].linuxParameters.tmpfs", Shape::List, "volumes_are_kept_and_removed"),
    optional(
        "containerDefinitions[].linuxParameters.maxSwap",
        Shape::Whole { min: 0, max: MIB_MAX },
        "swap_is_none_unless_the_definition_says_how_much",
    ),
    refused_but(
        "containerDefinitions[].linuxParameters.swappiness",
        &["60"],
        "cgroup v2 has no swappiness of a container; maxSwap says how much may be swapped out",
    ),
    // KernelCapabilities
    optional(
        "containerDefinitions[].linuxParameters.capabilities.add",
        Shape::ListOf(CAPABILITIES),
        "capabilities_are_added_and_dropped",
    ),
    optional(
        "containerDefinitions[].linuxParameters.capabilities.drop",
        Shape::ListOf(CAPABILITIES),
        "capabilities_are_added_and_dropped",
    ),
    // Device
    required(
        "containerDefinitions[].linuxParameters.devices[].hostPath",
        Shape::Text,
        "devices_are_closed_but_for_those_allowed",
    ),
    optional(
        "containerDefinitions[].linuxParameters.devices[].containerPath",
        Shape::Text,
        "devices_are_closed_but_for_those_allowed",
    ),
    optional(
        "containerDefinitions[].linuxParameters.devices[].permissions",
        Shape::ListOf(&["read", "write", "mknod"]),
        "devices_are_closed_but_for_those_allowed",
    ),
    // Tmpfs
    required(
        "containerDefinitions[].linuxParameters.tmpfs[].containerPath",
        Shape::Text,
        "volumes_are_kept_and_removed",
    ),
    required(
        "containerDefinitions[].linuxParameters.tmpfs[].size",
        Shape::Whole { min: 1, max: 1 << 30 },
        "a_read_only_root_file_system_is_read_only_and_its_tmpfs_and_volumes_are_not",
    ),
    optional(
        "containerDefinitions[].linuxParameters.tmpfs[].mountOptions",
        Shape::TextList,
        "a_read_only_root_file_system_is_read_only_and_its_tmpfs_and_volumes_are_not",
    ),
    // LogConfiguration
    required(
        "containerDefinitions[].logConfiguration.logDriver",
        Shape::Text,
        "log_drivers_are_accepted_with_their_options",
    ),
    optional(
        "containerDefinitions[].logConfiguration.options",
        Shape::TextMap,
        "log_drivers_are_accepted_with_their_options",
    ),
    refused("containerDefinitions[].logConfiguration.secretOptions", &["name", "valueFrom"], NOT_YET),
    // Volume
    required("volumes[].name", Shape::Name, "volumes_are_kept_and_removed"),
    optional("volumes[].host", Shape::Object, "volumes_are_kept_and_removed"),
    optional("volumes[].dockerVolumeConfiguration", Shape::Object, "volumes_are_kept_and_removed"),
    refused(
        "volumes[].efsVolumeConfiguration",
        &[
            "fileSystemId",
            "rootDirectory",
            "transitEncryption",
            "transitEncryptionPort",
            "authorizationConfig",
            "accessPointId",
            "iam",
        ],
        NOT_YET,
    ),
    refused(
        "volumes[].fsxWindowsFileServerVolumeConfiguration",
        &["fileSystemId", "rootDirectory", "authorizationConfig", "credentialsParameter", "domain"],
        "only Windows has it",
    ),
    refused(
        "volumes[].s3filesVolumeConfiguration",
        &["fileSystemArn", "rootDirectory", "transitEncryptionPort", "accessPointArn"],
        NOT_YET,
    ),
    refused("volumes[].configuredAtLaunch", &[], "EBS volumes are not supported yet"),
    optional("volumes[].host.sourcePath", Shape::Text, "volumes_are_kept_and_removed"),
    optional(
        "volumes[].dockerVolumeConfiguration.scope",
        Shape::OneOf(&["task", "shared"]),
        "volumes_are_kept_and_removed",
    ),
    optional(
        "volumes[].dockerVolumeConfiguration.autoprovision",
        Shape::Flag,
        "volumes_are_kept_and_removed",
    ),
    refused_but(
        "volumes[].dockerVolumeConfiguration.driver",
        &["local"],
        "volume plug-ins are not supported yet",
    ),
    refused("volumes[].dockerVolumeConfiguration.driverOpts", &[], NOT_YET),
    optional("volumes[].dockerVolumeConfiguration.labels", Shape::TextMap, "volumes_of_every_kind"),
    // RuntimePlatform
    refused_but(
        "runtimePlatform.cpuArchitecture",
        &["X86_64"],
        "choosing nodes by architecture is not supported yet",
    ),
    refused_but("runtimePlatform.operatingSystemFamily", &["LINUX"], "nodes run Linux"),
];
