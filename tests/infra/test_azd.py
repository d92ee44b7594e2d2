"""azure.yaml, its hooks and its parameters."""

import fnmatch
import re
import subprocess
from pathlib import Path

import yaml

import bicep

ROOT = Path(__file__).parent.parent.parent
AZD = yaml.safe_load((ROOT / "azure.yaml").read_text())
PROJECT = bicep.Project(ROOT / "infra")
MAIN = PROJECT.files[(ROOT / "infra/main.bicep").resolve()]


GATEWAY = AZD["services"]["gateway"]
ALL_HOOKS = {**AZD["hooks"], **GATEWAY["hooks"]}


def hooks():
    for hook in ALL_HOOKS.values():
        yield from hook.values()


def test_the_package_is_built_by_azd_deploy_too():
    assert GATEWAY["project"] == ".", "hooks of a service run in its folder"
    assert "build.sh" in GATEWAY["hooks"]["prepackage"]["posix"]["run"]
    assert "prepackage" not in AZD["hooks"], "azd runs it with `azd package` and `azd up` only"


def test_a_service_is_deployed_to_the_app_that_has_its_tag():
    assert list(AZD["services"]) == ["gateway"]
    assert (GATEWAY["host"], GATEWAY["language"], GATEWAY["dist"]) == ("function", "custom", "dist/app")
    assert "service: 'gateway'" in MAIN.source
    app = PROJECT.files[(ROOT / "infra/modules/function-app.bicep").resolve()]
    assert "'azd-service-name': serviceName" in app.source
    assert "'azd-env-name': environmentName" in MAIN.source


def test_an_azd_that_knows_no_custom_language_is_refused():
    assert AZD["requiredVersions"] == {"azd": ">= 1.20.0"}
    assert "1.20.0" in (ROOT / "docs/deploy.md").read_text()


def test_every_hook_is_there_for_both_sorts_of_machines_and_can_be_run():
    for name, hook in ALL_HOOKS.items():
        assert hook.keys() == {"posix", "windows"}, name
    for hook in hooks():
        path = ROOT / hook["run"]
        assert path.is_file()
        if path.suffix == ".sh":
            assert path.stat().st_mode & 0o111
            subprocess.run(["bash", "-n", path], check=True)


def test_parameters_are_those_of_the_template():
    given = bicep.load(ROOT / "infra/main.parameters.json")["parameters"]
    parameters = {parameter.name: parameter for parameter in MAIN.of_kind("parameter")}
    assert given.keys() <= parameters.keys()
    assert {name for name, parameter in parameters.items() if parameter.required} <= given.keys()
    for name, entry in given.items():
        value = entry["value"]
        default = re.fullmatch(r"\$\{\w+=(.*)\}", value) if isinstance(value, str) else None
        allowed = parameters[name].decorators.get("allowed")
        if default and allowed:
            assert default.group(1) in allowed, name
        # azd makes a boolean of these words, in a parameter that is one.
        if parameters[name].type == "bool" and isinstance(value, str):
            assert default and default.group(1) in ("true", "false"), name


def test_what_azd_env_sets_is_on_the_page():
    given = bicep.load(ROOT / "infra/main.parameters.json")["parameters"]
    page = (ROOT / "docs/deploy.md").read_text()
    for name, entry in given.items():
        value = entry["value"]
        variables = set(re.findall(r"\$\{(\w+)", value)) if isinstance(value, str) else {name}
        # `azd env new` asks for these.
        for variable in variables - {"AZURE_ENV_NAME", "AZURE_LOCATION"}:
            assert re.search(rf"\b{variable}\b", page), variable


def test_what_the_hooks_read_of_azd_is_an_output():
    wanted = set()
    for hook in hooks():
        if "deploy-others" in hook["run"]:
            source = (ROOT / hook["run"]).read_text()
            wanted |= set(re.findall(r"\$(?:env:|\{)?([A-Z][A-Z_]+)\b", source)) - {"PWD"}
    # What azd itself says of each environment.
    wanted -= {"AZURE_SUBSCRIPTION_ID"}
    assert wanted
    assert wanted <= MAIN.outputs.keys()


def test_what_the_image_is_made_of_is_not_ignored():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line[1:] for line in lines if line.startswith("!")]
    docker = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", docker, re.M)
    names = {name for sources in copied for name in sources.split()}
    assert "*" in lines and "${CONFIG}" in names
    for name in names:
        name = name.replace("${CONFIG}", "other.toml")
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_dist_is_not_committed():
    assert "/dist" in (ROOT / ".gitignore").read_text().split()
