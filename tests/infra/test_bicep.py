"""infra/ as the compiler would find it. No Bicep compiler is at hand where these tests run."""

import re
from pathlib import Path

import pycep
import pytest

import bicep

HERE = Path(__file__).parent
INFRA = HERE.parent.parent / "infra"
FILES = sorted(INFRA.rglob("*.bicep"))


@pytest.fixture(scope="module")
def project():
    return bicep.Project(INFRA)


def write(folder: Path, **files: str) -> bicep.Project:
    for name, content in files.items():
        (folder / f"{name}.bicep").write_text(content)
    return bicep.Project(folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(INFRA)))
def test_a_file_parses_by_the_grammar_that_checkov_reads(path):
    pycep.BicepParser().parse(text=path.read_text())


def test_the_files_fit_each_other(project):
    assert project.mistakes == []


def test_every_module_is_used(project):
    used = {
        (file.path.parent / module.target).resolve()
        for file in project.files.values()
        for module in file.of_kind("module")
    }
    assert set(project.files) - used == {(INFRA / "main.bicep").resolve()}


def test_resource_types_have_the_api_versions_of_the_list(project):
    found = {}
    for file in project.files.values():
        for resource in file.resources():
            kind, version = resource.target.split("@")
            found.setdefault(kind, set()).add(version)
    expected = {kind: {version} for kind, version in bicep.load(HERE / "api-versions.json").items()}
    assert found == expected


def test_roles_are_those_that_their_names_say():
    builtin = bicep.load(HERE / "builtin-roles.json")
    rows = bicep.load(INFRA / "roles.json")
    assert {row["role"]: row["id"] for row in rows} == builtin
    assert len({(row["on"], row["to"], row["id"]) for row in rows}) == len(rows)
    assert all(row["reason"].endswith(".") for row in rows)


def test_each_row_of_the_table_of_roles_is_assigned():
    """access.bicep picks rows by `row.on == 'x'`, those of the gateway and of the operator apart."""
    source = (INFRA / "modules/access.bicep").read_text()
    picked = set()
    for who in ("gateway", "operator"):
        for on in re.findall(rf"filter\({who}Roles, row => row\.on == '(\w+)'\)", source):
            picked.add((on, who))
    rows = bicep.load(INFRA / "roles.json")
    assert picked == {(row["on"], row["to"]) for row in rows}


def chosen(on: str, *choices: str) -> set[str]:
    """The gateway's roles on something, in a deployment that chose these."""
    def holds(row: dict) -> bool:
        when = row.get("when")
        return when is None or (when.removeprefix("not ") in choices) != when.startswith("not ")
    rows = bicep.load(INFRA / "roles.json")
    return {row["role"] for row in rows if row["on"] == on and row["to"] == "gateway" and holds(row)}


def test_a_role_that_depends_on_a_choice_is_of_a_parameter_that_is_off(project):
    main = project.files[(INFRA / "main.bicep").resolve()]
    parameters = {parameter.name: parameter for parameter in main.of_kind("parameter")}
    names = {row["when"].removeprefix("not ") for row in bicep.load(INFRA / "roles.json") if "when" in row}
    assert names == {"filesAndBatches", "batchQueueOwner"}
    for name in names:
        assert (parameters[name].type, bicep.literal(parameters[name].value)) == ("bool", False), name
        assert f"\n  {name} ? '{name}' : 'not {name}'\n" in main.source, name
    assert "row => contains(choices, row.?when ?? 'always')" in main.source
    assert "var choices = [\n  'always'\n" in main.source


def test_the_gateway_writes_files_of_backends_only_where_that_is_chosen():
    assert chosen("openai") == {"Cognitive Services OpenAI User", "Monitoring Reader"}
    assert chosen("openai", "filesAndBatches") == {"Cognitive Services OpenAI Contributor", "Monitoring Reader"}


def test_the_gateway_owns_its_batch_queue_only_where_that_is_chosen():
    user = {"Azure Service Bus Data Receiver", "Azure Service Bus Data Sender"}
    assert chosen("batch") == user
    assert chosen("batch", "batchQueueOwner") == user | {"Azure Service Bus Data Owner"}
    assert chosen("replies", "batchQueueOwner") == {"Azure Service Bus Data Sender"}


def test_only_a_full_ptu_calls_the_alert_function():
    """The function refuses alerts on anything else."""
    source = (INFRA / "modules/alerts.bicep").read_text()
    blocks = dict(re.findall(r"^resource (\w+) '[\w./]+@[\w-]+' = (.*?^}\]?$)", source, re.M | re.S))
    groups = {name for name, block in blocks.items() if "groupShortName" in block}
    assert groups == {"people", "alertFunction"}
    assert {name for name in groups if "webhookReceivers" in blocks[name]} == {"alertFunction"}
    assert {name for name in groups if "emailReceivers" in blocks[name]} == {"people"}
    assert blocks["alertFunction"].startswith("if (hasWebhook) ")
    actions = {
        name: re.search(r"^    actions: (.*)$", block, re.M).group(1)
        for name, block in blocks.items() if name not in groups
    }
    assert actions.pop("fullPtu") == "concat(toPeople, toAlertFunction)"
    assert set(actions) == {"deadLetters", "throttledEvents", "failing"}
    assert set(actions.values()) == {"toPeople"}
    assert re.search(r"var toPeople = \[\n  \{\n    actionGroupId: people\.id\n", source)
    assert re.search(r"var toAlertFunction = hasWebhook \? \[\n  \{\n    actionGroupId: alertFunction\.id\n", source)


