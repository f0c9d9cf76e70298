"""Configured volumes and their units on a machine that systemd has booted."""

from __future__ import annotations

from tests.vm.machine import TREE, Machine

# Of an emulated machine: each start of the program takes seconds, and beside other work a minute.
PATIENCE_S = 1200.0
GENERATORS = "/etc/systemd/system-generators"


def install_units(machine: Machine) -> None:
    """As an installation from a copy of the repository does it."""
    machine.run(
        f"cp {TREE}/packaging/systemd/*.service /etc/systemd/system/ && mkdir -p {GENERATORS} && "
        f"ln -sfn {TREE}/packaging/systemd/pydbt-generator {GENERATORS}/pydbt-generator && systemctl daemon-reload"
    )


def configure(machine: Machine, name: str, *lines: str) -> None:
    text = "\\n".join(lines)
    machine.run(f"mkdir -p /etc/pydbt/volumes && printf '{text}\\n' >/etc/pydbt/volumes/{name}.toml")


def start(machine: Machine, unit: str) -> None:
    done = machine.run(f"systemctl start {unit}", PATIENCE_S, check=False)
    assert done.code == 0, f"{done}\n{journal(machine, unit)}"


def journal(machine: Machine, unit: str) -> str:
    return machine.run(f"journalctl -o cat --no-pager -u {unit} | tail -n 60").output


def shown(machine: Machine, unit: str, name: str) -> str:
    return machine.run(f"systemctl show --value -p {name} {unit}").output.strip()
