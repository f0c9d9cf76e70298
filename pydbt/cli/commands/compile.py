"""``controller compile``: compile the programs for a kernel before it is booted."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.once import was_typed
from pydbt.cli.values import PATH
from pydbt.core.errors import UsageError
from pydbt.core.printable import printable
from pydbt.device.checks import require_root
from pydbt.kernel.code_cache import FOLDER
from pydbt.kernel.installed import image_of
from pydbt.kernel.tracing.ahead import compile_ahead


@click.command("compile")
@click.option("--kernel", "release", metavar="RELEASE", help="An installed kernel, as 'uname -r' names it.")
@click.option("--image", type=PATH, metavar="FILE", help="The image of a kernel (vmlinuz), wherever it is.")
def compile_for_kernel(release: str | None, image: Path | None) -> int:
    """Compile the programs for a kernel.

    Without an option this is the running kernel. The first start on a kernel compiles by itself; after this command it
    needs no compiler and no kernel headers, and takes some seconds less. The package does it for each kernel that is
    installed where programs were compiled before. The compiled programs are kept in /var/cache/pydbt.
    """
    require_root("controller compile", "it writes to /var/cache/pydbt and asks the kernel for maps")
    if was_typed("release") and was_typed("image"):
        raise UsageError("--kernel and --image both name a kernel: give one of them")
    if release is not None:
        image = image_of(release)
    done = compile_ahead(image)
    if done.compiled:
        click.echo(printable(f"compiled for {done.release}: {done.compiled} sets of programs, kept in {FOLDER}"))
    else:
        click.echo(printable(f"nothing to compile: the programs for {done.release} are in {FOLDER} already"))
    return 0
