//! The commands of whoever operates, with the project's own spillway.toml, on a machine that knows where blobs are
//! and nothing else.

use std::process::Command;

use crate::process::BINARY;

/// A folder with the project's spillway.toml, watched in a blob, and blobs.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> (Self, String) {
        let machine = Self(tempfile::tempdir().unwrap());
        let live = "\n[live]\nblob = \"config/spillway.toml\"\n";
        let shipped = include_str!("../../spillway.toml").to_owned() + live;
        machine.write("spillway.toml", &shipped);
        (machine, shipped)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.path().join(file), text).unwrap();
    }

    /// What the program says, and its exit code.
    fn says(&self, arguments: &[&str], blobs: Option<&str>) -> (String, i32) {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.0.path());
        command.env_clear();
        command.envs(blobs.map(|blobs| ("BLOBS_ENDPOINT", blobs)));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        (text, output.status.code().unwrap())
    }
}

#[test]
fn the_shipped_configuration_is_put_and_compared_by_who_knows_where_blobs_are() {
    let (machine, shipped) = Machine::new();
    let blobs = format!("embedded:{}", machine.0.path().join("kept").display());
    let says = |arguments: &[&str]| machine.says(arguments, Some(&blobs));
    let (said, code) = says(&["config", "put", "spillway.toml"]);
    let put = format!(
        "config/spillway.toml is now {}",
        spillway::live::hash(&shipped)
    );
    assert!(code == 0 && said.contains(&put), "{said}");
    assert_eq!(says(&["diff", "spillway.toml"]), (String::new(), 0));

    let next = shipped.replacen(
        "region = \"${REGION_NAME}\"",
        "region = \"${ELSEWHERE}\"",
        1,
    );
    machine.write("next.toml", &next);
    let (said, code) = says(&["diff", "next.toml"]);
    assert_eq!(
        (&*said, code),
        (
            "~ gateway.region = \"${REGION_NAME}\" -> \"${ELSEWHERE}\"\n",
            1
        )
    );
    assert_eq!(says(&["config", "list"]), (String::new(), 0));
    let (said, code) = says(&["config", "rollback", "none.toml"]);
    assert!(
        code != 0 && said.contains("nothing is kept as none.toml"),
        "{said}"
    );
}

#[test]
fn a_machine_that_does_not_know_where_blobs_are_is_told_what_it_lacks() {
    let (machine, _) = Machine::new();
    let (said, code) = machine.says(&["diff", "spillway.toml"], None);
    let variable = "storage.blobs: the environment variable BLOBS_ENDPOINT is not set";
    assert!(code == 2 && said.contains(variable), "{said}");
    assert_eq!(said.lines().count(), 1, "it takes no other one: {said}");
}
