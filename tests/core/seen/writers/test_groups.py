"""Control groups have the names that systemd and container runtimes gave them."""

from __future__ import annotations

import pytest

from pydbt.core.seen.writers.groups import Group, control_group_of

ID = "4f1ac77b6a2f" + "0" * 52


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/", Group("/", "", "")),
        (
            "/system.slice/postgresql@15-main.service",
            Group("postgresql@15-main.service", "postgresql@15-main.service", ""),
        ),
        ("/system.slice/ssh.service/worker", Group("ssh.service", "ssh.service", "")),
        ("/user.slice/user-1000.slice/session-3.scope", Group("session-3.scope", "session-3.scope", "")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-fio.service",
            Group("app-fio.service of user@1000.service", "app-fio.service", ""),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            Group("init.scope of user@1000.service", "init.scope", ""),
        ),
        (f"/system.slice/docker-{ID}.scope", Group("Docker 4f1ac77b6a2f", f"docker-{ID}.scope", "Docker 4f1ac77b6a2f")),
        (f"/docker/{ID}", Group("Docker 4f1ac77b6a2f", "", "Docker 4f1ac77b6a2f")),
        (f"/docker/{ID}/init.scope", Group("Docker 4f1ac77b6a2f", "init.scope", "Docker 4f1ac77b6a2f")),
        (
            f"/machine.slice/libpod-{ID}.scope/container",
            Group("Podman 4f1ac77b6a2f", f"libpod-{ID}.scope", "Podman 4f1ac77b6a2f"),
        ),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab.slice/cri-containerd-{ID}.scope",
            Group("containerd 4f1ac77b6a2f", f"cri-containerd-{ID}.scope", "containerd 4f1ac77b6a2f"),
        ),
        (f"/kubepods/burstable/pod12-34/{ID}", Group("container 4f1ac77b6a2f", "", "container 4f1ac77b6a2f")),
        ("/lxc.payload.web/system.slice/nginx.service", Group("LXC web", "nginx.service", "LXC web")),
        ("/lxc/web", Group("LXC web", "", "LXC web")),
        (
            "/machine.slice/machine-deb\\x2d12.scope/payload",
            Group("machine deb-12", "machine-deb-12.scope", "machine deb-12"),
        ),
        ("/system.slice/dev-disk\\x1b.mount", Group("dev-disk\\x1b.mount", "dev-disk\\x1b.mount", "")),
        ("/my/own", Group("/my/own", "", "")),
        (f"/home/{ID}", Group(f"/home/{ID}", "", "")),
        ("", Group("/", "", "")),
    ],
)
def test_a_group_has_the_name_that_people_call_it_by(path: str, group: Group) -> None:
    assert control_group_of(path) == group
