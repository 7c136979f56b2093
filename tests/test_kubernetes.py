"""docker/kubernetes.yaml: no cluster is here, so Kubernetes' schemas judge it; its parts have to agree."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.serve.access import OPEN

kubernetes = pytest.importorskip("kubernetes_validate")

VERSION = "1.32"  # the oldest that has all that is used, as the file says
DOCUMENTS: dict[str, Any] = {
    found["kind"]: found for found in yaml.safe_load_all(Path("docker/kubernetes.yaml").read_text())
}
POD = DOCUMENTS["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_it_follows_the_schemas(kind: str) -> None:
    kubernetes.validate(DOCUMENTS[kind], VERSION, strict=True)


def test_a_misspelt_key_would_be_found() -> None:
    wrong = DOCUMENTS["PodDisruptionBudget"] | {"spec": {"minAvailible": 1}}
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(wrong, VERSION, strict=True)


def test_all_speak_of_the_same_pods() -> None:
    labels = POD["metadata"]["labels"]
    assert DOCUMENTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert DOCUMENTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert DOCUMENTS["Service"]["spec"]["selector"] == labels
    scaler = DOCUMENTS["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == DOCUMENTS["Deployment"]["metadata"]["name"]
    # Whoever updates the Deployment must not undo what the autoscaler chose; a drain leaves one pod.
    assert "replicas" not in DOCUMENTS["Deployment"]["spec"]
    assert DOCUMENTS["PodDisruptionBudget"]["spec"]["minAvailable"] < scaler["minReplicas"]
    [port] = CONTAINER["ports"]
    assert DOCUMENTS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert CONTAINER["args"][-2:] == ["--port", str(port["containerPort"])]


def test_probes_ask_what_needs_no_key() -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert "/health" in OPEN
    start = CONTAINER["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300
    assert (
        POD["spec"]["terminationGracePeriodSeconds"] > CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    )


def test_nothing_can_be_written_and_secrets_stay_in_their_place() -> None:
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert POD["spec"]["securityContext"]["runAsNonRoot"]
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in POD["spec"]["volumes"]}
    assert [name for name, mount in mounts.items() if not mount.get("readOnly")] == ["tmp"]
    assert not any("subPath" in mount for mount in mounts.values())  # would keep the champion of the start
    assert mounts["checkout"]["mountPath"] == CONTAINER["workingDir"]
    environment = {each["name"]: each for each in CONTAINER["env"]}
    assert "value" not in environment["EVERGREEN_EVENTS"]
    assert environment["EVERGREEN_API_KEYS"]["value"].startswith(mounts["keys"]["mountPath"] + "/")
    assert "Secret" not in DOCUMENTS


def test_the_image_is_that_of_compose() -> None:
    compose = yaml.safe_load(Path("docker/compose.yaml").read_text())
    assert CONTAINER["image"] == compose["services"]["serve"]["image"]
