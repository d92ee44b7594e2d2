use super::*;

const LIVE: &str = "[live]\nblob = \"config/spillway.toml\"\n";

/// Where a configuration with this `[storage]` lies, on a machine that knows where blobs are and nothing else.
fn place(storage: &str) -> Result<(Live, Option<StoragePlace>), Mistakes> {
    let text = format!("[auth]\ntenant = \"${{UNSET}}\"\n{LIVE}[storage]\n{storage}");
    let env = |name: &str| (name == "BLOBS").then(|| "embedded:/data".to_owned());
    Config::place(&text, "spillway.toml", &env)
}

#[test]
fn where_a_configuration_lies_takes_no_other_variables() {
    let (live, blobs) = place("tables = \"${UNSET}\"\nblobs = \"${BLOBS}\"").unwrap();
    assert_eq!(live.blob_name(), Some("spillway.toml"));
    assert_eq!(blobs, Some(StoragePlace::Embedded("/data".into())));
}

#[test]
fn the_variable_that_is_missing_to_find_it_is_named() {
    let mistakes = place("tables = \"${UNSET}\"\nblobs = \"${ELSEWHERE}\"").unwrap_err();
    let said = mistakes.to_string();
    let variable = "storage.blobs: the environment variable ELSEWHERE is not set";
    assert!(
        said.starts_with("spillway.toml:7:9: ") && said.contains(variable),
        "{said}"
    );
    assert_eq!(mistakes.list.len(), 1, "{said}");
}

#[test]
fn what_is_wrong_with_where_it_lies_is_said() {
    let said = |storage: &str| place(storage).unwrap_err().to_string();
    assert!(said("blobs = \"nowhere\"").contains("must be `https://NAME.blob"));
    assert!(said("blobs = ").contains("not valid TOML"));
}
