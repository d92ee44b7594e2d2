"""App settings, in both directions: what is read is set, and what is set is read."""

import json
import re
import tomllib
from pathlib import Path

import pytest

import bicep

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
INFRA = ROOT / "infra"
FUNCTIONS = {path.parent.name: bicep.load(path) for path in sorted(ROOT.glob("functions/*/function.json"))}
KNOWN = bicep.load(HERE / "settings.json")
# Settings of an account have its name in them.
OPENAI = re.compile(r"OPENAI_(\w+?)_(ENDPOINT|ID)")


def rust_sources():
    for path in sorted((ROOT / "functions").rglob("*.rs")):
        if "tests" not in path.parts and path.name != "tests.rs":
            # Tests within a file stand at its end.
            yield path.read_text().split("#[cfg(test)]\nmod tests {")[0]


def read_by_rust() -> set[str]:
    """Names of variables are in capitals, and little else in the sources is."""
    found = set()
    for source in rust_sources():
        # What the compiler reads, and how help names an argument.
        source = re.sub(r"env!\(\"\w+\"\)|value_name = \"\w+\"", "", source)
        found |= set(re.findall(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"', source))
    return found


def read_by_toml() -> set[str]:
    source = (ROOT / "spillway.toml").read_text()
    return set(re.findall(r"(?<!\$)\$\{(\w+)\}", re.sub(r"^\s*#.*", "", source, flags=re.M)))


def read_by_bindings() -> set[str]:
    """`%NAME%` in a binding or host.json, and what a binding's connection by identity is made of."""
    found = set(re.findall(r"%(\w+)%", (ROOT / "host.json").read_text()))
    for function in FUNCTIONS.values():
        found |= set(re.findall(r"%(\w+)%", json.dumps(function)))
        for binding in function["bindings"]:
            if "connection" in binding:
                found |= {f"{binding['connection']}__{part}" for part in KNOWN["of_a_connection"]}
    return found


def names_in(source: str) -> set[str]:
    return set(re.findall(r"\{ name: '((?:[^'$]|\$\{[^}]*\})+)', value: ", source))


def set_by_bicep() -> set[str]:
    app = (INFRA / "modules/function-app.bicep").read_text()
    main = (INFRA / "main.bicep").read_text()
    block = re.search(r"\n    settings: \[\n(.*?)\n    \]\n", main, re.S)
    return names_in(app) | names_in(block.group(1))


def accounts() -> list[str]:
    parameters = bicep.load(INFRA / "main.parameters.json")["parameters"]
    return [account["name"] for account in parameters["openAiAccounts"]["value"]]


PATTERNS = {
    "OPENAI_${toUpper(replace(account.name, '-', '_'))}_ENDPOINT",
    "OPENAI_${toUpper(replace(account.name, '-', '_'))}_ID",
    "AzureWebJobs.${function}.Disabled",
}


def test_what_is_read_is_set():
    fixed = set_by_bicep() - PATTERNS
    openai = {f"OPENAI_{name.upper().replace('-', '_')}_{part}" for name in accounts() for part in ("ENDPOINT", "ID")}
    read = read_by_rust() | read_by_toml() | read_by_bindings()
    assert read - fixed - openai - KNOWN["read_but_not_set"].keys() == set()


def test_what_is_set_is_read():
    by_the_app = read_by_rust() | read_by_toml() | read_by_bindings()
    assert set_by_bicep() - PATTERNS - by_the_app - KNOWN["read_by_the_host"].keys() == set()
    assert PATTERNS <= set_by_bicep()


def test_the_lists_of_exceptions_are_needed():
    assert KNOWN["read_but_not_set"].keys() <= read_by_rust()
    assert KNOWN["read_by_the_host"].keys() <= set_by_bicep()


def test_further_settings_take_the_place_of_those_that_are_set():
    main = (INFRA / "main.bicep").read_text()
    app = (INFRA / "modules/function-app.bicep").read_text()
    assert "param extraSettings object = {}" in main and "\n    extraSettings: extraSettings\n" in main
    own = re.search(r"^var ownSettings = concat\((.*)\)$", app, re.M).group(1).split(", ")
    declared = set(re.findall(r"^var (\w+Settings) = ", app, re.M)) - {"ownSettings", "furtherSettings", "allSettings"}
    assert set(own) == declared | {"settings"}
    assert "var furtherSettings = [for setting in items(extraSettings): { name: setting.key, value: setting.value }]" in app
    replaced = "filter(ownSettings, setting => !contains(extraSettings, setting.name))"
    assert f"var allSettings = concat({replaced}, furtherSettings)\n" in app
    assert "\n      appSettings: allSettings\n" in app


@pytest.mark.parametrize("page,setting", [
    ("configuration", "SPILLWAY_CLIENT_ID"),
    ("identity", "SPILLWAY_CLIENT_ID"),
    ("telemetry", "OTEL_RESOURCE_ATTRIBUTES"),
    ("batch-api", "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"),
    ("chargeback", "AzureWebJobs.chargeback.Disabled"),
    ("operate", "RUST_LOG"),
])
def test_a_page_says_how_a_setting_is_set_that_bicep_does_not_set(page, setting):
    text = (ROOT / f"docs/{page}.md").read_text()
    assert setting in text and "`extraSettings`" in text
    assert setting not in set_by_bicep()


def test_every_account_of_the_parameters_is_a_backend():
    """And none of spillway.toml's backends is missing among the accounts."""
    named = {OPENAI.fullmatch(name).group(1) for name in read_by_toml() if OPENAI.fullmatch(name)}
    assert named == {name.upper().replace("-", "_") for name in accounts()}


def test_each_deployment_of_the_parameters_is_in_the_configuration():
    config = tomllib.loads((ROOT / "spillway.toml").read_text())
    in_toml = {(b["name"], d["name"], d["kind"]) for b in config["backend"] for d in b["deployment"]}
    parameters = bicep.load(INFRA / "main.parameters.json")["parameters"]
    in_bicep = {
        (account["name"], deployment["name"], "ptu" if "Provisioned" in deployment["sku"] else "payg")
        for account in parameters["openAiAccounts"]["value"]
        for deployment in account["deployments"]
    }
    assert in_toml == in_bicep


def listed(name: str) -> set[str]:
    source = (INFRA / "modules/function-app.bicep").read_text()
    return set(re.findall(r"'(\w+)'", re.search(rf"var {name} = \[(.*?)\]", source).group(1)))


def test_every_function_is_of_http_or_of_events():
    """An app that runs only the one has the other's switched off, by name."""
    http = {name for name, f in FUNCTIONS.items() if any(b["type"] == "httpTrigger" for b in f["bindings"])}
    assert listed("httpFunctions") == http
    assert listed("eventFunctions") == FUNCTIONS.keys() - http


@pytest.mark.parametrize("table,source,variable", [
    ("tables", "functions/store/mod.rs", "tableNames"),
    ("containers", "functions/store/blobs/mod.rs", "containerNames"),
])
def test_the_stores_names_are_made(table, source, variable):
    in_rust = set(re.findall(r'Self::\w+ => "([a-z]+)",', (ROOT / source).read_text()))
    block = re.search(rf"var {variable} = \[(.*?)\]", (INFRA / "main.bicep").read_text(), re.S).group(1)
    assert set(re.findall(r"'(\w+)'", block)) == in_rust, table


def test_the_address_that_azure_monitor_is_told_is_the_alert_functions():
    told = re.search(r"outputs\.url\}/([\w/-]+)'", (INFRA / "main.bicep").read_text()).group(1)
    routes = [b["route"] for b in FUNCTIONS["alert"]["bindings"] if b["type"] == "httpTrigger"]
    assert routes == [told]


def test_a_message_is_given_up_when_the_queue_and_the_handler_both_say_so():
    """The handler tells the sender at its last delivery, so it has to know which one that is."""
    default = re.search(r"const fn max_deliveries\(\) -> u64 \{\s*(\d+)", (ROOT / "functions/config/batch.rs").read_text())
    parameter = re.search(r"param maxDeliveryCount int = (\d+)", (INFRA / "main.bicep").read_text())
    assert default.group(1) == parameter.group(1)


def test_a_message_is_locked_for_longer_than_it_is_handled():
    host = bicep.load(ROOT / "host.json")
    renewed = host["extensions"]["serviceBus"]["maxAutoLockRenewalDuration"]
    longest = re.search(r"LONGEST: Duration = Duration::from_secs\((\d+) \* 60\)", (ROOT / "functions/batch/worker.rs").read_text())
    killed = host["functionTimeout"]
    renewed, killed = (sum(int(part) * unit for part, unit in zip(time.split(":"), (60, 1, 1 / 60))) for time in (renewed, killed))
    local = re.search(r"RENEWAL: Duration = Duration::from_secs\((\d+) \* 60\)", (ROOT / "functions/local/queue/pump.rs").read_text())
    assert int(longest.group(1)) < renewed < killed
    assert int(local.group(1)) == renewed
    held = re.search(r"max = ([0-9_]+)\)\)\]\s+pub hold_ms", (ROOT / "functions/config/batch.rs").read_text())
    called = re.search(r"max = ([0-9_]+)\)\)\]\s+pub batch_timeout_ms", (ROOT / "functions/config/types.rs").read_text())
    together = sum(int(found.group(1)) for found in (held, called)) / 60_000
    assert together + 5 <= int(longest.group(1)), "a message that was held has all the time of its call"
