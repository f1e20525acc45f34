//! The counting itself: one operation in one process under `valgrind --tool=callgrind`.

use std::{
    env, fs,
    hint::black_box,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use crate::baseline::Counts;

/// The argument that asks for one operation; its name follows.
pub const RUN: &str = "--run";

/// What of a process is counted.
#[derive(Default)]
pub struct Counter {
    operations: u64,
}

impl Counter {
    /// Counts what `work` does, which is so many operations. May be called several times.
    pub fn count(&mut self, operations: u64, mut work: impl FnMut()) {
        counted_by_callgrind(&mut work);
        self.operations += operations;
    }

    /// Operations counted.
    pub fn operations(&self) -> u64 {
        self.operations
    }
}

/// Callgrind counts what happens between this function's begin and end; it finds it by its name.
#[inline(never)]
fn counted_by_callgrind(work: &mut dyn FnMut()) {
    work();
    // A call at a function's very end would become a jump, and callgrind would see no end.
    black_box(());
}

/// Instructions per operation, of all these. As many are counted at a time as there are cores: what runs beside a
/// process does not change its count.
pub fn count_all(operations: &[&str]) -> Result<Counts, String> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let count_some = || -> Result<Counts, String> {
        let mut counts = Counts::new();
        while let Some(operation) = operations.get(next.fetch_add(1, Relaxed)) {
            counts.insert((*operation).to_owned(), count(operation)?);
        }
        Ok(counts)
    };
    thread::scope(|scope| {
        let counting: Vec<_> = (0..threads).map(|_| scope.spawn(count_some)).collect();
        let mut all = Counts::new();
        for thread in counting {
            all.append(&mut thread.join().expect("a thread that counts does not panic")?);
        }
        Ok(all)
    })
}

fn count(operation: &str) -> Result<f64, String> {
    let file = profile_file(operation)?;
    let output = callgrind(operation, &file)?;
    let operations: u64 =
        text(&output).parse().map_err(|error| format!("{operation}: no count of operations: {error}"))?;
    let profile = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let _ = fs::remove_file(&file);
    let instructions = profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok());
    match instructions {
        Some(instructions @ 1..) => Ok(instructions as f64 / operations as f64),
        _ => Err(format!("{operation}: callgrind has counted nothing; does it find counted_by_callgrind by its name?")),
    }
}

/// The functions that an operation's instructions are spent in, those of their callees included.
pub fn profile(operation: &str) -> Result<String, String> {
    let file = profile_file(operation)?;
    callgrind(operation, &file)?;
    let listing = answer(Command::new("callgrind_annotate").args(["--inclusive=yes", "--auto=no"]).arg(&file))?;
    let _ = fs::remove_file(&file);
    Ok(listing)
}

/// Beside the program, which lies in the target folder.
fn profile_file(operation: &str) -> Result<PathBuf, String> {
    Ok(program()?.with_file_name(format!("callgrind.{}", operation.replace('/', "."))))
}

fn program() -> Result<PathBuf, String> {
    env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))
}

fn callgrind(operation: &str, file: &Path) -> Result<Output, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_by_callgrind*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program()?)
        .args([RUN, operation])
        // The environment lies on the stack: its length would move everything there.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind does not run: {error}. apt-get install valgrind, or make test-tools"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{operation} failed under valgrind:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// What counts depend on, beside the code.
pub fn conditions() -> Result<String, String> {
    let compiler = answer(Command::new(env::var_os("RUSTC").unwrap_or("rustc".into())).arg("--version"))?;
    let library = answer(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let valgrind = answer(Command::new("valgrind").arg("--version"))?;
    Ok(format!("{compiler}, {library}, {valgrind}, {}", processor()))
}

/// Code is chosen at run time by what the processor has; of that, valgrind passes on no more than this.
fn processor() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    return if std::is_x86_feature_detected!("avx2") { "x86_64 with AVX2" } else { "x86_64 without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    env::consts::ARCH
}

fn answer(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(text(&output)),
        Ok(output) => Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{program} does not run: {error}")),
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
