"""The machines' image as a box for Vagrant's libvirt provider, and a place without a network to try it in"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.vm.image import OURS, PROJECT, Image, cache, image

LAB = Path(__file__).parent / "lab"
GIB = 1 << 30
# The box brings its own key, so that Vagrant need not put one into the machine.
_VAGRANTFILE = """Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.ssh.private_key_path = File.expand_path("id", __dir__)
end
"""
TOOLS = ("vagrant", "libvirtd", "virsh", "dnsmasq", "dbus-daemon")
PACKAGES = "vagrant vagrant-libvirt libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base dbus"


def box() -> Path:
    """A ``.box`` file of the image, made when missing."""
    built = image()
    path = built.folder / "pydbt-machine.box"
    if not path.exists():
        _make_box(built, path)
    return path


def _make_box(built: Image, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="box-", dir=cache()) as place:
        parts = Path(place)
        metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": -(-built.root.stat().st_size // GIB)}
        (parts / "metadata.json").write_text(json.dumps(metadata))
        (parts / "Vagrantfile").write_text(_VAGRANTFILE)
        shutil.copy(built.key, parts / "id")
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", built.root, parts / "box.img"], check=True)
        with tarfile.open(parts / "new.box", "w") as archive:
            for name in ("metadata.json", "Vagrantfile", "id", "box.img"):
                archive.add(parts / name, name)
        (parts / "new.box").rename(path)


def package() -> Path:
    """The Debian package of this tree, built here: machines without a network have nothing to build it with."""
    folder = cache() / f"package-{OURS}"
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run([PROJECT / "scripts/package", folder], capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"the package could not be built: {done.stderr[-3000:]}")
    return Path(done.stdout.strip())


def check_tools() -> None:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} missing here: apt-get install --no-install-recommends {PACKAGES}")


def lab_command(words: list[str]) -> list[str]:
    """A command inside the lab. What Vagrant and libvirt keep is thrown away when another box is to be used."""
    check_tools()
    made = box()
    folder = cache() / f"lab-{OURS}"
    if not (folder / "box").exists() or (folder / "box").read_text() != str(made):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "box").write_text(str(made))
    return [str(LAB), str(folder), str(made), str(made.parent), str(package()), *words]


def lab(words: list[str]) -> int:
    """Run a command, or a shell, in the lab."""
    return subprocess.run(lab_command(words or [os.environ.get("SHELL", "/bin/bash")]), cwd=PROJECT).returncode
