"""The output of Pacemaker is read without doubt, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pydbt.core.cluster.candidate import Fencing
from pydbt.core.cluster.database import cluster_view, fencing_history
from pydbt.core.cluster.owner import ContentOwner, OwnerClaim

DEVICE = '<primitive id="power" class="stonith" type="fence_ipmilan"/>'
OWN = (
    '<clone id="c"><primitive id="data" class="ocf" provider="pydbt" type="volume"><instance_attributes id="i">'
    '<nvpair id="v" name="volume" value="data"/></instance_attributes></primitive></clone>'
)


def cib(properties: str = "", resources: str = DEVICE) -> str:
    return (
        f'<cib><configuration><crm_config><cluster_property_set id="p">{properties}</cluster_property_set></crm_config>'
        f"<resources>{resources}</resources></configuration><status/></cib>"
    )


def setting(name: str, value: str) -> str:
    return f'<nvpair id="x-{name}" name="{name}" value="{value}"/>'


def test_fencing_is_there_when_it_is_not_switched_off_and_a_device_is_configured() -> None:
    assert cluster_view(cib(), "data").why_unfenced == ""
    assert cluster_view(cib(setting("stonith-enabled", "true")), "data").why_unfenced == ""


@pytest.mark.parametrize("word", ["false", "False", "off", "no", "0"])
def test_a_cluster_whose_fencing_is_switched_off_is_reported_as_unfenced(word: str) -> None:
    assert "stonith-enabled is false" in cluster_view(cib(setting("stonith-enabled", word)), "data").why_unfenced


def test_a_cluster_without_a_fencing_device_is_reported_as_unfenced() -> None:
    stopped = DEVICE.replace(
        "/>",
        '><meta_attributes id="m"><nvpair id="t" name="target-role" value="Stopped"/></meta_attributes></primitive>',
    )
    for resources in ("", OWN, stopped):
        assert "no fencing device" in cluster_view(cib(resources=resources), "data").why_unfenced


def test_a_device_of_a_group_a_clone_or_a_template_counts() -> None:
    template = '<template id="t" class="stonith" type="x"/><primitive id="p" template="t"/>'
    for resources in (f'<group id="g">{DEVICE}</group>', f'<clone id="g">{DEVICE}</clone>', template):
        assert cluster_view(cib(resources=resources), "data").why_unfenced == ""


def test_the_owner_of_a_volume_and_its_resource_are_found_by_its_name() -> None:
    owner = ContentOwner("alpha", OwnerClaim.RELEASED, datetime(2026, 1, 2, 12, 0, tzinfo=UTC))
    view = cluster_view(cib(setting("pydbt-data", owner.to_text()), OWN), "data")
    assert view.owner == owner and view.resources == ("data",)
    assert cluster_view(cib(setting("pydbt-data", owner.to_text()), OWN), "other").owner is None


@pytest.mark.parametrize(
    "text",
    [
        "", "promoted alpha", "ruling alpha 2026-01-02T12:00:00Z", "promoted alpha noon",
        "promoted alpha 2026-01-02T12:00:00",
    ],
)  # fmt: skip
def test_another_text_is_no_owner(text: str) -> None:
    assert ContentOwner.from_text(text) is None


@pytest.mark.parametrize("text", ["", "<cib", "<cib/>", "Connection to cluster failed"])
def test_a_text_that_is_no_database_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        cluster_view(text, "data")


def event(**changes: str) -> str:
    values = {"target": "alpha", "action": "reboot", "status": "success", "completed": "2026-01-02 12:00:05.250000Z"}
    words = " ".join(f'{name}="{value}"' for name, value in (values | changes).items())
    return f"<pacemaker-result><fence_history><fence_event {words}/></fence_history></pacemaker-result>"


@pytest.mark.parametrize(
    "completed",
    [
        "2026-01-02 12:00:05.250000Z", "2026-01-02 12:00:05.250000 Z", "2026-01-02 13:00:05.25 +01:00",
        "2026-01-02T12:00:05.250000000+00:00",
    ],
)  # fmt: skip
def test_the_moment_of_a_fencing_is_read_as_each_version_writes_it(completed: str) -> None:
    assert fencing_history(event(completed=completed)) == (
        Fencing("alpha", datetime(2026, 1, 2, 12, 0, 5, 250000, tzinfo=UTC)),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failed"}, {"status": "pending"}, {"action": "on"}, {"completed": ""}, {"completed": "2026-01-02 12:00:05"},
        {"completed": "2026-13-02 12:00:05Z"},
    ],
)  # fmt: skip
def test_a_fencing_that_did_not_succeed_or_has_no_certain_moment_is_none(changes: dict[str, str]) -> None:
    assert fencing_history(event(**changes)) == ()


def test_a_history_that_is_no_xml_is_refused() -> None:
    with pytest.raises(ValueError):
        fencing_history("stonith_admin: could not connect")
