"""The files that bring a cluster up: what `ray up` and an API server would refuse, and what we promise of them."""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from jobs.secrets import SECRET_VALUE, is_secret_name
from pipelines.endpoint.replica import build
from tests.jobs.manifests import check, containers, documents

ROOT = Path(__file__).parents[2]
LAUNCHED = [ROOT / "ray_cluster.yaml", ROOT / "jobs/clusters/aws.yaml"]
MANIFESTS = sorted((ROOT / "jobs/kuberay").glob("*.yaml"))
FILES = [
    *LAUNCHED,
    ROOT / "Dockerfile",
    *sorted(path for name in ("clusters", "kuberay") for path in (ROOT / "jobs" / name).iterdir()),
]
FILES = list(dict.fromkeys(path for path in FILES if path.is_file()))
CLUSTER, JOB = ROOT / "jobs/kuberay/cluster.yaml", ROOT / "jobs/kuberay/job.yaml"
RESOURCES = [pytest.param(each, id=f"{path.name}-{each['kind']}-{each['metadata']['name']}")
             for path in MANIFESTS for each in documents(path)]  # fmt: skip


def named(path: Path) -> str:
    return path.name


def launched(path: Path) -> dict[str, Any]:
    """As `ray up` sees it, before it calls the provider."""
    return prepare_config(yaml.safe_load(path.read_text()))


def starts(config: dict[str, Any], role: str) -> list[str]:
    return [each for each in config[f"{role}_start_ray_commands"] if "ray start" in each]


def ray_spec() -> dict[str, Any]:
    return documents(CLUSTER)[0]["spec"]


@pytest.mark.parametrize("path", LAUNCHED, ids=named)
def test_ray_up_takes_the_file(path: Path) -> None:
    validate_config(launched(path))


