//! Variables that come from files of the node (`environmentFiles` of type `file`).
//! In: paths, the directories that the node's own file allows. Out: `NAME=value` lines.
//! Owns nothing. Never: reads a file outside those directories, wherever a link leads; a file that
//! is no file or larger than 1 MiB; interprets quotes or variables (as ECS and Docker).
//! Source: Amazon ECS developer guide, "Pass an environment variable to an Amazon ECS container".

use super::prepare::Failure;
use crate::config::AgentConfig;
use crate::errors::chain;
use crate::policy::{HostPathError, existing_file_below};
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::TaskDefinition;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// For each container the lines of each of its files, in the definition's order.
pub(super) type Variables = BTreeMap<ContainerName, Vec<Vec<String>>>;

/// Why a file of variables cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Path(#[from] HostPathError),
    #[error("environment file {path:?} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("environment file {path:?}, line {line}: is not NAME=value")]
    Line { path: PathBuf, line: usize },
}

/// Reads the files of every container. Blocks for as long as the disk takes.
pub(super) fn read_all(config: &AgentConfig, definition: &TaskDefinition) -> Result<Variables, Failure> {
    let mut all = Variables::new();
    for container in definition.container_definitions.iter().filter(|c| !c.environment_files.is_empty()) {
        let files = container.environment_files.iter().map(|file| read(config, Path::new(&file.value)));
        let lines = files.collect::<Result<Vec<_>, _>>().map_err(|error| {
            let text = format!("container {}: {}", container.name, chain(&error));
            Failure::words("ResourceInitializationError", text)
        })?;
        all.insert(container.name.clone(), lines);
    }
    Ok(all)
}

fn read(config: &AgentConfig, path: &Path) -> Result<Vec<String>, FileError> {
    let real = existing_file_below(path, &config.allow_environment_files)?;
    let failed = |source| FileError::Read { path: path.to_path_buf(), source };
    // The real path has no link; should one appear now, it is not followed.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(real).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 1 MiB")));
    }
    parse(&text).map_err(|line| FileError::Line { path: path.to_path_buf(), line })
}

/// The lines that are no comment; else the number of the first wrong one.
fn parse(text: &str) -> Result<Vec<String>, usize> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, _)) if is_name(name) && !line.contains('\0') => lines.push(line.to_owned()),
            _ => return Err(index + 1),
        }
    }
    Ok(lines)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AllowHostPaths;

    #[test]
    fn lines_are_kept_as_they_are_but_for_comments() {
        let lines = parse("# a comment\nA=1\n\n  B=\"x y\" \nC=a=b\r\nD=").unwrap();
        assert_eq!(lines, ["A=1", "B=\"x y\" ", "C=a=b", "D="]);
        assert_eq!(parse("A=1\nexport"), Err(2));
        assert_eq!(parse("A B=1"), Err(1));
        assert_eq!(parse("=1"), Err(1));
    }

    #[test]
    fn variables_come_from_files_of_allowed_directories() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (inside, outside) = (root.join("in"), root.join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        for directory in [&inside, &outside] {
            std::fs::write(directory.join("web.env"), "A=1\n").unwrap();
        }
        std::os::unix::fs::symlink(outside.join("web.env"), inside.join("link.env")).unwrap();
        let mut config = AgentConfig::default();
        let words = |config: &AgentConfig, path: &Path| read(config, path).unwrap_err().to_string();
        assert!(words(&config, &inside.join("web.env")).contains("allow_environment_files"));
        config.allow_environment_files = AllowHostPaths::Below(vec![inside.clone()]);
        assert_eq!(read(&config, &inside.join("web.env")).unwrap(), ["A=1"]);
        assert!(words(&config, &inside.join("link.env")).contains("allow_environment_files"));
        assert!(words(&config, &outside.join("web.env")).contains("allow_environment_files"));
        assert!(words(&config, &inside.join("none.env")).contains("none.env"));
        std::fs::create_dir(inside.join("dir.env")).unwrap();
        assert!(chain(&read(&config, &inside.join("dir.env")).unwrap_err()).contains("regular file"));
    }
}
