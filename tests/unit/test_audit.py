"""The list of packages that `make audit` writes, and what it says where nobody answers."""

import json

import pytest

from tests import audit

LOCK = """one==1.0 \\
    --hash=sha256:0123456789012345678901234567890123456789012345678901234567890123 \\
    --hash=sha256:abcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcd
two-parts==2.1.post1 ; python_full_version < '3.12' \\
    --hash=sha256:0123456789012345678901234567890123456789012345678901234567890123
"""


def test_each_package_of_a_lock_is_listed_with_its_hashes() -> None:
    found = json.loads(audit.bill(LOCK))
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "agent-fleet",
    )
    one, two = sorted(found["components"], key=lambda component: component["name"])
    assert (one["name"], one["version"], len(one["hashes"])) == ("one", "1.0", 2)
    assert two["purl"] == "pkg:pypi/two-parts@2.1.post1"


def test_the_lock_of_the_image_is_listed_whole() -> None:
    lock = audit.RUNTIME.read_text()
    listed = json.loads(audit.bill(lock))["components"]
    assert len(listed) == sum("==" in line for line in lock.splitlines() if line[:1].isalnum())


def test_advisories_are_skipped_with_a_reason_where_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "SERVICE", "https://127.0.0.1:1/")
    assert audit.main() == 0
    said = capsys.readouterr().err
    assert "build/sbom.json" in said
    assert "skipped, because https://127.0.0.1:1/ does not answer (" in said
