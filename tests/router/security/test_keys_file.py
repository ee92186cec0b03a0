"""The keys file: hashes in, clients out, and what is wrong in it is named without showing a hash."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from router.errors import ConfigError
from router.security.client import Client
from router.security.command import keys
from router.security.keys_file import entry, hash_of, new_key, read_keys_file


def test_an_entry_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    client = Client(name="a", models=frozenset({"m", "n"}), rate_per_s=2.5, concurrency=3, priority=-1)
    admin = Client(name="root", admin=True)
    path = tmp_path / "keys.toml"
    path.write_text(entry("one", client) + entry("two", admin))

    assert read_keys_file(path) == {hash_of("one"): client, hash_of("two"): admin}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no"),
        ("[[key]]\nname = 'a'\n", "sha256 must be"),
        ("[[key]]\nname = 'a b'\nsha256 = '" + "0" * 64 + "'", "name must be"),
        ("[[key]]\nname = 'a'\nsha256 = '" + "0" * 64 + "'\nrate = 1", "unknown field 'rate'"),
        ("[[key]]\nname = 'a'\nsha256 = '" + "0" * 64 + "'\npriority = 9", "priority must be"),
        ("[[key]]\nname = 'a'\nsha256 = '" + "0" * 64 + "'\nconcurrency = true", "concurrency must be"),
        ("key = 1", r"\[\[key\]\] tables"),
        ("nonsense", "not valid TOML"),
        (2 * ("[[key]]\nname = 'a'\nsha256 = '" + "0" * 64 + "'\n"), "there twice"),
    ],
)
def test_what_is_wrong_is_named_and_no_hash_is_shown(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=says) as error:
        read_keys_file(path)
    assert "0000" not in error.value.message


def test_the_command_prints_a_key_once_and_stores_its_hash_readable_by_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    made = CliRunner().invoke(keys, ["new", "team", "--file", str(path), "--rate", "5", "--model", "m"])
    admin = CliRunner().invoke(keys, ["new", "root", "--file", str(path), "--admin"])
    again = CliRunner().invoke(keys, ["new", "team", "--file", str(path)])
    key = made.stdout.strip()

    assert read_keys_file(path)[hash_of(key)] == Client(name="team", models=frozenset({"m"}), rate_per_s=5.0)
    assert read_keys_file(path)[hash_of(admin.stdout.strip())].admin
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert again.exit_code != 0


def test_keys_are_long_and_never_the_same() -> None:
    made = {new_key() for _ in range(100)}

    assert len(made) == 100
    assert min(map(len, made)) >= 46
