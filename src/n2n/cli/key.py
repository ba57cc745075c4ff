"""``n2n key ...``: what identifies a supernode and this machine, and new passphrases."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from n2n.cli.output import ago, print_json, print_pairs, print_table
from n2n.errors import ConfigError, N2NError, PlatformError

if TYPE_CHECKING:
    from n2n.store import KnownKeys

__all__ = ["app", "new_passphrase"]

#: Crockford's base 32: no letter that is read as a digit, and none that makes words.
_LETTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
#: 30 letters of 5 bits: 150 bits, which no guessing finds.
_GROUPS: Final = 6
_GROUP: Final = 5
_PRIVATE: Final = 0o600

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Keys, identities, passphrases.")

_StateDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="State directory of the edges [~/.local/state/n2n].")
]
_Json = Annotated[bool, typer.Option("--json", help="JSON; its fields are stable.")]


@app.callback()
def _key() -> None:
    """Keys, identities, passphrases."""


@app.command()
def fingerprint(
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Read the key there; without it: the running supernode's.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show the fingerprint of this host's supernode key; edges show what they see in `n2n status`."""
    found, source = _of_file(state_dir) if state_dir is not None else _of_daemon()
    if as_json:
        print_json({"fingerprint": found, "source": source})
    else:
        print(f"SHA256:{found}  ({source})")


@app.command()
def accept(
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Which edge, by its TAP device.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Accept another key of the supernode, which a running edge has refused. Compare its fingerprint first."""
    from n2n.api.client import choose_edge, connect

    with connect(choose_edge(instance)) as client:
        supernode = client.call("status")["supernode"]
        refused = supernode["refused_key"]
        if refused is None:
            raise N2NError(f"the edge has refused no key of {supernode['configured']}: there is nothing to accept")
        print_pairs([("known", f"SHA256:{supernode['key']}"), ("now", f"SHA256:{refused}")])
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigError("nobody can be asked here: compare the fingerprints, then give --yes")
            answer = input(f"Is this the key of {supernode['configured']} (n2n key fingerprint there)? yes/no: ")
            if answer.strip().lower() != "yes":
                raise N2NError("the key was not accepted")
        client.call("accept_key", fingerprint=refused)
    print("accepted; the edge registers again")


@app.command("list")
def list_known(state_dir: _StateDir = None, as_json: _Json = False) -> None:
    """Show the supernodes whose keys edges of this user remember."""
    from n2n.wire import key_fingerprint

    rows = [
        (address, key_fingerprint(key.public_pem), key.lasts, key.since)
        for address, key in _known_keys(state_dir).all().items()
    ]
    if as_json:
        names = ("supernode", "fingerprint", "lasts", "since")
        print_json({"keys": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    lines = [(address, f"SHA256:{found}", lasts, ago(since)) for address, found, lasts, since in rows]
    print_table(("SUPERNODE", "KEY", "LASTS", "KNOWN FOR"), lines, "no supernode's key is known")


@app.command()
def forget(
    supernode: Annotated[str, typer.Argument(metavar="HOST:PORT", help="As in supernode_addr.")],
    state_dir: _StateDir = None,
) -> None:
    """Forget a supernode's key: at their next start edges take the one that comes."""
    known = _known_keys(state_dir)
    if not known.forget(supernode):
        raise N2NError(f"no key of {supernode} is known: see n2n key list")
    print(f"forgot the key of {supernode}; running edges remember it until they end")


@app.command()
def mac(
    community: Annotated[str, typer.Argument(metavar="COMMUNITY", help="Name of the network.")],
    machine_id_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The edge's identity [~/.n2n-go/machine-id].")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show which MAC address this user's machine id has in a community."""
    from n2n.identity import load_machine_id, mac_for

    path = machine_id_file
    if path is None:
        path = Path(os.environ.get("N2N_MACHINE_ID_FILE") or Path("~/.n2n-go/machine-id").expanduser())
    if not path.exists():
        raise ConfigError(f"there is no machine id {path}: it is made when an edge first starts. See --machine-id-file")
    address = str(mac_for(load_machine_id(path), community))
    if as_json:
        print_json({"community": community, "mac": address, "machine_id_file": str(path)})
    else:
        print_pairs([("mac", address), ("community", community), ("machine id", path)])


@app.command()
def passphrase(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to a new file that only you can read.")
    ] = None,
) -> None:
    """Make a new passphrase that cannot be guessed (150 bits). Give the same one to every edge of a community."""
    text = new_passphrase()
    if output is None:
        print(text)
        return
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    except FileExistsError:
        raise ConfigError(f"{output} exists and is not written over: choose another file") from None
    except OSError as error:
        raise PlatformError(f"{output} cannot be written: {(error.strerror or str(error)).lower()}") from error
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"{text}\n")
    print(f"wrote {output}; in edge.yaml: encryption_passphrase_file: {output.absolute()}")


def new_passphrase() -> str:
    """150 random bits as six groups of five letters and digits.

    >>> len(new_passphrase()), new_passphrase() == new_passphrase()
    (35, False)
    """
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))


def _known_keys(directory: Path | None) -> KnownKeys:
    from n2n.config import default_edge_state_dir
    from n2n.store import KnownKeys

    if directory is None:
        directory = Path(os.environ.get("N2N_STATE_DIR") or default_edge_state_dir())
    return KnownKeys(directory)


def _of_file(directory: Path) -> tuple[str, str]:
    from n2n.store import KEY_FILE, load_key
    from n2n.wire import key_fingerprint

    path = directory / KEY_FILE
    try:
        return key_fingerprint(load_key(path).public_pem()), str(path)
    except FileNotFoundError:
        raise ConfigError(f"there is no key {path}: it is made when a supernode first starts there") from None


def _of_daemon() -> tuple[str, str]:
    from n2n.api.client import connect
    from n2n.api.instances import SUPERNODE

    with connect(SUPERNODE) as client:
        status: dict[str, Any] = client.call("status")
    found = status.get("key")
    if not isinstance(found, str):
        raise N2NError("the supernode does not tell its key: it is an older version, or has not started yet")
    return found, "the running supernode"
