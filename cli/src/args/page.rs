//! docs/cli.md: every command's help on one page, made from the commands themselves.
//! In: the clap definition. Out: the page, compared with the file. Only tests have this module.

use super::Cli;
use clap::CommandFactory;
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "\
# The `lighter` command

<!-- Made from cli/src/args.rs by `LIGHTER_UPDATE_DOCS=1 cargo test -p lighter-cli docs_page_is_up_to_date`;
     do not edit. -->

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failure: something broke; the words say what |
| 2 | wrong usage: an option or argument that does not exist or cannot be |
| 3 | refused or invalid: asking again in the same way will not help |
| 4 | not found: task, task definition, node, cluster, file |
| 5 | not available now: no control plane, no node, no room; trying again may help |
| 6 | not permitted: no key, or one that may not do this |

`lighter run --wait` ends with the exit code of the task's essential container (the first of several to
end), as `docker run` does: 128 + signal if a signal ended it (137 when it ran out of memory). Codes of
Lighter's own then are 125 (the task was not run: refused, not placed, image not pulled), 126 (the
program could not be started), 127 (there is no such program in the image), and 130 (Ctrl-C; without
`--rm` the task goes on).

Every failure is printed to standard error with its causes and the next thing to try:

```text
error: cannot run web:2
  because: default: No Container Instances were found in your cluster.
  try: join a node: `lighter token create`, then `lighter agent join` there
```

## Output

Tables are at most 100 columns wide; `-o wide` shows everything, `-q` prints ids only. `-o json` prints
ECS's member names and words, times in RFC 3339; members are added, never renamed. Colours are used on
terminals only, and not with `NO_COLOR`. Progress goes to standard error.

A task is named by its id, the beginning of its id, or its family when one task of it runs; a node by
its name, its id or the beginning of it.

## Commands
";

/// The page.
fn markdown() -> String {
    let mut page = String::from(HEAD);
    add(&mut page, Cli::command().term_width(100), "lighter");
    page
}

fn add(page: &mut String, command: clap::Command, name: &str) {
    let mut command = command.bin_name(name).term_width(100);
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(page, "\n### `{name}`\n\n```text\n{}\n```\n", help.join("\n"));
    for inner in command.get_subcommands() {
        let inner_name = format!("{name} {}", inner.get_name());
        add(page, inner.clone(), &inner_name);
    }
}

#[test]
fn docs_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("LIGHTER_UPDATE_DOCS").is_some() {
        std::fs::write(&path, markdown()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == markdown(), "docs/cli.md is out of date: see its third line");
}
