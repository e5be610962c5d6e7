//! Times the unpacking of one large gzip layer against GNU tar on the same file and disk.
//! In: a layer file, or nothing (one of a gigabyte is made of /usr). Out: seconds of both on standard output, one
//! line `unpack_seconds <ours> <tar's> <tar's divided by ours>` at the end, for `make bench`.
//! Neither side syncs; the time until the disk has it all is printed beside. Never: leaves a file.

use lighter_image::unpack::{UnpackLimits, unpack_file};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let work = std::env::temp_dir().join(format!("lighter-unpack-bench-{}", std::process::id()));
    std::fs::create_dir(&work)?;
    let result = run(&work);
    std::fs::remove_dir_all(&work)?;
    result
}

fn run(work: &Path) -> Outcome<()> {
    let runs: usize = std::env::args().nth(2).map_or(Ok(3), |n| n.parse())?;
    let layer = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => make_layer(work)?,
    };
    println!("layer {} of {} MiB", layer.display(), layer.metadata()?.len() >> 20);
    let (mut ours, mut tars) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let (seconds, synced) = time_ours(&layer, &work.join("ours"))?;
        let tar = time_tar(&layer, &work.join("tar"))?;
        println!("run {run}: lighter {seconds:.2} s ({synced:.2} s with sync), tar xzf {tar:.2} s");
        ours.push(seconds);
        tars.push(tar);
    }
    let (ours, tar) = (median(ours), median(tars));
    println!("unpack_seconds {ours:.3} {tar:.3} {:.2}", tar / ours);
    Ok(())
}

/// About a gigabyte of this machine's programs, libraries and documents.
fn make_layer(work: &Path) -> Outcome<PathBuf> {
    const BYTES: u64 = 1 << 30;
    let (layer, list) = (work.join("layer.tar.gz"), work.join("list"));
    let mut names = String::new();
    let mut total = 0;
    let mut waiting = vec![PathBuf::from("/usr/share"), PathBuf::from("/usr/lib"), PathBuf::from("/usr/bin")];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() && total < BYTES {
                total += entry.metadata()?.len();
                names.push_str(&format!("{}\n", path.strip_prefix("/")?.display()));
            }
        }
    }
    std::fs::write(&list, names)?;
    let made = Command::new("tar").arg("czf").arg(&layer).args(["-C", "/", "-T"]).arg(&list).status()?;
    if !made.success() {
        return Err("tar could not make the layer".into());
    }
    Ok(layer)
}

fn time_ours(layer: &Path, dir: &Path) -> Outcome<(f64, f64)> {
    std::fs::create_dir(dir)?;
    settle()?;
    let start = Instant::now();
    let limits = UnpackLimits { max_bytes: u64::MAX, max_entries: u64::MAX };
    let unpacked = unpack_file(layer, dir, limits)?;
    let seconds = start.elapsed().as_secs_f64();
    settle()?;
    let synced = start.elapsed().as_secs_f64();
    println!("  {} entries, {} MiB of files", unpacked.entries, unpacked.bytes >> 20);
    std::fs::remove_dir_all(dir)?;
    Ok((seconds, synced))
}

fn time_tar(layer: &Path, dir: &Path) -> Outcome<f64> {
    std::fs::create_dir(dir)?;
    settle()?;
    let start = Instant::now();
    let status = Command::new("tar").arg("xzf").arg(layer).arg("-C").arg(dir).status()?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err("tar failed".into());
    }
    std::fs::remove_dir_all(dir)?;
    Ok(seconds)
}

/// Writes back what runs before have left dirty, so that no run pays for another.
fn settle() -> Outcome<()> {
    Command::new("sync").status()?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
