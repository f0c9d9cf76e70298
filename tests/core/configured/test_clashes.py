"""Two files that take the same thing are both named, each with the other."""

from __future__ import annotations

from pydbt.core.configured.clashes import Claim, clashes


def test_two_files_with_the_same_device_name_each_other() -> None:
    claims = [
        Claim("a.toml", 2, "source", '"/dev/x"', "a device", identity=7),
        Claim("b.toml", 0, "target", '"/dev/y"', "a device", identity=7),
        Claim("c.toml", 2, "source", '"/dev/z"', "a device", identity=8),
        Claim("d.toml", 2, "state", '"/s"', "a state directory", identity=7),
    ]
    assert [str(problem) for problem in clashes(claims)] == [
        'a.toml line 2: source = "/dev/x": expected a device that nothing else uses; it is also target of b.toml',
        'b.toml: target = "/dev/y": expected a device that nothing else uses; it is also source of a.toml line 2',
    ]


def listening(*addresses: tuple[str, int]) -> list[str]:
    claims = [Claim(f"{n}.toml", 1, "listen", "", "an address", address=one) for n, one in enumerate(addresses)]
    return [problem.file for problem in clashes(claims)]


def test_addresses_meet_at_the_same_host_or_at_every_host() -> None:
    assert listening(("10.0.0.1", 7), ("10.0.0.1", 7)) == ["0.toml", "1.toml"]
    assert listening(("10.0.0.1", 7), ("10.0.0.1", 8)) == []
    assert listening(("10.0.0.1", 7), ("10.0.0.2", 7)) == []
    assert listening(("0.0.0.0", 7), ("10.0.0.2", 7)) == ["0.toml", "1.toml"]
    assert listening(("unix:/a", 0), ("unix:/b", 0), ("unix:/a", 0)) == ["0.toml", "2.toml"]
    assert listening(("10.0.0.1", 7), ("::", 7), ("10.0.0.2", 7)) == ["0.toml", "1.toml", "2.toml"]
