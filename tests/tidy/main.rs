//! Rules about the source that the compiler does not know: the order of modules, where `unsafe` may stand,
//! how long a function may be, what may not be called where, how a file opens,
//! that members of the workspace build their dependencies alike, and that each code of the protocol is reached by a test.
//!
//! Each rule is a function from sources to violations, and is shown to fail on a small snippet beside it.

mod calls;
mod codes;
mod features;
mod files;
mod functions;
mod layers;
mod source;

use std::{fs, path::Path};

use calls::Exception;
use source::Source;

/// Functions that are longer than [`functions::LINES_MAX`], as `path::name`, with their lines. The list may only shrink:
/// a function that grew fails, and so does an entry that is longer than its function has become.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Banned calls that stand for a reason. The list may only shrink, too.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        path: "src/uring/simulated.rs",
        call: "println!",
        count: 1,
        reason: "the trace of a seed that is replayed, for the terminal of whoever replays it",
    },
    Exception {
        path: "src/mesh/address_table.rs",
        call: "Mutex",
        count: 3,
        reason: "connections of an address are counted over all shards when they begin and end; its header says why",
    },
];

#[test]
fn modules_import_only_from_above() {
    report(&layers::violations(&sources()));
}

#[test]
fn library_lists_its_modules_in_their_order() {
    let library = sources().into_iter().find(|source| source.path == "src/lib.rs").expect("src/lib.rs is there");
    report(&layers::order_violations(&library));
}

#[test]
fn unsafe_code_stays_in_the_ring() {
    report(&sources().iter().flat_map(calls::unsafe_violations).collect::<Vec<_>>());
}

#[test]
fn functions_stay_short() {
    report(&functions::violations(&sources(), LONG_FUNCTIONS));
}

#[test]
fn banned_calls_are_not_made() {
    report(&sources().iter().flat_map(|source| calls::violations(source, EXCEPTIONS)).collect::<Vec<_>>());
}

#[test]
fn files_open_with_what_they_own() {
    report(&sources().iter().flat_map(files::violations).collect::<Vec<_>>());
}

#[test]
fn members_share_what_they_build() {
    report(&features::violations());
}

#[test]
fn codes_are_reached_by_tests() {
    report(&codes::violations(Path::new(env!("CARGO_MANIFEST_DIR"))));
}

/// Fails with all violations, one per line.
fn report(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Every Rust file under `src`, by path.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    let mut texts: Vec<(String, String)> = paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.strip_prefix(root).expect("files of src lie under the root").display().to_string();
            (path, text)
        })
        .collect();
    texts.sort();
    assert!(texts.len() > 10, "src holds more than {} files; are they looked for in the right place?", texts.len());
    source::without_tests(texts)
}

fn collect(folder: &Path, paths: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}