def test_no_role_is_assigned_beside_the_table(project):
    for file in project.files.values():
        guids = re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", file.source)
        assert guids == [], file.path


def test_nothing_opens_by_a_key_or_without_tls(project):
    """What is safe by default stays so: these hold whatever the parameters are."""
    source = "\n".join(file.source for file in project.files.values())
    for switch, count in {
        "allowSharedKeyAccess: false": 1,
        "allowBlobPublicAccess: false": 1,
        "disableLocalAuth: true": 4,
        "DisableLocalAuth: true": 1,
        "httpsOnly: true": 1,
        "supportsHttpsTrafficOnly: true": 1,
        "minimumTlsVersion: 'TLS1_2'": 1,
        "minimumTlsVersion: '1.2'": 2,
        "allow: false": 2,
    }.items():
        assert source.count(switch) == count, switch
    for function in ("listKeys", "listAccountSas", "sharedKey", "connectionString("):
        assert function not in source


# What the checks find: each of these is a mistake that once was made, or easily is.
GOOD = "@description('A name.')\nparam name string\n@description('It.')\noutput it string = name\n"
MISTAKES = {
    "syntax": ("var a = {\n", "syntax"),
    "a name that nothing declares": (GOOD + "var b = nam\nvar c = b\n", "nam is not declared"),
    "a parameter that nothing reads": (GOOD + "@description('x')\nparam other int = 1\n", "other is not used"),
    "a function that there is not": (GOOD + "var b = emty(name)\n", "unknown function emty"),
    "a parameter without a description": ("param x int = 1\nvar y = x\n", "x has no description"),
    "a module that there is not": ("module m 'gone.bicep' = {\n  name: 'm'\n}\n", "no such module"),
    "a parameter that is missing": ("module m 'good.bicep' = {\n  name: 'm'\n}\n", "needs name"),
    "a parameter that is not known": (
        "module m 'good.bicep' = {\n  name: 'm'\n  params: { name: 'a', nmae: 'b' }\n}\n", "knows no nmae"),
    "a parameter of another type": (
        "module m 'good.bicep' = {\n  name: 'm'\n  params: { name: 1 }\n}\n", "name is string, not int"),
    "an output that there is not": (
        "module m 'good.bicep' = {\n  name: 'm'\n  params: { name: 'a' }\n}\n"
        "@description('x')\noutput o string = m.outputs.its\n", "has no output its"),
    "an output of another type": (
        "module m 'good.bicep' = {\n  name: 'm'\n  params: { name: 'a' }\n}\n"
        "@description('x')\noutput o int = m.outputs.it\n", "o is int, not string"),
    "a value that is not allowed": (
        "@description('x')\n@allowed(['a', 'b'])\nparam x string = 'c'\nvar y = x\n", "x can't be 'c'"),
    "a host of one cloud": (GOOD + "var u = 'https://x.blob.core.windows.net'\n", "differs between clouds"),
    "a dependency said twice": (
        "resource a 'x/y@1' = {\n  name: 'a'\n}\n"
        "resource b 'x/y@1' = {\n  name: a.name\n  dependsOn: [\n    a\n  ]\n}\n", "need not say that it depends on a"),
    "quotes for nothing": (GOOD + "var o = { 'a': name }\nvar p = o\n", "'a' needs no quotes"),
    "a child that there is not": ("resource a 'x/y@1' = {\n  name: 'a'\n}\nvar b = a::c.id\nvar d = b\n", "a::c is not declared"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_the_checks_find(case, tmp_path):
    source, expected = MISTAKES[case]
    found = write(tmp_path, good=GOOD, it=source).mistakes
    assert any(expected in mistake for mistake in found), found


def test_a_wider_bound_than_the_modules_is_found(tmp_path):
    module = "@description('x')\n@minValue(1)\nparam x int\n@description('x')\noutput y int = x\n"
    main = (
        "@description('x')\n@minValue(0)\nparam x int = 1\n"
        "module m 'module.bicep' = {\n  name: 'm'\n  params: { x: x }\n}\n"
    )
    found = write(tmp_path, module=module, main=main).mistakes
    assert found == ["main.bicep:6: x has minValue 0, x 1"]


def test_loops_lambdas_and_children_bring_names_of_their_own(tmp_path):
    source = """
@description('Items.')
param items array
var kept = filter(items, item => item.on == 'x' && !empty(item.name))
resource all 'a/b@1' = [for (item, i) in kept: {
  name: '${item.name}-${i}'
}]
resource parent 'a/b@1' = {
  name: 'p'

  resource child 'c' existing = {
    name: 'c'
  }
}
@description('x')
output id string = parent::child.id
@description('x')
output first string = all[0].name
"""
    assert write(tmp_path, it=source).mistakes == []
