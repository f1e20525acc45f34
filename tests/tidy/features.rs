//! That a build of the server alone and a build of the workspace share their artifacts.
//!
//! Cargo unifies features over the packages that a command selects. Where a member wants more of a dependency than the
//! server does, everything that uses it is built twice, the server among it.

use std::{collections::BTreeSet, process::Command};

/// Packages that are built with other features in the workspace than for the server alone.
pub fn violations() -> Vec<String> {
    let [server, workspace] = [&["--package", "tidegate"][..], &["--workspace"]].map(packages);
    different(&server, &workspace)
}

fn different(server: &BTreeSet<String>, workspace: &BTreeSet<String>) -> Vec<String> {
    let other = |package: &str| workspace.iter().find(|line| line.split(' ').take(2).eq(package.split(' ').take(2)));
    let differing = server.difference(workspace);
    differing
        .map(|package| {
            let other = other(package).map_or("missing", String::as_str);
            format!("Cargo.toml: {package} for the server, {other} in the workspace: let the server take all of these features")
        })
        .collect()
}

/// Names, versions and features.
fn packages(selection: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none", "--format", "{p} [{f}]"])
        .args(selection)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, as it has built this");
    assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout);
    let packages: BTreeSet<String> = lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect();
    assert!(packages.len() > 10, "the server has more than {} dependencies; how does cargo list them?", packages.len());
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_features_in_the_workspace_are_found() {
        let server = ["one v1.0.0 [std]", "two v2.0.0 []"].map(str::to_owned).into();
        let workspace = ["one v1.0.0 [default,std]", "two v2.0.0 []", "three v3.0.0 []"].map(str::to_owned).into();
        let [violation] = &*different(&server, &workspace) else { panic!("one package differs") };
        assert!(violation.contains("one v1.0.0 [std] for the server, one v1.0.0 [default,std] in the workspace"));
        assert!(different(&server, &server).is_empty());
    }
}