@pytest.mark.parametrize("path", LAUNCHED, ids=named)
@pytest.mark.parametrize(("key", "value"), [("setup_command", []), ("max_workers", "many"), ("auth", None)])
def test_ray_up_refuses_a_mistake_in_the_file(path: Path, key: str, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(launched(path) | {key: value})


@pytest.mark.parametrize("path", LAUNCHED, ids=named)
def test_the_head_has_no_cpus_and_its_dashboard_is_on_loopback(path: Path) -> None:
    (head,) = starts(launched(path), "head")
    words = head.split()
    assert {"--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(words)
    assert "--ray-client-server-port" not in head


def test_the_autoscaler_counts_no_cpus_on_the_head_of_aws() -> None:
    config = launched(LAUNCHED[1])
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}


@pytest.mark.parametrize("path", LAUNCHED, ids=named)
def test_every_ray_command_runs_in_the_environment_that_asks_for_a_token(path: Path) -> None:
    config = launched(path)
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert command.startswith(". ~/mind/jobs/clusters/environment.sh && "), command
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The home folder of a node, its files as `ray up` may have left them."""
    for name, text in ((".mind/cluster.env", "MIND_HOME=s3://b/home\n"), (".ray/auth_token", "t\n")):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(text)
        file.chmod(0o644)
    return tmp_path


def sourced(home: Path, before: str = "true", after: str = "env") -> subprocess.CompletedProcess[str]:
    command = f"{before} && . {ROOT}/jobs/clusters/environment.sh && {after}"
    return subprocess.run(["bash", "-c", command], env={"HOME": str(home), "PATH": os.environ["PATH"]},
                          capture_output=True, text=True)  # fmt: skip


def test_a_node_exports_the_sites_settings_and_asks_for_its_token(node: Path) -> None:
    environment = dict(line.split("=", 1) for line in sourced(node).stdout.splitlines())
    assert environment["MIND_HOME"] == "s3://b/home"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text() == "t\n"
    assert environment["PATH"].startswith(f"{node}/mind-venv/bin:")


def test_only_its_owner_reads_the_secrets_of_a_node(node: Path) -> None:
    assert sourced(node).returncode == 0
    assert {(node / name).stat().st_mode & 0o777 for name in (".mind/cluster.env", ".ray/auth_token")} == {0o600}


def test_a_node_opens_as_many_files_as_its_machine_allows(node: Path) -> None:
    done = sourced(node, before="ulimit -Sn 256 && ulimit -Hn 1024", after="ulimit -n")
    assert (done.returncode, done.stdout) == (0, "1024\n")  # Ray's own `ulimit -n 65536` fails here


def test_a_node_without_a_token_does_not_start(node: Path) -> None:
    (node / ".ray/auth_token").unlink()
    assert sourced(node).returncode != 0


def test_workers_of_aws_are_spot_and_bounded_and_the_head_is_neither() -> None:
    config = launched(LAUNCHED[1])
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert set(types) == {"cpu", "gpu"}
    for each in types.values():
        market = each["node_config"]["InstanceMarketOptions"]
        assert market["MarketType"] == "spot"
        assert market["SpotOptions"] == {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        assert 0 <= each["min_workers"] <= each["max_workers"] <= config["max_workers"]
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("path", LAUNCHED, ids=named)
def test_every_node_is_set_up_by_the_one_install_script(path: Path) -> None:
    config = launched(path)
    for role in ("head", "worker"):  # Ray has put the common commands first
        assert any("jobs/clusters/install.sh ~/mind-venv" in each for each in config[f"{role}_setup_commands"])


def pip_calls(tmp_path: Path, *packages: str) -> list[list[str]]:
    """What install.sh asks of pip, a line of a stand-in for python each."""
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\n(IFS="|"; echo "$*") >>{tmp_path}/calls\n')
    python.chmod(0o755)
    script = ["bash", ROOT / "jobs/clusters/install.sh", tmp_path / "venv", *packages]
    subprocess.run(script, check=True, env=os.environ | {"TORCH_INDEX": "https://index.example"})
    return [line.split("|") for line in (tmp_path / "calls").read_text().splitlines()]


def test_torch_is_installed_first_and_everything_at_the_versions_of_constraints(tmp_path: Path) -> None:
    first, second = pip_calls(tmp_path, "boto3")
    (pinned,) = re.findall(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert [word for word in first if "torch" in word] == [pinned]
    assert second[-4:] == ["--constraint", "constraints.txt", ".", "boto3"]


def test_every_package_that_a_file_installs_has_its_version_in_constraints() -> None:
    pins = {Requirement(line).name.lower() for line in (ROOT / "constraints.txt").read_text().splitlines()
            if line and not line.startswith("#")}  # fmt: skip
    calls = re.findall(r"install\.sh [~/]\S+((?: '?[a-z0-9]+(?:\[\w+\])?'?)*)", "".join(map(Path.read_text, FILES)))
    wanted = {Requirement(word.strip("'")).name for call in calls for word in call.split()}
    assert {"boto3", "psycopg"} <= wanted <= pins


def test_manifests_are_for_the_ray_that_is_installed() -> None:
    pinned = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert [ray_spec()["rayVersion"]] == pinned


@pytest.mark.parametrize("manifest", RESOURCES)
def test_an_api_server_takes_the_manifest(manifest: dict[str, Any]) -> None:
    check(manifest)


def set_at(manifest: dict[str, Any], *path: Any, value: Any) -> None:
    for key in path[:-1]:
        manifest = manifest[key]
    manifest[path[-1]] = value


POD = ("spec", "workerGroupSpecs", 0, "template", "spec")
MISTAKES: list[tuple[str, str, Callable[[dict[str, Any]], None]]] = [
    ("cluster.yaml", "RayCluster", lambda m: set_at(m, "spec", "enableAutoscaling", value=True)),
    ("cluster.yaml", "RayCluster", lambda m: set_at(m, "spec", "authOptions", "mode", value="on")),
    ("cluster.yaml", "RayCluster", lambda m: set_at(m, "spec", "workerGroupSpecs", 0, "maxReplicas", value="8")),
    ("cluster.yaml", "RayCluster", lambda m: set_at(m, "spec", "headGroupSpec", "rayStartParams", "num-cpus", value=0)),
    ("cluster.yaml", "RayCluster", lambda m: set_at(m, *POD, "toleration", value=[])),
    ("cluster.yaml", "RayCluster", lambda m: set_at(m, *POD, "containers", 0, "image", value=1)),
    ("cluster.yaml", "RayCluster", lambda m: m["spec"].pop("headGroupSpec")),
    ("job.yaml", "RayJob", lambda m: set_at(m, "spec", "submissionMode", value="Http")),
    ("job.yaml", "RayJob", lambda m: set_at(m, "spec", "backoffLimit", value="two")),
    ("job.yaml", "RayJob", lambda m: set_at(m, "spec", "retries", value=2)),
    ("service.yaml", "RayService", lambda m: set_at(m, "spec", "rayClusterSpec", value={})),
    ("service.yaml", "RayService", lambda m: set_at(m, "spec", "serveConfigV2", value={})),
    ("service.yaml", "RayService", lambda m: set_at(m, "spec", "upgradeStrategy", value={"type": "Rolling"})),
    ("nightly.yaml", "CronJob", lambda m: set_at(m, "spec", "concurrency", value="Forbid")),
    ("nightly.yaml", "CronJob", lambda m: m["spec"].pop("schedule")),
    ("mlflow.yaml", "Deployment", lambda m: set_at(m, "spec", "replicas", value="1")),
    ("namespace.yaml", "NetworkPolicy", lambda m: set_at(m, "spec", "ingres", value=[])),
]


@pytest.mark.parametrize(("file", "kind", "plant"), MISTAKES)
def test_an_api_server_refuses_a_planted_mistake(file: str, kind: str, plant: Callable[[dict[str, Any]], None]) -> None:
    manifest = copy.deepcopy(next(each for each in documents(ROOT / "jobs/kuberay" / file) if each["kind"] == kind))
    plant(manifest)
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_a_job_has_the_cluster_of_cluster_yaml() -> None:
    assert documents(JOB)[0]["spec"]["rayClusterSpec"] == ray_spec()


def test_a_raycluster_asks_for_a_token_and_keeps_work_off_its_head() -> None:
    spec = ray_spec()
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_worker_groups_are_spot_and_bounded_and_only_one_has_gpus() -> None:
    groups = {each["groupName"]: each for each in ray_spec()["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for name, group in groups.items():
        pod = group["template"]["spec"]
        assert pod["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
        assert any(each["key"] == "spot" for each in pod["tolerations"])
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] < 100
        assert ("nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]) == (name == "gpu")


def test_a_job_that_loses_its_cluster_is_tried_again_and_ends_before_the_next_night() -> None:
    spec = documents(JOB)[0]["spec"]
    assert spec["backoffLimit"] >= 1
    assert spec["activeDeadlineSeconds"] < 24 * 3600
    assert spec["shutdownAfterJobFinishes"] is True


def test_the_entrypoint_of_a_job_is_a_command_of_ours() -> None:
    words = documents(JOB)[0]["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "jobs.cli"]
    known = subprocess.run([sys.executable, "-m", "jobs.cli", words[3], "--help"], cwd=ROOT, capture_output=True)
    assert known.returncode == 0, known.stderr.decode()


def test_configurations_come_from_a_configmap_and_not_from_the_image() -> None:
    for path in (CLUSTER, JOB, ROOT / "jobs/kuberay/service.yaml"):
        for pod in _pods(documents(path)[0]):
            assert {"name": "conf", "configMap": {"name": "mind-conf", "optional": True}} in pod["volumes"], path
            mounts = [mount for each in pod["containers"] for mount in each["volumeMounts"]]
            assert {"name": "conf", "mountPath": "/conf", "readOnly": True} in mounts
    assert "/conf/mine.yaml" in documents(JOB)[0]["spec"]["entrypoint"]
    assert "conf: /conf/mine.yaml" in documents(ROOT / "jobs/kuberay/service.yaml")[0]["spec"]["serveConfigV2"]


def _pods(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """Pods of the Ray cluster within a resource: its head's and its workers'."""
    spec = resource["spec"]
    spec = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_a_nightly_run_may_touch_rayjobs_only_and_never_overlaps_with_the_last() -> None:
    kinds = {each["kind"]: each for each in documents(ROOT / "jobs/kuberay/nightly.yaml")}
    (rule,) = kinds["Role"]["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["ray.io"], ["rayjobs"])
    assert not {"*", "update", "patch"} & set(rule["verbs"])
    assert kinds["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"
    assert documents(JOB)[0]["metadata"]["name"] == "mind-nightly"  # which the run clears, creates and waits for


def test_the_service_runs_what_mind_serve_runs_on_the_clusters_own_head_and_image() -> None:
    (service,) = documents(ROOT / "jobs/kuberay/service.yaml")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert set(application.args) == {"conf"}
    cluster, other = service["spec"]["rayClusterConfig"], ray_spec()
    assert cluster["headGroupSpec"] == other["headGroupSpec"]
    assert {key for key in cluster if cluster[key] == other[key]} >= {"rayVersion", "authOptions", "autoscalerOptions"}
    images = [{each["image"] for each in containers(spec["headGroupSpec"])} for spec in (cluster, other)]
    assert images[0] == images[1] == {each["image"] for each in containers(cluster)}
    (port,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["ports"]
    assert port == {"containerPort": config.http_options.port, "name": "serve"}


def test_the_image_has_what_the_service_needs() -> None:
    assert "'ray[serve]'" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("manifest", RESOURCES)
def test_containers_have_pinned_images_memory_limits_and_no_privileges(manifest: dict[str, Any]) -> None:
    for each in containers(manifest):
        assert re.search(r":v?\d+\.\d+[\w.-]*$", each["image"]), each["image"]
        resources = each["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"], each["name"]
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_images_of_the_dockerfile_are_pinned() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    froms = {image for image, _ in stages} - {name for _, name in stages}
    assert froms
    assert all(re.search(r":\d+\.\d+\.\d+-", each) for each in froms)


def test_only_the_namespace_reaches_pods_and_only_mlflow_its_database() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in documents(ROOT / "jobs/kuberay/namespace.yaml")
                if each["kind"] == "NetworkPolicy"}  # fmt: skip
    everyone = policies["same-namespace-only"]
    assert everyone["ingress"] == [{"from": [{"podSelector": {}}]}]
    assert everyone["podSelector"]["matchExpressions"] == [{"key": "app", "operator": "NotIn", "values": ["postgres"]}]
    assert policies["mlflow-to-postgres"]["podSelector"] == {"matchLabels": {"app": "postgres"}}
    (rule,) = policies["prometheus-to-ray"]["ingress"]  # metrics alone, and to one namespace
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    services = [each for path in MANIFESTS for each in documents(path) if each["kind"] == "Service"]
    assert {each["metadata"]["name"]: each["spec"]["type"] for each in services} == {
        "mlflow": "ClusterIP",
        "postgres": "ClusterIP",
    }


SETTING = re.compile(
    r"""(?:^|[\s{,])(?:name:\s*)?([A-Z][A-Z0-9_]+)(?:=|:\s+|,\s*value:\s*)["']?([^\s"',}#]+)""", re.MULTILINE
)
URI_WITH_PASSWORD = re.compile(r"://[^/\s:@]+:[^/\s@]+@")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_file_has_a_secret_in_it(path: Path) -> None:
    text = path.read_text()
    assert not SECRET_VALUE.search(text)
    assert not URI_WITH_PASSWORD.search(text)
    literal = {name: value for name, value in SETTING.findall(text) if is_secret_name(name)}
    assert not literal


@pytest.mark.parametrize("planted", ["AWS_SECRET_ACCESS_KEY=abcdef", "- {name: PGPASSWORD, value: abcdef}",
                                     "RAY_AUTH_TOKEN: abcdef"])  # fmt: skip
def test_a_planted_secret_is_found(planted: str) -> None:
    assert [name for name, _ in SETTING.findall(planted) if is_secret_name(name)]


def test_every_setting_of_ours_or_mlflows_that_a_file_names_is_read_somewhere() -> None:
    import mlflow.cli
    import mlflow.environment_variables as known

    sources = [path for name in ("mind_core", "pipelines", "jobs") for path in (ROOT / name).rglob("*.py")]
    code = "".join(map(Path.read_text, sources))
    options = {option.envvar for option in mlflow.cli.server.params if getattr(option, "envvar", None)}
    for path in FILES:
        for name in re.findall(r"\b(?:MIND|MLFLOW)_[A-Z][A-Z_]+\b(?!/)", path.read_text()):
            assert name in code or name in options or hasattr(known, name), f"{path.name}: {name}"
