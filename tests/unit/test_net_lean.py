"""Parts of pyroute2 by themselves, and the whole for whoever asks for it."""

from __future__ import annotations

import subprocess
import sys


def told(program: str) -> str:
    """What a process of its own prints: this one may have loaded anything."""
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


PARTS = "from n2n.net.lean import put_pyroute2; put_pyroute2(); from pyroute2.iproute import IPRoute; import sys\n"


def test_what_nobody_asked_for_is_not_loaded():
    program = PARTS + "print([name for name in ('pyroute2.ndb.main', 'pyroute2.plan9') if name in sys.modules])"
    assert told(program) == "[]"


def test_the_whole_is_there_for_others():
    program = PARTS + "import pyroute2; print(pyroute2.NDB.__name__, pyroute2.IPRoute is IPRoute)"
    assert told(program) == "NDB True"
    program = PARTS + "from pyroute2 import NDB, netns; print(NDB.__name__, netns.__name__)"
    assert told(program) == "NDB pyroute2.netns"


def test_a_name_that_nobody_has_is_refused_as_ever():
    program = PARTS + "import pyroute2\ntry: pyroute2.nonsense\nexcept AttributeError as error: print(error)"
    assert told(program) == "module 'pyroute2' has no attribute 'nonsense'"


def test_what_is_loaded_already_stays():
    program = "import pyroute2; before = pyroute2\n" + PARTS + "print(sys.modules['pyroute2'] is before)"
    assert told(program) == "True"
